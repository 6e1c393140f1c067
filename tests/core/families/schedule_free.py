"""Rules that train at an average: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR
from gradserve import specs


class ScheduleFreeSteps:
    """Mixed into `core.twin.Twin`. All three points are kept: nothing is got back from the two others."""

    spec: Any
    updates: int
    numbers: dict[str, float]

    def _schedule_free_sgd_begin(self, lr: float, momentum: float | None) -> None:
        self._count(lr * min(1.0, self.updates / self.spec.warmup_steps) if self.spec.warmup_steps else lr)

    _schedule_free_adamw_begin = _schedule_free_sgd_begin

    def _schedule_free_radam_begin(self, lr: float, momentum: float | None) -> None:
        beta2, t = self.spec.beta2, self.updates
        longest = 2 / (1 - beta2) - 1
        length = self.numbers["length"] = longest - 2 * t * beta2**t / (1 - beta2**t)
        ratio = 0.0 if self.spec.silent_sgd_phase else 1.0
        if length > 4:
            ratio = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        self._count(lr * ratio)

    def _count(self, rate: float) -> None:
        n, spec = self.numbers, self.spec
        n["rate"], n["largest"] = rate, max(n.get("largest", 0.0), rate)
        weight = self.updates**spec.r * n["largest"] ** spec.weight_lr_power
        n["total"] = n.get("total", 0.0) + weight
        n["share"] = weight / n["total"] if n["total"] > 0 else 0.0

    def _three_points(self, w: float, d: float, beta: float, memory: dict[str, float]) -> float:
        z, x = memory.get("z", w), memory.get("x", w)
        z = memory["z"] = z - self.numbers["rate"] * d
        x = memory["x"] = (1 - self.numbers["share"]) * x + self.numbers["share"] * z
        return (1 - beta) * z + beta * x - w

    def _schedule_free_sgd_step(
        self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]
    ) -> float:
        return self._three_points(w, g, self.spec.momentum, memory)

    def _schedule_free_adamw_step(
        self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]
    ) -> float:
        spec = self.spec
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g**2
        denominator = math.sqrt(v / (1 - spec.beta2**self.updates)) + spec.eps
        d = g / denominator if denominator > 0 else 0.0
        return self._three_points(w, d + self._inner(w), spec.beta1, memory)

    def _schedule_free_radam_step(
        self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]
    ) -> float:
        if self.numbers["length"] > 4:
            return self._schedule_free_adamw_step(w, g, lr, momentum, memory)
        v = memory.get("exp_avg_sq", 0.0)
        memory["exp_avg_sq"] = self.spec.beta2 * v + (1 - self.spec.beta2) * g**2
        return self._three_points(w, g + self._inner(w), self.spec.beta1, memory)

    def _inner(self, w: float) -> float:
        return self.spec.weight_decay * w if self.spec.weight_decay_mode == "in_update" else 0.0


POWERS: dict[str, Any] = {
    "r": st.sampled_from([0.0, 1.0, 0.5]),
    "weight_lr_power": st.sampled_from([2.0, 0.0, 1.3]),
    "weight_decay": DECAY["weight_decay"],
    "maximize": st.booleans(),
}
WARMUP = st.sampled_from([0, 1, 5])
BETA = st.floats(0.1, 0.98)
MOMENTS: dict[str, Any] = {
    "lr": LR, "beta1": BETA, "eps": st.sampled_from([1e-8, 1e-3]), **POWERS,
    "weight_decay_mode": st.sampled_from(["in_update", "l2"]),
}  # fmt: skip

OPTIMIZERS = (
    st.builds(specs.ScheduleFreeSgd, lr=LR, momentum=BETA, warmup_steps=WARMUP, **POWERS)
    | st.builds(specs.ScheduleFreeAdamW, beta2=st.floats(0.01, 0.9999), warmup_steps=WARMUP, **MOMENTS)
    # What the second moment is worth is the small difference of two numbers near 2 / (1 - beta2).
    | st.builds(specs.ScheduleFreeRAdam, beta2=st.floats(0.01, 0.97), silent_sgd_phase=st.booleans(), **MOMENTS)
)

EACH = [
    specs.ScheduleFreeSgd(lr=0.1),
    specs.ScheduleFreeSgd(lr=0.1, warmup_steps=5, r=0.5, weight_lr_power=0.0, weight_decay=0.01, maximize=True),
    specs.ScheduleFreeAdamW(lr=0.1),
    specs.ScheduleFreeAdamW(lr=0.1, warmup_steps=5, weight_lr_power=1.3, weight_decay=0.01),
    specs.ScheduleFreeAdamW(lr=0.1, r=1.0, weight_decay=0.01, weight_decay_mode="l2"),
    specs.ScheduleFreeRAdam(lr=0.1, beta2=0.3, silent_sgd_phase=False),
    specs.ScheduleFreeRAdam(lr=0.1, beta2=0.9, silent_sgd_phase=False, weight_decay=0.01, maximize=True),
]
