"""Schedules that fall by a formula or by steps. Legend: `schedules.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .base import Count, Flag, NotNegative, Positive, Real
from .schedule_fields import ScheduleFields, Steps

Staircase = Annotated[Flag, Field(description="Fall in steps: the exponent is rounded down.")]
BOUNDARIES_MAX = 1_000  # they are in the head of every snapshot

_RATE_ALIASES: Mapping[str, str] = {
    "gamma": "decay_rate", "transitionsteps": "decay_steps", "transitionbegin": "begin", "endvalue": "end",
    "endlearningrate": "end", "minlr": "end",
}  # fmt: skip


class Power(ScheduleFields):
    """lr / (1 + k/s)^c: with c = 1, the inverse-time decay."""

    summary: ClassVar[str] = "A slow decay without an end."
    formula: ClassVar[str] = "lr / (1 + k / s)^c"
    source: ClassVar[str] = "Senior et al. 2013; c = 1 is Keras' InverseTimeDecay."
    use_when: ClassVar[str] = "Runs whose length is not known."

    name: Literal["power"] = "power"
    s: Annotated[Positive, Field(description="Updates after which lr has fallen to 1 / 2^c.")]
    c: Annotated[Real, Field(ge=0, description="Exponent of the decay.")] = 1.0


class InverseTime(ScheduleFields):
    """lr / (1 + decay_rate k / decay_steps). What Keras 2 did with an optimizer's `decay`."""

    summary: ClassVar[str] = "Half the rate after decay_steps / decay_rate updates, a third after twice as many."
    formula: ClassVar[str] = "lr / (1 + decay_rate k / decay_steps), with floor(k / decay_steps) if staircase"
    source: ClassVar[str] = "keras.optimizers.schedules.InverseTimeDecay; Keras 2's decay (decay_steps 1)."
    use_when: ClassVar[str] = "Programs written for Keras 2, and runs whose length is not known."
    field_aliases: ClassVar[Mapping[str, str]] = {"decay": "decay_rate"}

    name: Literal["inverse_time"] = "inverse_time"
    decay_rate: Annotated[NotNegative, Field(description="How much the divisor grows in decay_steps updates.")]
    decay_steps: Annotated[Positive, Field(description="Updates in which the divisor grows by decay_rate.")] = 1.0
    staircase: Staircase = False


class Exponential(ScheduleFields):
    """lr decay_rate^(k / decay_steps): the rate falls by the same factor in every decay_steps updates."""

    summary: ClassVar[str] = "The same factor in every decay_steps updates."
    formula: ClassVar[str] = (
        "k <= begin: lr; else lr decay_rate^((k - begin) / decay_steps), the exponent rounded down if staircase, "
        "never below end (above it, for a rate that grows)"
    )
    source: ClassVar[str] = (
        "Keras' ExponentialDecay, optax.exponential_decay; with decay_steps 1 torch's ExponentialLR; "
        "Géron, ch. 11: decay_rate 0.1."
    )
    use_when: ClassVar[str] = "A fast decay; with a decay_rate above 1 and an end, a search for the learning rate."
    field_aliases: ClassVar[Mapping[str, str]] = {**_RATE_ALIASES, "s": "decay_steps"}

    name: Literal["exponential"] = "exponential"
    decay_rate: Annotated[Positive, Field(description="Factor in decay_steps updates.")]
    decay_steps: Annotated[Positive, Field(description="Updates in which lr falls by decay_rate.")] = 1.0
    staircase: Staircase = False
    begin: Annotated[Count, Field(description="Updates at the full rate before the decay begins.")] = 0
    end: Annotated[NotNegative | None, Field(description="The rate stops here; null: it does not stop.")] = None

    @model_validator(mode="after")
    def _does_not_grow_for_ever(self) -> Self:
        if self.decay_rate > 1 and self.end is None:
            raise ValueError(f"expected end with decay_rate > 1, came {self.decay_rate:g} alone: the rate has no bound")
        return self


class Step(ScheduleFields):
    """lr gamma^floor(k / step_size)."""

    summary: ClassVar[str] = "A factor gamma after every step_size updates."
    formula: ClassVar[str] = "lr gamma^floor(k / step_size)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.StepLR; a staircase of Keras and optax."
    use_when: ClassVar[str] = "Convolutional networks trained for a fixed number of epochs."
    field_aliases: ClassVar[Mapping[str, str]] = {"decayrate": "gamma", "decaysteps": "step_size"}

    name: Literal["step"] = "step"
    step_size: Annotated[Steps, Field(description="Updates at each rate.")]
    gamma: Annotated[Real, Field(ge=0, le=1, description="Factor between one rate and the next.")] = 0.1


