"""Adam with another second moment: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR, SHARE
from gradserve import specs


class VarianceSteps:
    """Mixed into `core.twin.Twin`."""

    spec: Any
    updates: int

    def _radam_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g**2
        corrected = m / (1 - beta1**t)
        longest = 2 / (1 - spec.beta2) - 1
        length = longest - 2 * t * spec.beta2**t / (1 - spec.beta2**t)
        if length <= 5:
            return -lr * corrected
        rectification = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        correction = math.sqrt(1 - spec.beta2**t)
        denominator = (math.sqrt(v) + spec.eps) / correction if spec.eps_hat else math.sqrt(v) / correction + spec.eps
        return -lr * rectification * corrected / denominator if denominator > 0 else 0.0

    def _adabelief_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        s = spec.beta2 * memory.get("exp_avg_var", 0.0) + (1 - spec.beta2) * (g - m) ** 2 + spec.eps_root
        memory["exp_avg_var"] = s
        denominator = math.sqrt(s / (1 - spec.beta2**t)) + spec.eps
        return -lr * (m / (1 - beta1**t)) / denominator if denominator > 0 else 0.0

    def _yogi_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", spec.initial_moment_value) + (1 - beta1) * g
        v = memory.get("exp_avg_sq", spec.initial_accumulator_value)
        rises = (v < g**2) - (v > g**2)
        v = memory["exp_avg_sq"] = v + (1 - spec.beta2) * rises * g**2
        correction1 = 1 - beta1**t if spec.bias_correction else 1.0
        correction2 = 1 - spec.beta2**t if spec.bias_correction else 1.0
        return -lr * (m / correction1) / (math.sqrt(v / correction2) + spec.eps)

    def _acprop_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m, s = memory.get("exp_avg", 0.0), memory.get("exp_avg_var", 0.0)
        root = math.sqrt(s / (1 - spec.beta2 ** (t - 1))) if s > 0 else 1.0
        memory["exp_avg_var"] = spec.beta2 * s + (1 - spec.beta2) * (g - m) ** 2 + spec.eps_root
        memory["exp_avg"] = beta1 * m + (1 - beta1) * g
        return -lr * g / (root + spec.eps)

    def _adopt_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, bound = self.spec, (self.updates - 1) ** 0.25
        beta1 = spec.beta1 if momentum is None else momentum
        m, v = memory.get("exp_avg", 0.0), memory.get("exp_avg_sq", 0.0)
        if v == 0:  # the first gradient of this weight
            memory["exp_avg_sq"], x = g**2, 0.0
        else:
            memory["exp_avg_sq"] = spec.beta2 * v + (1 - spec.beta2) * g**2
            x = g / max(math.sqrt(v), spec.eps)
            if spec.clip_updates:
                x = max(-bound, min(bound, x))
        m = memory["exp_avg"] = beta1 * m + (1 - beta1) * x
        return -lr * m


EPS = st.sampled_from([0.0, 1e-8, 1e-3])
SHARES: dict[str, Any] = {"lr": LR, "beta1": SHARE, "beta2": st.floats(0.01, 0.9999), **DECAY}
# The variance around a mean is the small difference of large numbers where the mean keeps nothing (beta1 near 0).
AROUND: dict[str, Any] = {
    **SHARES,
    "beta1": st.floats(0.3, 0.99),
    "eps": st.sampled_from([1e-16, 1e-3]),
    "eps_root": st.sampled_from([1e-16, 1e-6]),
}

OPTIMIZERS = (
    # What the second moment is worth is the small difference of two numbers near 2 / (1 - beta2).
    st.builds(specs.RAdam, eps=EPS, eps_hat=st.booleans(), **{**SHARES, "beta2": st.floats(0.01, 0.97)})
    | st.builds(specs.AdaBelief, **AROUND)
    | st.builds(
        specs.Yogi,
        eps=st.sampled_from([1e-8, 1e-3]),
        bias_correction=st.booleans(),
        initial_accumulator_value=st.sampled_from([1e-6, 1e-2]),
        initial_moment_value=st.sampled_from([0.0, 1e-6]),
        **SHARES,
    )
    | st.builds(specs.AcProp, **AROUND)
    | st.builds(specs.Adopt, eps=st.sampled_from([1e-6, 1e-2]), clip_updates=st.booleans(), **SHARES)
)

EACH = [
    specs.RAdam(lr=0.1),
    specs.RAdam(lr=0.1, beta2=0.3, eps=0.05, eps_hat=False, weight_decay=0.01),
    specs.RAdam(lr=0.1, beta2=0.9, eps=0.05, maximize=True),
    specs.RAdam(lr=0.1, beta2=0.9, eps=0.05, eps_hat=False),
    specs.AdaBelief(lr=0.1),
    specs.AdaBelief(lr=0.1, eps=1e-8, eps_root=1e-6, weight_decay=0.01, maximize=True),
    specs.Yogi(lr=0.1),
    specs.Yogi(lr=0.1, bias_correction=False, initial_moment_value=1e-6, weight_decay=0.01),
    specs.AcProp(lr=0.1),
    specs.AcProp(lr=0.1, eps_root=1e-6, weight_decay=0.01, maximize=True),
    specs.Adopt(lr=0.1),
    specs.Adopt(lr=0.1, clip_updates=False, weight_decay=0.01),
]
