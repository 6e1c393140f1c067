"""Rules that need no schedule: they train at an average of their weights. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Count, Flag, Real
from .optimizer_fields import BETA_ALIASES, Beta2, Decay, Eps, Lr, Maximize, OptimizerFields

BetweenZeroAndOne = Annotated[Real, Field(gt=0, lt=1)]
Warmup = Annotated[Count, Field(description="Updates in which lr rises from 0 to itself.")]
Power = Annotated[Real, Field(ge=0, le=10)]
OfUpdates = Annotated[Power, Field(description="Weights of later updates in the average: t^r.")]
OfRates = Annotated[Power, Field(description="Weights of updates in the average by the largest lr so far: lr^power.")]
Interpolation = Annotated[
    BetweenZeroAndOne, Field(description="Share of the average in the weights at which gradients are taken.")
]
InnerDecayMode = Annotated[
    Literal["in_update", "l2"], Field(description="in_update: wd·w beside the divided gradient. l2: g += wd·w.")
]
_POINTS = (
    "c = q / sum of all q, q = t^r (largest rate so far)^weight_lr_power; w <- w + c (z - w) - rate (1 - {beta} "
    "(1 - c)) d; z -= rate d. z starts at w. To evaluate: w + (1 - 1/{beta}) (z - w)."
)
_SOURCE = "Package schedulefree, {}; Defazio et al. 2024 (arXiv:2405.15682)."


class ScheduleFreeSgd(OptimizerFields):
    """SGD that needs no schedule. Matches schedulefree.SGDScheduleFree in train mode.

    What it says is best to evaluate at is the average of its weights, not the weights that it serves for training.
    """

    summary: ClassVar[str] = "SGD whose average is trained: as good as a schedule, and may stop at any time."
    formula: ClassVar[str] = "rate = lr min(1, t / warmup_steps); d = g; " + _POINTS.format(beta="momentum")
    source: ClassVar[str] = _SOURCE.format("SGDScheduleFree")
    use_when: ClassVar[str] = "Where SGD with a schedule works and the end of the run is not known; lr is larger here."
    field_aliases: ClassVar[Mapping[str, str]] = {**OptimizerFields.field_aliases, "beta": "momentum"}
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sgdschedulefree": {}}

    name: Literal["schedule_free_sgd"] = "schedule_free_sgd"
    lr: Lr = 1.0
    momentum: Interpolation = 0.9
    warmup_steps: Warmup = 0
    r: OfUpdates = 0.0
    weight_lr_power: OfRates = 2.0
    weight_decay: Decay = 0.0
    weight_decay_mode: Annotated[Literal["l2"], Field(description="l2: g += wd·w before the rule.")] = "l2"
    maximize: Maximize = False


class ScheduleFreeAdamW(OptimizerFields):
    """AdamW that needs no schedule. Matches schedulefree.AdamWScheduleFree in train mode.

    What it says is best to evaluate at is the average of its weights, not the weights that it serves for training.
    """

    summary: ClassVar[str] = "AdamW whose average is trained: no schedule, and an end at any time."
    formula: ClassVar[str] = (
        "rate = lr min(1, t / warmup_steps); v as Adam; d = g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay w; "
        + _POINTS.format(beta="beta1")
    )
    source: ClassVar[str] = _SOURCE.format("AdamWScheduleFree")
    use_when: ClassVar[str] = "In the place of AdamW with a cosine, when nobody knows how long the run will be."
    field_aliases: ClassVar[Mapping[str, str]] = BETA_ALIASES
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adamwschedulefree": {}}

    name: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    lr: Lr = 2.5e-3
    beta1: Interpolation = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    warmup_steps: Warmup = 0
    r: OfUpdates = 0.0
    weight_lr_power: OfRates = 2.0
    weight_decay: Decay = 0.0
    weight_decay_mode: InnerDecayMode = "in_update"
    maximize: Maximize = False


class ScheduleFreeRAdam(OptimizerFields):
    """RAdam that needs neither a schedule nor a warmup. Matches schedulefree.RAdamScheduleFree in train mode.

    What it says is best to evaluate at is the average of its weights, not the weights that it serves for training.
    """

    summary: ClassVar[str] = "RAdam whose average is trained: nothing to schedule, nothing to warm up."
    formula: ClassVar[str] = (
        "p and r as RAdam; p > 4: rate = lr r, d = g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay w; else rate = 0,"
        " or lr with d = g + weight_decay w when silent_sgd_phase is false; " + _POINTS.format(beta="beta1")
    )
    source: ClassVar[str] = _SOURCE.format("RAdamScheduleFree")
    use_when: ClassVar[str] = "As schedule_free_adamw, without choosing a warmup."
    field_aliases: ClassVar[Mapping[str, str]] = BETA_ALIASES
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"radamschedulefree": {}}

    name: Literal["schedule_free_radam"] = "schedule_free_radam"
    lr: Lr = 2.5e-3
    beta1: Interpolation = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    silent_sgd_phase: Annotated[Flag, Field(description="Rest until the second moment can be trusted.")] = True
    r: OfUpdates = 0.0
    weight_lr_power: OfRates = 2.0
    weight_decay: Decay = 0.0
    weight_decay_mode: InnerDecayMode = "in_update"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (ScheduleFreeSgd, ScheduleFreeAdamW, ScheduleFreeRAdam)
