"""A learning rate that falls when a metric stops improving. Legend: `schedules.py`.

The arithmetic is `core.plateau`; what it remembers between reports is part of a run's control state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from .base import Count, NotNegative, Real, ReportName
from .schedule_fields import ScheduleFields, Steps


class ReduceOnPlateau(ScheduleFields):
    """Multiply the rate by `factor` when reports stop improving. Reads reports, not k."""

    summary: ClassVar[str] = "A smaller rate whenever the validation loss stops falling."
    formula: ClassVar[str] = (
        "better: value < best (1 - threshold) (rel) or best - threshold (abs), mirrored for mode max; after more than "
        "patience reports that are not better (torch), or patience of them (keras, optax), lr *= factor, at least "
        "min_lr, and cooldown reports are not counted"
    )
    source: ClassVar[str] = (
        "torch's and Keras' ReduceLROnPlateau, optax.contrib.reduce_on_plateau; Géron, ch. 11: performance scheduling."
    )
    use_when: ClassVar[str] = "A validation loss is measured, and nobody knows how long the run will be."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "mindelta": "threshold", "rtol": "threshold", "atol": "threshold_abs", "accumulationsize": "every",
        "epsilon": "eps",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {}, "keras": {"threshold_mode": "abs", "eps": 0.0}, "optax": {"eps": 0.0},
    }  # fmt: skip

    name: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    style: Annotated[
        Literal["torch", "keras", "optax"],
        Field(description="Whose order of counting; keras has threshold_mode abs and eps 0, optax eps 0."),
    ] = "torch"
    monitor: Annotated[ReportName, Field(description="The reported value that is followed.")] = "loss"
    mode: Annotated[Literal["min", "max"], Field(description="Whether smaller or larger is better.")] = "min"
    factor: Annotated[Real, Field(gt=0, lt=1, description="What the rate is multiplied by.")] = 0.1
    patience: Annotated[Count, Field(description="Reports without improvement that are borne with.")] = 10
    threshold: Annotated[NotNegative, Field(description="What counts as an improvement.")] = 1e-4
    threshold_mode: Annotated[
        Literal["rel", "abs"], Field(description="Whether the threshold is a share of the best value, or absolute.")
    ] = "rel"
    threshold_abs: Annotated[
        NotNegative, Field(description="An absolute threshold beside the first (optax' atol).")
    ] = 0.0
    cooldown: Annotated[Count, Field(description="Reports after a reduction that do not count.")] = 0
    min_lr: Annotated[NotNegative, Field(description="The rate is not reduced below this.")] = 0.0
    eps: Annotated[NotNegative, Field(description="Reductions not larger than this are left out (torch).")] = 1e-8
    every: Annotated[Steps, Field(description="Reports that are averaged into one.")] = 1

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Spec.canonical_fields`, with the defaults of the style."""
        fields = super().canonical_fields(given)
        style = fields.get("style")
        return {**(cls.presets.get(style, {}) if isinstance(style, str) else {}), **fields}
