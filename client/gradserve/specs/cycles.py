"""Schedules that come round again. Legend: `schedules.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .base import Flag, Fraction, NotNegative, Positive, Real
from .schedule_fields import ScheduleFields, Steps

T_MUL_LEAST = 1.01  # between this and 1 a late update would be in the millionth cycle


class CosineRestarts(ScheduleFields):
    """Half a cosine down, then again from above, each time longer."""

    summary: ClassVar[str] = "Cosines down, one after the other, each t_mul times as long as the one before."
    formula: ClassVar[str] = (
        "end + (lr - end) m_mul^i (1 + cos(pi j / T_i)) / 2, T_i = first_steps t_mul^i, "
        "i the number of the cycle from 0, j the updates since it began"
    )
    source: ClassVar[str] = (
        "Loshchilov & Hutter 2017 (arXiv:1608.03983); torch's CosineAnnealingWarmRestarts, Keras' CosineDecayRestarts "
        "(t_mul 2 there)."
    )
    use_when: ClassVar[str] = "Snapshots of several minima, or a run that may be stopped at the end of any cycle."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "t0": "first_steps", "firstdecaysteps": "first_steps", "tmult": "t_mul", "etamin": "end", "endvalue": "end",
        "minlr": "end", "alpha": "end_factor",
    }  # fmt: skip

    name: Literal["cosine_restarts"] = "cosine_restarts"
    first_steps: Annotated[Steps, Field(description="T_0: updates of the first cycle.")]
    t_mul: Annotated[Real, Field(ge=1, description="How much longer each cycle is: 1, or 1.01 and more.")] = 1.0
    m_mul: Annotated[NotNegative, Field(description="How much higher each cycle rises above end.")] = 1.0
    end: Annotated[NotNegative, Field(description="Learning rate at the end of each cycle.")] = 0.0
    end_factor: Annotated[NotNegative | None, Field(description="The same as a share of lr: Keras' alpha.")] = None

    @model_validator(mode="after")
    def _cycles_can_be_counted(self) -> Self:
        if 1 < self.t_mul < T_MUL_LEAST:
            raise ValueError(f"expected t_mul 1 or ≥ {T_MUL_LEAST}, came {self.t_mul!r}")
        if self.end_factor is not None and self.end != 0:
            raise ValueError("expected end or end_factor, came both: send one")
        return self


class Cyclic(ScheduleFields):
    """A triangle between two rates, over and over; the momentum goes the other way."""

    summary: ClassVar[str] = "Up and down in lines between two rates, over and over."
    formula: ClassVar[str] = (
        "base + (max_lr - base) h s; h rises from 0 to 1 in step_size_up updates and falls in step_size_down; "
        "s = 1 (triangular), 1 / 2^cycle (triangular2), gamma^k (exp_range); momentum max - (max - base) h s"
    )
    source: ClassVar[str] = "Smith 2017 (arXiv:1506.01186); torch.optim.lr_scheduler.CyclicLR."
    use_when: ClassVar[str] = "A good range of rates is known and a single good rate is not."
    field_aliases: ClassVar[Mapping[str, str]] = {"up": "step_size_up", "down": "step_size_down"}

    name: Literal["cyclic"] = "cyclic"
    base_lr: Annotated[NotNegative | None, Field(description="The lower rate; null: the optimizer's lr.")] = None
    max_lr: Annotated[NotNegative, Field(description="The upper rate.")]
    step_size_up: Annotated[Steps, Field(description="Updates of the way up.")] = 2000
    step_size_down: Annotated[Steps | None, Field(description="Updates of the way down; null: as many as up.")] = None
    mode: Annotated[
        Literal["triangular", "triangular2", "exp_range"], Field(description="How the peaks get lower.")
    ] = "triangular"
    gamma: Annotated[Positive, Field(le=1, description="Factor of the height at each update (exp_range).")] = 1.0
    cycle_momentum: Annotated[Flag, Field(description="Move momentum or beta1 too, where the optimizer has one.")] = (
        True
    )
    base_momentum: Annotated[Fraction, Field(description="Momentum at the upper rate.")] = 0.8
    max_momentum: Annotated[Fraction, Field(description="Momentum at the lower rate.")] = 0.9
