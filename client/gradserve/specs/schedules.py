"""The schedules and their names: pure functions of k, the number of updates already applied (the first update sees
k = 0), and of lr, the optimizer's own rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from .base import Count, Family, NotNegative, folded
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
from .plateau import ReduceOnPlateau
from .ramps import InverseSqrt, Noam, Swa, Table, Wsd
from .schedule_fields import ScheduleFields

PARTS_MAX: Final = 64  # of a composed schedule, the parts of its parts included: each is computed at every update
DEPTH_MAX: Final = 8

_WITHIN: Final = (
    "parts",
    "then",
    "schedule",
    "inner",
    "schedules",
    "schedulers",
)  # where a composed schedule has parts


class Constant(ScheduleFields):
    """The optimizer's lr at every update."""

    summary: ClassVar[str] = "The same learning rate all along."
    formula: ClassVar[str] = "lr"
    source: ClassVar[str] = ""
    use_when: ClassVar[str] = "Short runs, and while looking for the learning rate."

    name: Literal["constant"] = "constant"


class ClientOwned(ScheduleFields):
    """Every push brings the rate of its update. A push without one has the optimizer's lr."""

    summary: ClassVar[str] = "The workers own the schedule: each push names its lr."
    formula: ClassVar[str] = "the push's lr"
    source: ClassVar[str] = "For programs that have a scheduler of their own, torch's for instance."
    use_when: ClassVar[str] = "One worker, or workers that compute the same rate."

    name: Literal["client"] = "client"


def _read_part(given: Any) -> Any:
    """A part is a schedule that k alone decides, and counts what the whole counts."""
    found = SCHEDULES.read(given)
    name = found["name"] if isinstance(found, Mapping) else found.name
    if name in ("client", "reduce_on_plateau"):
        raise ValueError(f"expected a schedule that k alone decides, came {name!r}: it cannot be a part of another")
    if isinstance(found, Mapping) and any(isinstance(key, str) and folded(key) == "per" for key in found):
        raise ValueError("expected no per, a part counts what the whole schedule counts: send per there")
    return found


_PART_SCHEMA = {
    "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}},
    "description": "A schedule of this catalogue, with its fields.",
}  # fmt: skip
Part = Annotated["_AnyPart", BeforeValidator(_read_part), WithJsonSchema(_PART_SCHEMA)]


class _Composed(ScheduleFields):
    """A schedule that has others as parts."""

    @model_validator(mode="before")
    @classmethod
    def _not_too_many(cls, given: Any) -> Any:
        """Looked at before anything is read: a nest of parts may be as deep as a body of JSON."""
        level, count, depth = [given], 0, 0
        while level:
            count, depth = count + len(level), depth + 1
            if count > PARTS_MAX or depth > DEPTH_MAX:
                raise ValueError(f"expected at most {PARTS_MAX} parts, {DEPTH_MAX} levels deep")
            level = [part for whole in level for part in _parts_of(whole)]
        return given


def _parts_of(given: Any) -> Iterator[Any]:
    if not isinstance(given, Mapping):
        return
    for key, value in given.items():
        if isinstance(key, str) and folded(key) in _WITHIN:
            yield from value if isinstance(value, (list, tuple)) else (value,)


class Warmup(_Composed):
    """A line up to the rate at which any other schedule begins."""

    summary: ClassVar[str] = "A linear warmup before any other schedule."
    formula: ClassVar[str] = "k < W: start + (peak - start) (k + warmup_offset) / W; else then(k - W), W = warmup_steps"
    source: ClassVar[str] = "Goyal et al. 2017 (arXiv:1706.02677)."
    use_when: ClassVar[str] = "Adaptive optimizers and large batches, whose first updates are the wildest."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "numwarmupsteps": "warmup_steps", "initvalue": "start", "firststep": "warmup_offset", "schedule": "then",
        "inner": "then",
    }  # fmt: skip

    name: Literal["warmup"] = "warmup"
    warmup_steps: Annotated[Count, Field(description="W: updates of the warmup; 0 is none.")]
    start: Annotated[NotNegative, Field(description="Learning rate that the warmup starts from.")] = 0.0
    peak: Annotated[NotNegative | None, Field(description="Rate that it ends at; null: what then begins with.")] = None
    warmup_offset: Annotated[
        int,
        Field(strict=True, ge=0, le=1, description="1: the first update already takes the first step up from start."),
    ] = 0
    then: Annotated[Part, Field(description="The schedule after the warmup; its k begins there.")] = Constant()


