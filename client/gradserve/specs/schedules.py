"""The schedules and their names: pure functions of k, the number of updates already applied (the first update sees
k = 0), and of lr, the optimizer's own rate.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from .base import Family
from .cosines import Cosine, OneCycle, WarmupCosine
from .decays import Exponential, InverseTime, Linear, PiecewiseConstant, Polynomial, Power, Step
from .plateau import ReduceOnPlateau
from .schedule_fields import ScheduleFields


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


SCHEDULES = Family(
    kind="schedule",
    built={
        "constant": Constant, "warmup_cosine": WarmupCosine, "power": Power, "exponential": Exponential,
        "inverse_time": InverseTime, "step": Step, "piecewise_constant": PiecewiseConstant, "polynomial": Polynomial,
        "linear": Linear, "cosine": Cosine, "one_cycle": OneCycle,
        "reduce_on_plateau": ReduceOnPlateau, "client": ClientOwned,
    },
    aliases={
        "cosinewithwarmup": ("warmup_cosine", {}), "steplr": ("step", {}),
        "exponentiallr": ("exponential", {"decay_steps": 1.0}), "exponentialdecay": ("exponential", {}),
        "piecewiseconstantdecay": ("piecewise_constant", {"right_closed": True}),
        "inversetimedecay": ("inverse_time", {}), "timebased": ("inverse_time", {}), "polynomiallr": ("polynomial", {}),
        "polynomialdecay": ("polynomial", {"end": 1e-4}), "linearlr": ("linear", {}),
        "cosineannealinglr": ("cosine", {"after": "bounce"}), "cosinedecay": ("cosine", {}),
        "onecyclelr": ("one_cycle", {}), "1cycle": ("one_cycle", {}),
        "reducelronplateau": ("reduce_on_plateau", {}), "plateau": ("reduce_on_plateau", {}),
        "performance": ("reduce_on_plateau", {}),
    },
    planned=(
        "constant_factor", "multistep", "warmup", "cosine_restarts", "cyclic", "wsd", "inverse_sqrt", "noam",
        "sequential", "chained", "table", "swa",
    ),
    planned_aliases={
        "constantlr": "constant_factor", "multisteplr": "multistep", "cosineannealingwarmrestarts": "cosine_restarts",
        "sgdr": "cosine_restarts", "cosinedecayrestarts": "cosine_restarts", "cycliclr": "cyclic",
        "triangular": "cyclic", "trapezoid": "wsd", "warmupstabledecay": "wsd", "rsqrt": "inverse_sqrt",
        "transformer": "noam", "sequentiallr": "sequential", "join": "sequential",
        "chainedscheduler": "chained", "swalr": "swa", "lambdalr": "table",
    },
)  # fmt: skip

ScheduleSpec = Annotated[
    Annotated[
        Constant
        | WarmupCosine
        | Power
        | Exponential
        | InverseTime
        | Step
        | PiecewiseConstant
        | Polynomial
        | Linear
        | Cosine
        | OneCycle
        | ReduceOnPlateau
        | ClientOwned,
        Field(discriminator="name"),
    ],
    BeforeValidator(SCHEDULES.read),
]
