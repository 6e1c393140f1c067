"""Rules with an anchor, sums or averages: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR, SHARE
from gradserve import specs


class AnchoredSteps:
    """Mixed into `core.twin.Twin`."""

    spec: Any
    updates: int

    def _ftrl_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, power = self.spec, -self.spec.learning_rate_power
        if lr == 0:
            return 0.0
        before = memory.get("accumulator", spec.initial_accumulator_value)
        n = memory["accumulator"] = before + g**2
        added = max(spec.beta + 2 * spec.lr * spec.l2, 2**-60)
        z = memory.get("linear", 0.0)
        if spec.keep_initial and before == spec.initial_accumulator_value:
            z = -w * (before**power + added)
        z = memory["linear"] = z + lr * (g + 2 * spec.l2_shrinkage * w) - (n**power - before**power) * w
        bound = spec.lr * spec.l1
        return (max(-bound, min(bound, z)) - z) / (n**power + added) - w

    def _madgrad_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, k = self.spec, (lr + self.spec.eps) * math.sqrt(self.updates) if lr else 0.0
        mu = spec.momentum if momentum is None else momentum
        first = memory["first"] = memory.get("first", w) if memory.get("squares", 0.0) > 0 else w
        squares = memory["squares"] = memory.get("squares", 0.0) + k * g**2
        total = memory["total"] = memory.get("total", 0.0) + k * g
        denominator = math.cbrt(squares) + spec.eps
        z = first - total / denominator if denominator > 0 else first
        return mu * w + (1 - mu) * z - w

    def _cocob_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, g = self.spec, lr * g
        first = memory["first"] = memory.get("first", w) if memory.get("sizes", 0.0) > 0 else w
        largest = memory["largest"] = max(memory.get("largest", spec.eps), abs(g))
        sizes = memory["sizes"] = memory.get("sizes", 0.0) + abs(g)
        reward = memory["reward"] = max(memory.get("reward", 0.0) - g * (w - first), 0.0)
        total = memory["total"] = memory.get("total", 0.0) - g
        bet = total / (largest * max(sizes + largest, spec.alpha * largest))
        return first + bet * (largest + reward) - w

    def _asgd_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        eta = lr / (1 + spec.lambd * lr * (t - 1)) ** spec.alpha
        after = w * (1 - spec.lambd * eta) - eta * g
        share = 1 / max(1.0, t - 1 - spec.t0)
        memory["ax"] = memory.get("ax", w) + share * (after - memory.get("ax", w))
        return after - w


OPTIMIZERS = (
    st.builds(
        specs.Ftrl,
        lr=LR,
        learning_rate_power=st.sampled_from([0.0, -0.5, -1.0]),
        initial_accumulator_value=st.sampled_from([0.1, 1.0]),
        l1=st.sampled_from([0.0, 0.01, 1.0]),
        l2=st.sampled_from([0.0, 0.1]),
        l2_shrinkage=st.sampled_from([0.0, 0.1]),
        beta=st.sampled_from([0.0, 0.5]),
        keep_initial=st.booleans(),
        **DECAY,
    )
    | st.builds(specs.Madgrad, lr=LR, momentum=SHARE, eps=st.sampled_from([1e-6, 1e-3]), **DECAY)
    | st.builds(specs.Cocob, alpha=st.floats(1, 200), eps=st.sampled_from([1e-8, 1e-2]), **DECAY)
    | st.builds(
        specs.Asgd,
        lr=LR,
        lambd=st.sampled_from([0.0, 1e-4, 0.1]),
        alpha=st.floats(0, 1),
        t0=st.sampled_from([0.0, 3.0, 1e6]),
        weight_decay=DECAY["weight_decay"],
        maximize=st.booleans(),
    )
)

EACH = [
    specs.Ftrl(lr=0.1),
    specs.Ftrl(lr=0.1, learning_rate_power=-1.0, l1=0.01, l2=0.1, l2_shrinkage=0.01, beta=1.0, weight_decay=0.01),
    specs.Ftrl(lr=0.1, learning_rate_power=0.0, keep_initial=False, maximize=True),
    specs.Madgrad(lr=0.1),
    specs.Madgrad(lr=0.1, momentum=0.0, weight_decay=0.01, maximize=True),
    specs.Cocob(),
    specs.Cocob(alpha=10.0, eps=1e-2, weight_decay=0.01),
    specs.Asgd(lr=0.1),
    specs.Asgd(lr=0.1, t0=1.0, lambd=0.01, weight_decay=0.01),
]
