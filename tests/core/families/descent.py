"""Gradient descent: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR, SHARE
from gradserve import specs


class DescentSteps:
    """Mixed into `core.twin.Twin`."""

    spec: Any
    updates: int
    numbers: dict[str, float]

    def _sgd_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec = self.spec
        if spec.momentum == 0:
            return -lr * g
        mu = spec.momentum if momentum is None else momentum
        if spec.lr_in_momentum:
            v = mu * memory.get("velocity", 0.0) - lr * g
            memory["velocity"] = v
            return mu * v - lr * g if spec.nesterov else v
        b = g if self.updates == 1 else mu * memory.get("velocity", 0.0) + (1 - spec.dampening) * g
        memory["velocity"] = b
        return -lr * (g + mu * b) if spec.nesterov else -lr * b

    def _noisy_sgd_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        return -lr * g  # the noise is on the gradient before the rule sees it


plain = st.builds(specs.Sgd, lr=LR, **DECAY)
velocity = st.builds(specs.Sgd, lr=LR, momentum=SHARE, dampening=st.floats(0, 1), **DECAY)
forms = st.builds(specs.Sgd, lr=LR, momentum=SHARE, nesterov=st.booleans(), lr_in_momentum=st.booleans(), **DECAY)
OPTIMIZERS = st.builds(specs.NoisySgd, lr=LR, **DECAY) | plain | velocity | forms

EACH = [
    specs.Sgd(lr=0.1),
    specs.Sgd(lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.01),
    specs.Sgd(lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    specs.Sgd(lr=0.1, momentum=0.9, nesterov=True, lr_in_momentum=True),
    specs.NoisySgd(lr=0.1, weight_decay=0.01),
]
