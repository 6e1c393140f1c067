"""Schedules with a warmup of their own, and rates from a table. Legend: `schedules.py`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .base import Count, Flag, NotNegative, Positive
from .decays import BOUNDARIES_MAX
from .schedule_fields import ScheduleFields, Steps

Form = Literal["linear", "cosine", "1-sqrt"]


class Wsd(ScheduleFields):
    """Warmup, a long stretch at lr, decay: a trapezoid."""

    summary: ClassVar[str] = "Up, level for most of the run, down."
    formula: ClassVar[str] = (
        "lr (f + (1 - f) r), f = min_ratio, r = up(k / W), 1, down(j / D), 0; linear: x and 1 - x; "
        "cosine: (1 - cos(pi x)) / 2 and (1 + cos(pi x)) / 2; 1-sqrt: 1 - sqrt(1 - x) and 1 - sqrt(x)"
    )
    source: ClassVar[str] = "Hu et al. 2024 (MiniCPM, arXiv:2404.06395); transformers.get_wsd_schedule."
    use_when: ClassVar[str] = "The length of the run is not settled: the decay can begin from any point."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "numwarmupsteps": "warmup_steps", "numstablesteps": "stable_steps", "numdecaysteps": "decay_steps",
        "minlrratio": "min_ratio", "warmuptype": "warmup", "decaytype": "decay",
    }  # fmt: skip

    name: Literal["wsd"] = "wsd"
    warmup_steps: Annotated[Count, Field(description="W: updates of the way up.")]
    stable_steps: Annotated[Count, Field(description="Updates at lr.")]
    decay_steps: Annotated[Count, Field(description="D: updates of the way down.")]
    min_ratio: Annotated[NotNegative, Field(description="Share of lr at the start and at the end.")] = 0.0
    warmup: Annotated[Form, Field(description="Form of the way up.")] = "linear"
    decay: Annotated[Form, Field(description="Form of the way down.")] = "cosine"


class InverseSqrt(ScheduleFields):
    """A line up, then down with the root of the updates."""

    summary: ClassVar[str] = "A warmup, then a decay with the square root and without an end."
    formula: ClassVar[str] = "k < W: lr k / W; else lr / sqrt((k + T - W) / T), T = timescale"
    source: ClassVar[str] = "transformers.get_inverse_sqrt_schedule; T5 has T = W, as here by default."
    use_when: ClassVar[str] = "Transformers whose run has no fixed length."
    field_aliases: ClassVar[Mapping[str, str]] = {"numwarmupsteps": "warmup_steps"}

    name: Literal["inverse_sqrt"] = "inverse_sqrt"
    warmup_steps: Annotated[Count, Field(description="W: updates of the warmup.")]
    timescale: Annotated[Steps | None, Field(description="T; null: W, or 10000 without a warmup.")] = None


class Noam(ScheduleFields):
    """The rate of the first transformer, a number of its own: the optimizer's lr is not used, unless factor is "lr"."""

    summary: ClassVar[str] = "The first transformer's rate: from the width of the model and the length of the warmup."
    formula: ClassVar[str] = "factor d_model^-0.5 min(n^-0.5, n W^-1.5), n = k + 1, W = warmup_steps"
    source: ClassVar[str] = "Vaswani et al. 2017, equation 3 (arXiv:1706.03762)."
    use_when: ClassVar[str] = "To repeat that paper."
    field_aliases: ClassVar[Mapping[str, str]] = {"modelsize": "d_model", "warmup": "warmup_steps"}

    name: Literal["noam"] = "noam"
    d_model: Annotated[Steps, Field(description="Width of the model.")]
    warmup_steps: Annotated[Steps, Field(description="W: updates up to the peak.")] = 4000
    factor: Annotated[NotNegative | Literal["lr"], Field(description='A number, or "lr": the optimizer\'s.')] = 1.0


def _one_number_a_row(given: Any) -> Any:
    """`values` as they stand are points at k = 0, 1, 2, …"""
    return list(enumerate(given)) if isinstance(given, (list, tuple)) and not any(map(_is_row, given)) else given


def _is_row(item: Any) -> bool:
    return isinstance(item, (list, tuple))


class Table(ScheduleFields):
    """Rates from a table, for schedules that have no formula here. Code is not taken."""

    summary: ClassVar[str] = "Rates as a list, or points with lines between them."
    formula: ClassVar[str] = (
        "the value of the last point at or before k (none), or between two points a line or half a cosine; "
        "before the first point its value, after the last one its; times lr with relative"
    )
    source: ClassVar[str] = "optax.piecewise_interpolate_schedule; torch's LambdaLR, evaluated by its user."
    use_when: ClassVar[str] = "A schedule that nobody else has: compute it once and send the numbers."
    field_aliases: ClassVar[Mapping[str, str]] = {"values": "points", "interpolatetype": "interpolate"}

    name: Literal["table"] = "table"
    points: Annotated[
        tuple[tuple[Count, NotNegative], ...],
        Field(
            min_length=1,
            max_length=BOUNDARIES_MAX,
            description="[k, rate] with ascending k; or rates alone, for k = 0, 1, 2, …",
        ),
        BeforeValidator(_one_number_a_row),
    ]
    interpolate: Annotated[Literal["none", "linear", "cosine"], Field(description="What is between two points.")] = (
        "none"
    )
    relative: Annotated[Flag, Field(description="The values are factors of lr, not rates.")] = False

    @model_validator(mode="after")
    def _points_ascend(self) -> Self:
        steps = [k for k, _ in self.points]
        if any(left >= right for left, right in pairwise(steps)):
            raise ValueError("expected points with ascending k")
        return self


class Swa(ScheduleFields):
    """From the optimizer's lr to a constant one, for the weights that are averaged."""

    summary: ClassVar[str] = "The optimizer's lr at first, then a short way to a constant rate that holds."
    formula: ClassVar[str] = (
        "lr until k = swa_start, then a swa_lr + (1 - a) lr, x = min(1, (k - swa_start) / anneal_steps), "
        "a = x (linear) or (1 - cos(pi x)) / 2 (cos)"
    )
    source: ClassVar[str] = "Izmailov et al. 2018 (arXiv:1803.05407); torch.optim.swa_utils.SWALR."
    use_when: ClassVar[str] = "With average: swa. As the last part of sequential, after another schedule."
    field_aliases: ClassVar[Mapping[str, str]] = {"annealepochs": "anneal_steps", "start": "swa_start"}

    name: Literal["swa"] = "swa"
    swa_lr: Annotated[Positive, Field(description="The rate that holds.")]
    swa_start: Annotated[Count, Field(description="Updates at lr before the way begins.")] = 0
    anneal_steps: Annotated[Count, Field(description="Updates of the way.")] = 10
    anneal_strategy: Annotated[Literal["cos", "linear"], Field(description="Form of the way.")] = "cos"
