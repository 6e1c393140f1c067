"""Averages of the weights: one more vector beside them, from which a run is judged or served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from .base import COUNT_MAX, Count, Family, Flag, Fraction, Real, Spec

Period = Annotated[int, Field(strict=True, ge=1, le=COUNT_MAX)]


class Ema(Spec):
    """The decaying mean of the weights. Matches torch's `AveragedModel` with `get_ema_multi_avg_fn`."""

    summary: ClassVar[str] = "A decaying mean of the weights: the newest count most."
    formula: ClassVar[str] = (
        "a <- a + (1 - d) (w - a) after each update, a = w at the first. warmup: d = min(decay, (1 + n) / (10 + n)), n "
        "the weights in a. debias: a + (1 - d) / (1 - D) (w - a), D all d so far, multiplied."
    )
    source: ClassVar[str] = "Polyak & Juditsky 1992; torch.optim.swa_utils, Keras' use_ema; debias: optax.ema."
    use_when: ClassVar[str] = (
        "Nearly always, for what is evaluated or served: about the last 1 / (1 - decay) updates count."
    )
    field_aliases: ClassVar[Mapping[str, str]] = {
        "emamomentum": "decay", "emadecay": "decay", "biascorrection": "debias", "usenumupdates": "warmup",
        "updateevery": "every",
    }  # fmt: skip

    name: Literal["ema"] = "ema"
    decay: Annotated[Fraction, Field(description="What is left of the average at each update.")] = 0.999
    debias: Annotated[
        Flag,
        Field(description="Weights count by their age alone, the first too, which else fills the average."),
    ] = False
    warmup: Annotated[Flag, Field(description="A smaller decay while few weights are averaged.")] = False
    every: Annotated[Period, Field(description="Averaged at updates whose number is a multiple of this.")] = 1


class SwaAverage(Spec):
    """The plain mean of the weights from an update on. Matches torch's `AveragedModel`."""

    summary: ClassVar[str] = "The plain mean of the weights from an update on."
    formula: ClassVar[str] = "a <- a + (w - a) / (n + 1) every `period` updates from `start`, n the weights in a"
    source: ClassVar[str] = "Izmailov et al. 2018 (arXiv:1803.05407); torch.optim.swa_utils.AveragedModel."
    use_when: ClassVar[str] = "The last quarter of a training, with the schedule swa, or at a constant rate."
    field_aliases: ClassVar[Mapping[str, str]] = {"swastart": "start", "swafreq": "period", "every": "period"}

    name: Literal["swa"] = "swa"
    start: Annotated[Count, Field(description="The first update whose weights count; until then a is w.")] = 0
    period: Annotated[Period, Field(description="Updates from one weight that counts to the next.")] = 1


class Lookahead(Spec):
    """Slow weights go a part of the way of the fast ones, which begin there again. Matches optax.lookahead."""

    summary: ClassVar[str] = "Slow weights follow the fast ones now and then, and the fast ones go back to them."
    formula: ClassVar[str] = "every `sync_period` updates: s <- s + alpha (w - s), w <- s"
    source: ClassVar[str] = "Zhang et al. 2019 (arXiv:1907.08610); optax.lookahead."
    use_when: ClassVar[str] = "Steps that oscillate; it forgives a rate that is too high."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "k": "sync_period", "lasteps": "sync_period", "slowstepsize": "alpha", "laalpha": "alpha",
    }  # fmt: skip

    name: Literal["lookahead"] = "lookahead"
    sync_period: Annotated[Period, Field(description="Updates from one meeting to the next.")] = 6
    alpha: Annotated[Real, Field(gt=0, le=1, description="What part of the way the slow weights go.")] = 0.5
    reset_state: Annotated[
        Flag, Field(description="At each meeting the optimizer's slots and its count of updates begin anew.")
    ] = False


AVERAGES = Family(
    kind="average",
    built={"ema": Ema, "swa": SwaAverage, "lookahead": Lookahead},
    aliases={
        "exponentialmovingaverage": ("ema", {}), "polyakaveraging": ("ema", {}),
        "averagedmodel": ("swa", {}), "stochasticweightaveraging": ("swa", {}),
    },
)  # fmt: skip

AverageSpec = Annotated[
    Annotated[Ema | SwaAverage | Lookahead, Field(discriminator="name")],
    BeforeValidator(AVERAGES.read),
]


def keras_average(given: Mapping[str, object], words: Mapping[str, object]) -> dict[str, object]:
    """The run's `average` that Keras' fields of an optimizer ask for (folded). Raises `ValueError`.

    There `use_ema` is a field of the optimizer, and its decay is `ema_momentum`, 0.99 where it is not said.
    """
    use = words.get("useema")
    if use is None or use is False:
        return {}
    if use is not True:
        raise ValueError(f"expected use_ema to be true or false, came {use!r:.80}")
    if words.get("emaoverwritefrequency") is not None:
        raise ValueError(
            "expected ema_overwrite_frequency unset: weights that are set back to their average are the average "
            "lookahead here: send average {'name': 'lookahead'} instead of use_ema"
        )
    if given.get("average") is not None:
        raise ValueError("expected averaging once, came average and the optimizer's use_ema: send average")
    return {"average": {"name": "ema", "decay": words.get("emamomentum", 0.99)}}