class Sequential(_Composed):
    """One schedule after the other, each with its own k."""

    summary: ClassVar[str] = "Schedules one after the other; each counts from its own beginning."
    formula: ClassVar[str] = "parts[i](k - milestones[i - 1]), i = number of milestones <= k"
    source: ClassVar[str] = "torch.optim.lr_scheduler.SequentialLR; optax.join_schedules."
    use_when: ClassVar[str] = "A run of several phases."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "schedules": "parts", "schedulers": "parts", "boundaries": "milestones",
    }  # fmt: skip

    name: Literal["sequential"] = "sequential"
    parts: Annotated[tuple[Part, ...], Field(max_length=PARTS_MAX, description="In their order.")]
    milestones: Annotated[
        tuple[Count, ...], Field(max_length=PARTS_MAX, description="Ascending values of k at which the next begins.")
    ] = ()

    @model_validator(mode="after")
    def _one_more_part_than_milestones(self) -> Self:
        if len(self.parts) != len(self.milestones) + 1:
            raise ValueError(
                f"expected one part more than milestones, came {len(self.parts)} and {len(self.milestones)}"
            )
        if any(left >= right for left, right in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ValueError("expected milestones that ascend")
        return self


class Chained(_Composed):
    """Several schedules at once: their factors multiply."""

    summary: ClassVar[str] = "Several schedules at once, their factors multiplied."
    formula: ClassVar[str] = "lr times the product of parts[i](k), each computed with lr = 1"
    source: ClassVar[str] = "torch.optim.lr_scheduler.ChainedScheduler."
    use_when: ClassVar[str] = "A warmup times a decay, where both count from the start."
    field_aliases: ClassVar[Mapping[str, str]] = {"schedules": "parts", "schedulers": "parts"}

    name: Literal["chained"] = "chained"
    parts: Annotated[tuple[Part, ...], Field(max_length=PARTS_MAX, description="In any order.")]


SCHEDULES = Family(
    kind="schedule",
    built={
        "constant": Constant, "warmup_cosine": WarmupCosine, "power": Power, "exponential": Exponential,
        "inverse_time": InverseTime, "step": Step, "multistep": MultiStep, "piecewise_constant": PiecewiseConstant,
        "polynomial": Polynomial, "linear": Linear, "constant_factor": ConstantFactor, "cosine": Cosine,
        "cosine_restarts": CosineRestarts, "one_cycle": OneCycle, "cyclic": Cyclic, "wsd": Wsd,
        "inverse_sqrt": InverseSqrt, "noam": Noam, "swa": Swa, "table": Table, "warmup": Warmup,
        "sequential": Sequential, "chained": Chained, "reduce_on_plateau": ReduceOnPlateau, "client": ClientOwned,
    },
    aliases={
        "cosinewithwarmup": ("warmup_cosine", {}), "steplr": ("step", {}), "multisteplr": ("multistep", {}),
        "exponentiallr": ("exponential", {"decay_steps": 1.0}), "exponentialdecay": ("exponential", {}),
        "piecewiseconstantdecay": ("piecewise_constant", {"right_closed": True}),
        "inversetimedecay": ("inverse_time", {}), "timebased": ("inverse_time", {}), "polynomiallr": ("polynomial", {}),
        "polynomialdecay": ("polynomial", {"end": 1e-4}), "linearlr": ("linear", {}),
        "constantlr": ("constant_factor", {}),
        "cosineannealinglr": ("cosine", {"after": "bounce"}), "cosinedecay": ("cosine", {}),
        "cosineannealingwarmrestarts": ("cosine_restarts", {}), "sgdr": ("cosine_restarts", {}),
        "cosinedecayrestarts": ("cosine_restarts", {"t_mul": 2.0}), "cycliclr": ("cyclic", {}),
        "triangular": ("cyclic", {}), "onecyclelr": ("one_cycle", {}), "1cycle": ("one_cycle", {}),
        "trapezoid": ("wsd", {}), "warmupstabledecay": ("wsd", {}), "rsqrt": ("inverse_sqrt", {}),
        "transformer": ("noam", {}), "sequentiallr": ("sequential", {}), "join": ("sequential", {}),
        "chainedscheduler": ("chained", {}), "swalr": ("swa", {}),
        "reducelronplateau": ("reduce_on_plateau", {}), "plateau": ("reduce_on_plateau", {}),
        "performance": ("reduce_on_plateau", {}),
    },
    planned=("LambdaLR",),
    cure=": no code is taken; send its values as the schedule 'table'",
)  # fmt: skip

_AnyPart = Annotated[
    Constant
    | WarmupCosine
    | Power
    | Exponential
    | InverseTime
    | Step
    | MultiStep
    | PiecewiseConstant
    | Polynomial
    | Linear
    | ConstantFactor
    | Cosine
    | CosineRestarts
    | OneCycle
    | Cyclic
    | Wsd
    | InverseSqrt
    | Noam
    | Swa
    | Table
    | Warmup
    | Sequential
    | Chained,
    Field(discriminator="name"),
]
for _composed in (Warmup, Sequential, Chained):
    _composed.model_rebuild()

ScheduleSpec = Annotated[
    Annotated[_AnyPart | ReduceOnPlateau | ClientOwned, Field(discriminator="name")], BeforeValidator(SCHEDULES.read)
]
