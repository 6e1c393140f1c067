"""What the optimizers are compared with, one file a family: constructors of other libraries, draws, golden cases."""

from . import anchored, descent, layerwise, mixtures, moments, scaled, shaped, signs, sparse, stepsizes, variances

FAMILIES = {
    "descent": descent,
    "scaled": scaled,
    "moments": moments,
    "layerwise": layerwise,
    "stepsizes": stepsizes,
    "shaped": shaped,
    "variances": variances,
    "mixtures": mixtures,
    "signs": signs,
    "anchored": anchored,
    "sparse": sparse,
}