class MultiStep(ScheduleFields):
    """lr gamma^(number of milestones <= k). A milestone that is there twice counts twice."""

    summary: ClassVar[str] = "A factor gamma at each milestone."
    formula: ClassVar[str] = "lr gamma^(number of milestones <= k)"
    source: ClassVar[str] = "torch.optim.lr_scheduler.MultiStepLR; optax.piecewise_constant_schedule."
    use_when: ClassVar[str] = "Convolutional networks with a known recipe: a tenth after 30, 60 and 80 epochs."
    field_aliases: ClassVar[Mapping[str, str]] = {"decayrate": "gamma", "boundaries": "milestones"}

    name: Literal["multistep"] = "multistep"
    milestones: Annotated[tuple[Count, ...], Field(max_length=BOUNDARIES_MAX, description="Values of k, in any order.")]
    gamma: Annotated[Real, Field(ge=0, le=1, description="Factor at each milestone.")] = 0.1


class ConstantFactor(ScheduleFields):
    """lr times a factor at first, then lr."""

    summary: ClassVar[str] = "A share of the rate for the first updates, then all of it."
    formula: ClassVar[str] = "k < N: lr factor; else lr, N = total_steps"
    source: ClassVar[str] = "torch.optim.lr_scheduler.ConstantLR."
    use_when: ClassVar[str] = "The plainest warmup."
    field_aliases: ClassVar[Mapping[str, str]] = {"totaliters": "total_steps"}

    name: Literal["constant_factor"] = "constant_factor"
    factor: Annotated[NotNegative, Field(description="Factor of lr at first.")] = 1 / 3
    total_steps: Annotated[Steps, Field(description="N: updates with the factor.")] = 5


class PiecewiseConstant(ScheduleFields):
    """One rate between two boundaries. The values are rates of their own: the optimizer's lr is not used."""

    summary: ClassVar[str] = "A list of rates, and the updates at which one takes the other's place."
    formula: ClassVar[str] = "values[number of boundaries <= k], or < k with right_closed; the optimizer's lr is unused"
    source: ClassVar[str] = "keras.optimizers.schedules.PiecewiseConstantDecay with right_closed."
    use_when: ClassVar[str] = "The good rates are known, from a paper or from an earlier run."
    field_aliases: ClassVar[Mapping[str, str]] = {"milestones": "boundaries"}

    name: Literal["piecewise_constant"] = "piecewise_constant"
    boundaries: Annotated[tuple[Steps, ...], Field(max_length=BOUNDARIES_MAX, description="Ascending values of k.")]
    values: Annotated[
        tuple[NotNegative, ...],
        Field(max_length=BOUNDARIES_MAX + 1, description="Rates before, between and after the boundaries."),
    ]
    right_closed: Annotated[
        Flag, Field(description="At k = boundary: the old value (Keras); false: already the new one (torch, optax).")
    ] = False

    @model_validator(mode="after")
    def _one_more_value_than_boundaries(self) -> Self:
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"expected one value more than boundaries, came {len(self.values)} and {len(self.boundaries)}"
            )
        if any(left >= right for left, right in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ValueError("expected boundaries that ascend")
        return self


class Polynomial(ScheduleFields):
    """From lr to end along a power of the way that is left."""

    summary: ClassVar[str] = "A straight line down (power 1), or a curve that is steeper at the start."
    formula: ClassVar[str] = (
        "end + (lr - end) (1 - min(j, N) / N)^power, j = max(k - begin, 0), N = total_steps; "
        "cycle: N ceil(j / N) for N, so that it starts again each time lower"
    )
    source: ClassVar[str] = "torch's PolynomialLR, Keras' PolynomialDecay (end 1e-4 there), optax.polynomial_schedule."
    use_when: ClassVar[str] = "Segmentation networks (power 0.9), fine-tuning (power 1); the length is known."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **_RATE_ALIASES, "decaysteps": "total_steps", "totaliters": "total_steps", "transitionsteps": "total_steps",
        "etamin": "end",
    }  # fmt: skip

    name: Literal["polynomial"] = "polynomial"
    total_steps: Annotated[Steps, Field(description="N: updates of the way from lr to end.")]
    end: Annotated[NotNegative, Field(description="Learning rate at the end and after it.")] = 0.0
    power: Annotated[Positive, Field(description="1 is a straight line.")] = 1.0
    cycle: Annotated[Flag, Field(description="Start again after the end instead of holding it.")] = False
    begin: Annotated[Count, Field(description="Updates at the full rate before the decay begins.")] = 0


class Linear(ScheduleFields):
    """A straight line between two factors of lr: a warmup, or a decay to zero."""

    summary: ClassVar[str] = "A straight line between two factors of lr, then the second one."
    formula: ClassVar[str] = "lr (start_factor + (end_factor - start_factor) min(k, N) / N), N = total_steps"
    source: ClassVar[str] = "torch.optim.lr_scheduler.LinearLR; start_factor 0 is allowed here."
    use_when: ClassVar[str] = "A warmup alone; end_factor 0 for a decay to nothing."
    field_aliases: ClassVar[Mapping[str, str]] = {"totaliters": "total_steps"}

    name: Literal["linear"] = "linear"
    start_factor: Annotated[NotNegative, Field(description="Factor of lr at k = 0.")] = 1 / 3
    end_factor: Annotated[NotNegative, Field(description="Factor of lr at k = N and after it.")] = 1.0
    total_steps: Annotated[Steps, Field(description="N: updates of the way between the factors.")] = 5
