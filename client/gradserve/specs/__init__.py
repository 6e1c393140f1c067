"""What a run is asked to be: optimizers, schedules, clipping, aggregation, staleness, and what a push says.

Pydantic models, frozen. They read what people write (aliases, shorthand, Keras' serialised form) and write one
canonical form. The front door: nothing else of this package is imported from outside.
"""

from .accumulation import SAMPLES_MIN, Accumulate, NonFinite
from .adaptation import DAdaptAdam, DAdaptSgd, Prodigy
from .anchored import Asgd, Cocob, Ftrl, Madgrad
from .averages import AVERAGES, AverageSpec, Ema, Lookahead, SwaAverage
from .base import Family, ReportName, Spec
from .clips import (
    CLIPS,
    Adaptive,
    BlockRms,
    Centralize,
    ClipSpec,
    GlobalNorm,
    Noise,
    Normalize,
    Quantile,
    TensorNorm,
    Value,
)
from .cosines import Cosine, OneCycle, WarmupCosine
from .cycles import CosineRestarts, Cyclic
from .decays import (
    ConstantFactor,
    Exponential,
    InverseTime,
    Linear,
    MultiStep,
    PiecewiseConstant,
    Polynomial,
    Power,
    Step,
)
from .descent import NoisySgd, Sgd
from .distances import Dog, Dowg
from .factored import Adafactor
from .groups import DEFAULT_GROUP, GROUPS_MAX, ParameterGroup, groups_of, idle_patterns
from .layerwise import Fromage, Lamb, Lars, Novograd
from .messages import expected_of, validation_refusal
from .mixtures import Adan, AdEMAMix, OptimisticAdam, OptimisticGradientDescent, SimplifiedAdEMAMix
from .moments import Adam, Adamax, AdamW, Nadam
from .muon import Muon
from .optimizer_fields import OptimizerFields
from .optimizers import OPTIMIZERS, SGD, OptimizerSpec
from .plateau import ReduceOnPlateau
from .policies import (
    AGGREGATIONS,
    STALENESS,
    AggregationSpec,
    Async,
    DivideStaleness,
    ExponentialStaleness,
    HingeStaleness,
    Inverse,
    NoStaleness,
    PolynomialStaleness,
    StalenessSpec,
)
from .preconditioned import Shampoo, Soap
from .push import CURSOR_BYTES_MAX, PushFields, Rate
from .ramps import InverseSqrt, Noam, Swa, Table, Wsd
from .run import NAME_PATTERN, Branch, RunChanges, RunSpec
from .scaled import Adadelta, Adagrad, RmsProp
from .schedule_free import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSgd
from .schedules import SCHEDULES, Chained, ClientOwned, Constant, ScheduleSpec, Sequential, Warmup
from .shaped import Sm3
from .signs import Lion, Rprop, SignSgd, Signum
from .sparse import RowwiseAdagrad, RowwiseAdam, SparseAdam
from .stepsizes import Momo, MomoAdam, PolyakSgd
from .variances import AcProp, AdaBelief, Adopt, RAdam, Yogi

__all__ = [
    "AGGREGATIONS", "AVERAGES", "CLIPS", "CURSOR_BYTES_MAX", "DEFAULT_GROUP", "GROUPS_MAX", "NAME_PATTERN",
    "OPTIMIZERS", "SAMPLES_MIN", "SCHEDULES", "SGD", "STALENESS", "AcProp", "Accumulate", "AdEMAMix", "AdaBelief",
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Adan", "Adaptive", "Adopt", "AggregationSpec",
    "Asgd", "Async", "AverageSpec", "BlockRms", "Branch", "Centralize", "Chained", "ClientOwned", "ClipSpec", "Cocob",
    "Constant", "ConstantFactor", "Cosine", "CosineRestarts", "Cyclic", "DAdaptAdam", "DAdaptSgd", "DivideStaleness",
    "Dog", "Dowg", "Ema", "Exponential", "ExponentialStaleness", "Family", "Fromage", "Ftrl", "GlobalNorm",
    "HingeStaleness", "Inverse", "InverseSqrt", "InverseTime", "Lamb", "Lars", "Linear", "Lion", "Lookahead", "Madgrad",
    "Momo", "MomoAdam", "MultiStep", "Muon", "Nadam", "NoStaleness", "Noam", "Noise", "NoisySgd", "NonFinite",
    "Normalize", "Novograd", "OneCycle", "OptimisticAdam", "OptimisticGradientDescent", "OptimizerFields",
    "OptimizerSpec", "ParameterGroup", "PiecewiseConstant", "PolyakSgd", "Polynomial", "PolynomialStaleness", "Power",
    "Prodigy", "PushFields", "Quantile", "RAdam", "Rate", "ReduceOnPlateau", "ReportName", "RmsProp", "RowwiseAdagrad",
    "RowwiseAdam", "Rprop", "RunChanges", "RunSpec", "ScheduleFreeAdamW", "ScheduleFreeRAdam", "ScheduleFreeSgd",
    "ScheduleSpec", "Sequential", "Sgd", "Shampoo", "SignSgd", "Signum", "SimplifiedAdEMAMix", "Sm3", "Soap",
    "SparseAdam", "Spec", "StalenessSpec", "Step", "Swa", "SwaAverage", "Table", "TensorNorm", "Value", "Warmup",
    "WarmupCosine", "Wsd", "Yogi", "expected_of", "groups_of", "idle_patterns", "validation_refusal",
]  # fmt: skip
