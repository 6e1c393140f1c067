"""Reduce on plateau: a state machine on reports of a metric. Pure: the state before and a report give the state after.

The state holds a factor on the rate, not a rate: the base rate may change meanwhile. Three libraries count differently;
each style is exact.

    torch   a report that is not better is bad; bad reports in a cooldown are forgotten; the rate falls at the
            (patience + 1)-th bad one
    keras   the last report of a cooldown may already be the first bad one; the rate falls at the patience-th, and where
            min_lr is reached nothing starts again
    optax   as keras, but the last report of a cooldown is forgotten too, and a cooldown starts even where the rate
            cannot fall

Source: torch.optim.lr_scheduler.ReduceLROnPlateau, keras.callbacks.ReduceLROnPlateau, optax.contrib.reduce_on_plateau.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from gradserve.specs import ReduceOnPlateau

__all__ = ["FRESH", "PlateauState", "after_report", "rate"]

LARGEST: Final = math.nextafter(math.inf, 0.0)


@dataclass(frozen=True, slots=True)
class PlateauState:
    """What is remembered between reports; all of it JSON."""

    scale: float = 1.0  # factor on the base rate, before min_lr
    best: float | None = None
    bad: int = 0  # reports since the best one, or since a reduction
    cooldown: int = 0  # reports that are still not counted
    pending: int = 0  # reports that wait for their mean
    mean: float = 0.0  # of those


FRESH: Final = PlateauState()


def rate(spec: ReduceOnPlateau, state: PlateauState, lr: float) -> float:
    """The rate in this state, from the base rate `lr`: never below min_lr unless `lr` is."""
    return min(lr, max(lr * state.scale, spec.min_lr))


def after_report(spec: ReduceOnPlateau, state: PlateauState, value: float, lr: float) -> PlateauState:
    """The state after one report of the metric. `lr` is the base rate. NaN is never better."""
    count = state.pending + 1
    mean = max(min((state.pending * state.mean + value) / count, LARGEST), -LARGEST)  # an entry holds no infinity
    if count < spec.every:
        return replace(state, pending=count, mean=mean)
    state = replace(state, pending=0, mean=0.0)
    better = _better(spec, mean, state.best)
    best = mean if better else state.best
    if spec.style == "keras":
        cooldown = max(state.cooldown - 1, 0)
        seen = replace(state, best=best, cooldown=cooldown, bad=0 if state.cooldown else state.bad)
        if better:
            return replace(seen, bad=0)
        return _reduced(spec, replace(seen, bad=seen.bad + 1), lr) if not cooldown else seen
    seen = replace(state, best=best, bad=0 if better else state.bad + 1)
    if state.cooldown:
        return replace(seen, bad=0, cooldown=state.cooldown - 1)
    return _reduced(spec, seen, lr)


def _better(spec: ReduceOnPlateau, value: float, best: float | None) -> bool:
    sign = 1.0 if spec.mode == "min" else -1.0
    if best is None:
        return sign * value < math.inf
    relative, absolute = (spec.threshold, 0.0) if spec.threshold_mode == "rel" else (0.0, spec.threshold)
    return sign * value < sign * (best * (1.0 - sign * relative)) - absolute - spec.threshold_abs


def _reduced(spec: ReduceOnPlateau, state: PlateauState, lr: float) -> PlateauState:
    """The state after as many bad reports as it says, with a smaller rate if they are too many."""
    if state.bad < spec.patience + (spec.style == "torch"):
        return state
    old, smaller = rate(spec, state, lr), replace(state, scale=state.scale * spec.factor)
    falls = old - rate(spec, smaller, lr) > spec.eps if spec.style == "torch" else old > spec.min_lr
    if spec.style == "keras" and not falls:
        return state
    return replace(smaller if falls else state, bad=0, cooldown=spec.cooldown)
