"""Scaled rates: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR, SHARE
from gradserve import specs


class ScaledSteps:
    """Mixed into `core.twin.Twin`."""

    spec: Any
    updates: int
    numbers: dict[str, float]

    def _adagrad_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec = self.spec
        h = memory["sum"] = memory.get("sum", spec.initial_accumulator_value) + g**2
        rate = lr / (1 + spec.lr_decay * (self.updates - 1))
        denominator = math.sqrt(h + spec.eps) if spec.eps_in_sqrt else math.sqrt(h) + spec.eps
        return -rate * g / denominator if denominator > 0 else 0.0

    def _rmsprop_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, alpha = self.spec, self.spec.alpha
        v = memory["square_avg"] = alpha * memory.get("square_avg", spec.initial_accumulator_value) + (1 - alpha) * g**2
        a = memory["grad_avg"] = alpha * memory.get("grad_avg", 0.0) + (1 - alpha) * g
        correction = 1 - alpha**self.updates if spec.bias_correction else 1.0
        x = v / correction
        if spec.centered:
            x = max(x - (a / correction) ** 2, 0.0)
        denominator = math.sqrt(x + spec.eps) if spec.eps_in_sqrt else math.sqrt(x) + spec.eps
        d = g / denominator if denominator > 0 else 0.0
        if spec.momentum == 0:
            return -lr * d
        mu = spec.momentum if momentum is None else momentum
        if spec.lr_in_momentum:
            b = memory["velocity"] = mu * memory.get("velocity", 0.0) + lr * d
            return -(lr * d + mu * b) if spec.nesterov else -b
        b = memory["velocity"] = mu * memory.get("velocity", 0.0) + d
        return -lr * (d + mu * b) if spec.nesterov else -lr * b

    def _adadelta_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec = self.spec
        v = memory["square_avg"] = spec.rho * memory.get("square_avg", 0.0) + (1 - spec.rho) * g**2
        a = memory.get("acc_delta", 0.0)
        d = math.sqrt(a + spec.eps) / math.sqrt(v + spec.eps) * g
        memory["acc_delta"] = spec.rho * a + (1 - spec.rho) * d**2
        return -lr * d


START = st.sampled_from([0.0, 0.1, 1.0])
adagrad = st.builds(
    specs.Adagrad,
    lr=LR,
    lr_decay=st.sampled_from([0.0, 0.1]),
    eps=st.sampled_from([0.0, 1e-10, 1e-3]),
    eps_in_sqrt=st.booleans(),
    initial_accumulator_value=START,
    **DECAY,
)
rmsprop_fields: dict[str, Any] = {
    "lr": LR,
    "eps_in_sqrt": st.booleans(),
    "lr_in_momentum": st.booleans(),
    "bias_correction": st.booleans(),
    "initial_accumulator_value": START,
    **DECAY,
}
rmsprop = st.builds(specs.RmsProp, alpha=SHARE, eps=st.sampled_from([0.0, 1e-8, 1e-3]), **rmsprop_fields) | st.builds(
    specs.RmsProp, alpha=SHARE, eps=st.just(1e-3), momentum=SHARE, nesterov=st.booleans(), **rmsprop_fields
)
# A variance is a small difference of large numbers, and its root's slope has no bound near 0 (where the corrected
# variance of the first update is): an eps that is not small, under the root, keeps that out of a comparison.
centered_fields: dict[str, Any] = {
    **rmsprop_fields,
    "alpha": st.floats(0.3, 0.99),
    "centered": st.just(True),
    "momentum": st.sampled_from([0.0, 0.9]),
}
centered = st.builds(
    specs.RmsProp, **{**centered_fields, "eps": st.just(0.01), "bias_correction": st.just(False)}
) | st.builds(specs.RmsProp, **{**centered_fields, "eps": st.just(0.1), "eps_in_sqrt": st.just(True)})
adadelta = st.builds(specs.Adadelta, lr=st.floats(0.01, 3), rho=SHARE, eps=st.sampled_from([1e-7, 1e-6, 1e-2]), **DECAY)
OPTIMIZERS = adadelta | adagrad | rmsprop | centered

EACH = [
    specs.Adadelta(lr=1.0),
    specs.Adadelta(lr=1.0, rho=0.5, weight_decay=0.01, maximize=True),
    specs.Adagrad(lr=0.1),
    specs.Adagrad(lr=0.1, lr_decay=0.1, eps=0.05, eps_in_sqrt=True, initial_accumulator_value=0.1, weight_decay=0.01),
    specs.RmsProp(lr=0.1),
    specs.RmsProp(lr=0.1, centered=True, momentum=0.9, weight_decay=0.01),
    specs.RmsProp(lr=0.1, momentum=0.9, nesterov=True, lr_in_momentum=True, eps_in_sqrt=True, maximize=True),
    specs.RmsProp(lr=0.1, centered=True, bias_correction=True, momentum=0.9, nesterov=True, eps=0.01),
]
