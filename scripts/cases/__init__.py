"""What the optimizers are compared with, one file a family: constructors of other libraries, draws, golden cases."""

from . import (
    adaptation,
    anchored,
    descent,
    distances,
    factored,
    layerwise,
    mixtures,
    moments,
    muon,
    preconditioned,
    scaled,
    schedule_free,
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
    "distances": distances,
    "adaptation": adaptation,
    "shaped": shaped,
    "factored": factored,
    "muon": muon,
    "preconditioned": preconditioned,
    "variances": variances,
    "mixtures": mixtures,
    "signs": signs,
    "anchored": anchored,
    "schedule_free": schedule_free,
}
