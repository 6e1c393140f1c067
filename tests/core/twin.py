"""The dumb twin: every optimizer as its paper says it, one number at a time, in Python floats.

Shares no code and no algebra with the service: nothing is folded, `**` is `**`, a weight is a float in a list. The
steps themselves are in `families`, one file a family: `_<name>_step` says what is added to one weight, `_<name>_begin`
what is counted once an update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from core.families.anchored import AnchoredSteps
from core.families.descent import DescentSteps
from core.families.mixtures import MixtureSteps
from core.families.moments import MomentsSteps
from core.families.scaled import ScaledSteps
from core.families.schedule_free import ScheduleFreeSteps
from core.families.signs import SignSteps
from core.families.sparse import SparseSteps
from core.families.variances import VarianceSteps


class Twin(
    DescentSteps,
    ScaledSteps,
    MomentsSteps,
    VarianceSteps,
    MixtureSteps,
    SignSteps,
    AnchoredSteps,
    ScheduleFreeSteps,
    SparseSteps,
):
    """Weights and optimizer state as lists of floats. `step` applies one gradient; None marks a weight without one."""

    def __init__(self, spec: Any, clip: Sequence[Any], weights: Sequence[float]) -> None:
        self.spec, self.clip = spec, clip
        self.weights = [float(w) for w in weights]
        self.memory: list[dict[str, float]] = [{} for _ in self.weights]
        self.updates = 0
        self.path = [0.0 for _ in self.weights]  # how far each weight has walked, back and forth
        self.clip_scale = 1.0
        self.numbers: dict[str, float] = {}  # what an optimizer keeps once, not for each weight

    def step(self, gradient: Sequence[float | None], lr: float, momentum: float | None = None) -> None:
        self.updates += 1
        getattr(self, f"_{self.spec.name}_begin", lambda lr, momentum: None)(lr, momentum)
        came = [i for i, g in enumerate(gradient) if g is not None]
        clipped = self._clip([float(gradient[i]) for i in came])  # type: ignore[arg-type]
        for i, g in zip(came, clipped, strict=True):
            before = self.weights[i]
            self.weights[i] = self._updated(before, g, lr, momentum, self.memory[i])
            self.path[i] += abs(self.weights[i] - before)

    @property
    def average(self) -> list[float]:
        """The average of the weights that the optimizer keeps, by its paper's letter; the weights where it has none."""
        both = zip(self.memory, self.weights, strict=True)
        return [memory.get("x", memory.get("ax", w)) for memory, w in both]

    def _clip(self, g: list[float]) -> list[float]:
        self.clip_scale = 1.0
        for rule in self.clip:
            if rule.name == "value":
                g = [max(-rule.value, min(rule.value, x)) for x in g]
            elif rule.name == "global_norm":
                norm = math.sqrt(math.fsum(x * x for x in g))
                scale = min(1.0, rule.max_norm / (norm + rule.eps)) if norm > 0 else 1.0
                g = [scale * x for x in g]
                self.clip_scale *= scale
        return g

    def _updated(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec = self.spec
        if spec.maximize:
            g = -g
        if spec.weight_decay_mode == "l2":
            g = g + spec.weight_decay * w
        step = getattr(self, f"_{spec.name}_step")
        return decayed(spec, w, lr, lr, step(w, g, lr, momentum, memory))


def decayed(spec: Any, w: float, lr: float, rate: float, moved: float) -> float:
    """The weight after its decay and after what the rule adds to it; `rate` is what stands before the decay."""
    wd, base = spec.weight_decay, spec.lr
    if spec.weight_decay_mode == "proximal":
        return (w + moved) / (1 + rate * wd)
    if spec.weight_decay_mode == "decoupled" or (spec.weight_decay_mode == "cautious" and moved * w < 0):
        return w - rate * wd * w + moved
    if spec.weight_decay_mode == "independent":
        return w - rate / base * wd * w + moved
    if spec.weight_decay_mode == "corrected":
        return w - rate * lr / base * wd * w + moved
    return w + moved
