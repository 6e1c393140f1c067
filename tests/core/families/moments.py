"""The family of Adam: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR
from gradserve import specs


class MomentsSteps:
    """Mixed into `core.twin.Twin`."""

    spec: Any
    updates: int
    numbers: dict[str, float]

    def _adam_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g * g
        correction1 = 1 - beta1**t if spec.bias_correction else 1.0
        correction2 = 1 - spec.beta2**t if spec.bias_correction else 1.0
        v_hat = v / correction2
        if spec.amsgrad and spec.amsgrad_corrected:
            v_hat = memory["max_exp_avg_sq"] = max(memory.get("max_exp_avg_sq", 0.0), v_hat)
        elif spec.amsgrad:
            v_hat = memory["max_exp_avg_sq"] = max(memory.get("max_exp_avg_sq", 0.0), v)
            v_hat = v_hat / correction2
        root = math.sqrt(v_hat + spec.eps_root)
        if spec.eps_hat:  # the root without its correction, and lr with it
            denominator = root * math.sqrt(correction2) + spec.eps
            numerator = m * math.sqrt(correction2) / correction1
        else:
            denominator = root + spec.eps
            numerator = m / correction1
        return -lr * numerator / denominator if denominator > 0 else 0.0

    _adamw_step = _adam_step

    def _adamax_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec = self.spec
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        size = abs(g) + spec.eps if spec.eps_in_max else abs(g)
        u = memory["exp_inf"] = max(spec.beta2 * memory.get("exp_inf", 0.0), size)
        denominator = u if spec.eps_in_max else u + spec.eps
        return -lr / (1 - beta1**self.updates) * m / denominator if denominator > 0 else 0.0

    def _nadam_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g**2
        if spec.variant == "constant":
            numerator = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        else:
            now, ahead = self._mu(t, momentum), self._mu(t + 1, momentum)
            product = self.numbers["mu_product"]
            numerator = (1 - now) * g / (1 - product) + ahead * m / (1 - product * ahead)
        denominator = math.sqrt(v / (1 - spec.beta2**t)) + spec.eps
        return -lr * numerator / denominator if denominator > 0 else 0.0

    def _nadam_begin(self, lr: float, momentum: float | None) -> None:
        self.numbers["mu_product"] = self.numbers.get("mu_product", 1.0) * self._mu(self.updates, momentum)

    def _mu(self, t: int, momentum: float | None) -> float:
        beta1 = self.spec.beta1 if momentum is None else momentum
        return beta1 * (1 - 0.5 * 0.96 ** (t * self.spec.momentum_decay))


moments: dict[str, Any] = {
    "lr": LR,
    "beta1": st.floats(0, 0.99),
    "beta2": st.floats(0.01, 0.9999),
    "eps": st.sampled_from([0.0, 1e-8, 1e-3]),
    "eps_root": st.sampled_from([0.0, 1e-4]),
    "eps_hat": st.booleans(),
    "bias_correction": st.booleans(),
    "amsgrad": st.booleans(),
    "amsgrad_corrected": st.booleans(),
    **DECAY,
}
adam = st.builds(specs.Adam, **moments)
adamw = st.builds(specs.AdamW, **moments)
adamax = st.builds(
    specs.Adamax,
    lr=LR,
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0.01, 0.9999),
    eps=st.sampled_from([0.0, 1e-8, 1e-3]),
    eps_in_max=st.booleans(),
    **DECAY,
)
nadam = st.builds(
    specs.Nadam,
    lr=LR,
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0.01, 0.9999),
    eps=st.sampled_from([0.0, 1e-8, 1e-3]),
    momentum_decay=st.sampled_from([0.0, 4e-3, 0.3, 1.0]),
    variant=st.sampled_from(["dozat", "constant"]),
    **DECAY,
)
OPTIMIZERS = adam | adamw | adamax | nadam

EACH = [
    specs.Adam(lr=0.1),
    specs.Adam(lr=0.1, amsgrad=True, weight_decay=0.01),
    specs.Adam(lr=0.1, amsgrad=True, amsgrad_corrected=True, eps_root=1e-6, eps_hat=True),
    specs.Adam(lr=0.1, eps=0.0, eps_root=1e-3),
    specs.AdamW(lr=0.1),
    specs.AdamW(lr=0.1, bias_correction=False, amsgrad=True),
    specs.Adamax(lr=0.1),
    specs.Adamax(lr=0.1, eps_in_max=False, maximize=True, weight_decay=0.01),
    specs.Nadam(lr=0.1),
    specs.Nadam(lr=0.1, momentum_decay=1.0, weight_decay=0.01),
    specs.Nadam(lr=0.1, variant="constant", maximize=True),
]
