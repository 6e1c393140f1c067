"""What the optimizers are compared with, one file a family: constructors of other libraries, draws, golden cases."""

from . import descent, layerwise, moments, scaled, shaped, stepsizes

FAMILIES = {
    "descent": descent,
    "scaled": scaled,
    "moments": moments,
    "layerwise": layerwise,
    "stepsizes": stepsizes,
    "shaped": shaped,
}
