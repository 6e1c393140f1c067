"""What the optimizers are compared with, one file a family: constructors of other libraries, draws, golden cases."""

from . import descent, moments, scaled

FAMILIES = {
    "descent": descent,
    "scaled": scaled,
    "moments": moments,
}
