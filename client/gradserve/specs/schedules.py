"""The schedules: pure functions of k, the number of updates already applied (the first update sees k = 0)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .base import Count, Family, NotNegative, Positive, Real, Spec, folded


class ScheduleFields(Spec):
    """What every schedule reads: `per`, whose only value so far is the default, "update"."""

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Spec.canonical_fields`, without `per`."""
        rest = dict(given)
        for key in [key for key in rest if isinstance(key, str) and folded(key) == "per"]:
            if rest.pop(key) != "update":
                raise ValueError("expected per 'update': this version counts updates only")
        return super().canonical_fields(rest)


class Constant(ScheduleFields):
    """The optimizer's lr at every update."""

    summary: ClassVar[str] = "The same learning rate all along."
    formula: ClassVar[str] = "lr"
    source: ClassVar[str] = ""
    use_when: ClassVar[str] = "Short runs, and while looking for the learning rate."

    name: Literal["constant"] = "constant"


class WarmupCosine(ScheduleFields):
    """A linear warmup to the optimizer's lr, then half a cosine down to `end`, then `end`."""

    summary: ClassVar[str] = "Linear warmup, then half a cosine down."
    formula: ClassVar[str] = (
        "k < W: start + (lr - start) (k + warmup_offset) / W; "
        "else end + (lr - end) (1 + cos(pi min(k - W, T - W) / (T - W))) / 2, W = warmup_steps, T = total_steps"
    )
    source: ClassVar[str] = "Loshchilov & Hutter 2017 (arXiv:1608.03983); optax.warmup_cosine_decay_schedule."
    use_when: ClassVar[str] = "Transformers, and any run whose length is known."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "numwarmupsteps": "warmup_steps", "numtrainingsteps": "total_steps", "tmax": "total_steps", "etamin": "end",
        "endvalue": "end", "minlr": "end", "endlearningrate": "end", "initvalue": "start", "firststep": "warmup_offset",
    }  # fmt: skip

    name: Literal["warmup_cosine"] = "warmup_cosine"
    warmup_steps: Annotated[Count, Field(description="W: updates of the warmup; 0 is none.")]
    total_steps: Annotated[Count, Field(description="T: updates of the whole schedule, the warmup included.")]
    start: Annotated[NotNegative, Field(description="Learning rate that the warmup starts from.")] = 0.0
    end: Annotated[NotNegative, Field(description="Learning rate at the end and after it.")] = 0.0
    warmup_offset: Annotated[
        int,
        Field(strict=True, ge=0, le=1, description="1: the first update already takes the first step up from start."),
    ] = 0

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Spec.canonical_fields`; decay_steps is refused, for it means two things."""
        if any(isinstance(key, str) and folded(key) == "decaysteps" for key in given):
            raise ValueError(
                "expected total_steps, came decay_steps, which counts the warmup in one library and not in another: "
                "send total_steps, the warmup included"
            )
        return super().canonical_fields(given)

    @model_validator(mode="after")
    def _something_to_decay(self) -> Self:
        if self.total_steps <= self.warmup_steps:
            raise ValueError(
                f"expected total_steps > warmup_steps (the total includes the warmup), "
                f"came {self.total_steps} and {self.warmup_steps}"
            )
        return self


class Power(ScheduleFields):
    """lr / (1 + k/s)^c: with c = 1, the inverse-time decay."""

    summary: ClassVar[str] = "A slow decay without an end."
    formula: ClassVar[str] = "lr / (1 + k / s)^c"
    source: ClassVar[str] = "Senior et al. 2013; c = 1 is Keras' InverseTimeDecay."
    use_when: ClassVar[str] = "Runs whose length is not known."

    name: Literal["power"] = "power"
    s: Annotated[Positive, Field(description="Updates after which lr has fallen to 1 / 2^c.")]
    c: Annotated[Real, Field(ge=0, description="Exponent of the decay.")] = 1.0


SCHEDULES = Family(
    kind="schedule",
    built={"constant": Constant, "warmup_cosine": WarmupCosine, "power": Power},
    aliases={"cosinewithwarmup": ("warmup_cosine", {})},
    planned=(
        "constant_factor", "step", "multistep", "piecewise_constant", "exponential", "inverse_time", "polynomial",
        "linear", "warmup", "cosine", "cosine_restarts", "one_cycle", "cyclic", "wsd", "inverse_sqrt", "noam",
        "reduce_on_plateau", "sequential", "chained", "table", "swa", "client",
    ),
    planned_aliases={
        "constantlr": "constant_factor", "steplr": "step", "multisteplr": "multistep", "exponentiallr": "exponential",
        "piecewiseconstantdecay": "piecewise_constant", "exponentialdecay": "exponential",
        "inversetimedecay": "inverse_time", "timebased": "inverse_time", "polynomiallr": "polynomial",
        "polynomialdecay": "polynomial", "linearlr": "linear", "cosineannealinglr": "cosine", "cosinedecay": "cosine",
        "cosineannealingwarmrestarts": "cosine_restarts", "sgdr": "cosine_restarts",
        "cosinedecayrestarts": "cosine_restarts", "onecyclelr": "one_cycle", "1cycle": "one_cycle",
        "cycliclr": "cyclic", "triangular": "cyclic", "trapezoid": "wsd", "warmupstabledecay": "wsd",
        "rsqrt": "inverse_sqrt", "transformer": "noam", "reducelronplateau": "reduce_on_plateau",
        "plateau": "reduce_on_plateau", "performance": "reduce_on_plateau", "sequentiallr": "sequential",
        "join": "sequential", "chainedscheduler": "chained", "swalr": "swa", "lambdalr": "table",
    },
)  # fmt: skip

ScheduleSpec = Annotated[
    Annotated[Constant | WarmupCosine | Power, Field(discriminator="name")],
    BeforeValidator(SCHEDULES.read),
]
