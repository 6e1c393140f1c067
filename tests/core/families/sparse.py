"""Rules for tables, where a tensor comes whole: the twin's steps, any hyperparameters, and one of each path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR, SHARE
from gradserve import specs


class SparseSteps:
    """Mixed into `core.twin.Twin`."""

    spec: Any
    updates: int

    def _sparse_adam_step(
        self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]
    ) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g * g
        below = math.sqrt(v) + spec.eps
        rate = lr * math.sqrt(1 - spec.beta2**t) / (1 - beta1**t)
        return -rate * m / below if below else 0.0


OPTIMIZERS = st.builds(specs.SparseAdam, lr=LR, beta1=SHARE, beta2=SHARE, eps=st.sampled_from([1e-8, 1e-3]), **DECAY)

EACH = [specs.SparseAdam(lr=0.1), specs.SparseAdam(lr=0.1, weight_decay=0.01, maximize=True)]
