"""What the optimizers are compared with, one file a family: constructors of other libraries, draws, golden cases."""

from . import (
    anchored,
    descent,
    factored,
    layerwise,
    mixtures,
    moments,
    muon,
    preconditioned,
    scaled,
    shaped,
    signs,
    stepsizes,
    variances,
)

FAMILIES = {
    "descent": descent,
    "scaled": scaled,
    "moments": moments,
    "layerwise": layerwise,
    "stepsizes": stepsizes,
    "shaped": shaped,
    "factored": factored,
    "muon": muon,
    "preconditioned": preconditioned,
    "variances": variances,
    "mixtures": mixtures,
    "signs": signs,
    "anchored": anchored,
}
