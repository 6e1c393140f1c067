"""What a run is asked to be: optimizers, schedules, clipping, aggregation, staleness, and what a push says.

Pydantic models, frozen. They read what people write (aliases, shorthand, Keras' serialised form) and write one
canonical form. The front door: nothing else of this package is imported from outside.
"""

from .base import Family, Spec
from .messages import validation_refusal
from .optimizers import OPTIMIZERS, SGD, Adam, AdamW, OptimizerSpec, Sgd
from .policies import (
    AGGREGATIONS,
    CLIPS,
    STALENESS,
    AggregationSpec,
    Async,
    ClipSpec,
    GlobalNorm,
    Inverse,
    NoStaleness,
    StalenessSpec,
    Value,
)
from .push import CURSOR_BYTES_MAX, PushFields
from .run import RunChanges, RunSpec
from .schedules import SCHEDULES, Constant, Power, ScheduleSpec, WarmupCosine

__all__ = [
    "AGGREGATIONS", "CLIPS", "CURSOR_BYTES_MAX", "OPTIMIZERS", "SCHEDULES", "SGD", "STALENESS", "Adam", "AdamW",
    "AggregationSpec", "Async", "ClipSpec", "Constant", "Family", "GlobalNorm", "Inverse", "NoStaleness",
    "OptimizerSpec", "Power", "PushFields", "RunChanges", "RunSpec", "ScheduleSpec", "Sgd", "Spec", "StalenessSpec",
    "Value", "WarmupCosine", "validation_refusal",
]  # fmt: skip
