"""Every optimizer over a grid of learning rates, and what the grid says of it.

One grid for all of them, because a rate means nothing without its optimizer: SGD likes a hundred times what Adam does.
If the best rate is the last one of the grid, the grid goes on for this optimizer, so that nobody is judged at an edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradserve.specs import OPTIMIZERS, RunSpec
from gradserve.specs.optimizer_fields import OptimizerFields
from gradserve_service.demo.digits import CLASSES

from .in_memory import Refusal
from .trial import Problem, Trial, train

__all__ = ["GUESS", "RATES", "Comparison", "Row", "compare", "every_optimizer", "optimizer_called"]

RATES = tuple(float(f"{10 ** (half / 2):.1g}") for half in range(-8, 3))  # 1e-4, 3e-4, … 10: half decades
FURTHER_MAX = 4  # rates beyond an end of the grid
TENTH = 1.1
GUESS = math.log(CLASSES)  # the loss of one who knows nothing
PRESETS = ("momentum", "nesterov")  # names of textbooks that are settings of sgd


def every_optimizer() -> list[str]:
    """All that this version builds, in the catalogue's order, and the two that are settings of sgd behind it."""
    first, *rest = OPTIMIZERS.built
    return [first, *PRESETS, *rest]


def optimizer_called(name: str, lr: float | None = None) -> OptimizerFields:
    """The optimizer of a name or alias, at its default rate or another. Raises `ValueError` that names all."""
    OPTIMIZERS.name_of(name)
    rate = {} if lr is None else {"lr": lr}
    return RunSpec.model_validate({"optimizer": {"name": name, **rate}}).optimizer


@dataclass(frozen=True, slots=True)
class Row:
    """One optimizer's part of the comparison."""

    name: str
    trials: tuple[Trial, ...]  # of the grid, by rate
    default: Trial  # at the rate that the spec has when nobody says one
    target: float

    @property
    def best(self) -> Trial:
        """The trial of least final loss; of equals the one whose rate is nearest to the default."""
        return min(self.trials, key=lambda t: (_or_infinity(t.loss), abs(math.log(t.lr / (self.default.lr or t.lr)))))

    def around_the_best(self, holds: Callable[[Trial], bool]) -> tuple[float, float] | None:
        """The smallest and the largest rate of the stretch of the grid around the best in which something holds."""
        place = self.trials.index(self.best)
        if not holds(self.trials[place]):
            return None
        low = high = place
        while low > 0 and holds(self.trials[low - 1]):
            low -= 1
        while high + 1 < len(self.trials) and holds(self.trials[high + 1]):
            high += 1
        return self.trials[low].lr, self.trials[high].lr

    @property
    def reaching(self) -> tuple[float, float] | None:
        """The rates around the best at which it reaches the target."""
        return self.around_the_best(lambda trial: trial.updates_to(self.target) is not None)

    @property
    def lost(self) -> int:
        """Rates above the best at which it ran away, or knows no more than a guess at the end."""
        return sum(trial.lr > self.best.lr and not trial.loss < GUESS for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """All numbers; no loss (null) means that it ran away."""
        best, reaching = self.best, self.reaching
        return {
            "name": self.name,
            "lr": best.lr,
            "updates_to_target": best.updates_to(self.target),
            "loss": _or_none(best.loss),
            "accuracy": round(best.accuracy, 4),
            "default_lr": self.default.lr,
            "default_updates_to_target": self.default.updates_to(self.target),
            "default_loss": _or_none(self.default.loss),
            "default_accuracy": round(self.default.accuracy, 4),
            "lrs_reaching_target": reaching,
            "decades_reaching_target": None if reaching is None else round(math.log10(reaching[1] / reaching[0]), 2),
            "lrs_within_a_tenth": self.around_the_best(lambda trial: trial.loss <= TENTH * best.loss),
            "lrs_tried": [trial.lr for trial in self.trials],
            "losses": [_or_none(trial.loss) for trial in self.trials],
            "diverged": sum(trial.diverged for trial in self.trials),
            "lost_above_the_best": self.lost,
            "bytes_a_parameter": best.bytes_a_parameter,
            "microseconds_an_update": round(float(np.median([trial.microseconds for trial in self.trials])), 1),
            "curve": best.curve,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The problem and the rows, the quickest to the target first."""

    problem: Problem
    target: float
    parameters: int
    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, str], ...] = ()  # names that could not be compared, and why

    def to_json(self) -> dict[str, Any]:
        """`table.json`. Equal for equal options, but for the times."""
        return {
            "problem": "digits",
            "parameters": self.parameters,
            "updates": self.problem.updates,
            "batch_size": self.problem.batch_size,
            "seed": self.problem.seed,
            "target_loss": self.target,
            "optimizers": [row.to_json() for row in self.rows],
            "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out],
        }


def compare(
    problem: Problem,
    names: Sequence[str],
    rates: Sequence[float],
    target: float,
    parameters: int,
    on_trial: Callable[[str, Trial], None] = lambda name, trial: None,
) -> Comparison:
    """Train every optimizer at every rate; one that cannot be is left out. `on_trial` sees each training at its end."""

    def trial(name: str, lr: float | None = None) -> Trial:
        done = train(problem, optimizer_called(name, lr))
        on_trial(name, done)
        return done

    rows, left_out = [], []
    for name in names:
        if "lr" not in type(optimizer_called(name)).model_fields:
            left_out.append((name, "it has no learning rate"))
            continue
        try:
            rows.append(_row(name, rates, target, trial))
        except Refusal as refusal:
            left_out.append((name, str(refusal)))
    rows.sort(key=lambda row: (row.best.updates_to(target) or math.inf, _or_infinity(row.best.loss)))
    return Comparison(problem, target, parameters, tuple(rows), tuple(left_out))


def _row(name: str, rates: Sequence[float], target: float, trial: Callable[..., Trial]) -> Row:
    """One optimizer at its default, over the grid, and beyond an end of it that is the best."""
    default = trial(name)
    known = {default.lr: default}
    row = Row(name, tuple(known.get(lr) or trial(name, lr) for lr in sorted(rates)), default, target)
    for _ in range(FURTHER_MAX if len(rates) > 1 else 0):
        further = _beyond(row)
        if further is None:
            break
        trials = sorted([*row.trials, known.get(further) or trial(name, further)], key=lambda each: each.lr)
        row = Row(name, tuple(trials), default, target)
    return row


def _beyond(row: Row) -> float | None:
    """The rate one step behind the end of the grid if the best is at that end and better than its neighbour."""
    lrs = [trial.lr for trial in row.trials]
    if row.best.lr == lrs[-1] and row.best.loss < _or_infinity(row.trials[-2].loss):
        return float(f"{lrs[-1] * lrs[-1] / lrs[-2]:.1g}")
    if row.best.lr == lrs[0] and row.best.loss < _or_infinity(row.trials[1].loss):
        return float(f"{lrs[0] * lrs[0] / lrs[1]:.1g}")
    return None


def _or_infinity(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _or_none(loss: float) -> float | None:
    return float(f"{loss:.4g}") if math.isfinite(loss) else None
