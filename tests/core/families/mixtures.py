"""Steps mixed from several means: the twin's steps, any hyperparameters, and one of each arithmetic path."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from core.families.ranges import DECAY, LR, SHARE
from gradserve import specs


class MixtureSteps:
    """Mixed into `core.twin.Twin`."""

    spec: Any
    updates: int

    def _adan_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1, beta2, beta3 = spec.beta1 if momentum is None else momentum, spec.beta2, spec.beta3
        d = g - memory["prev_grad"] if memory.get("exp_avg_sq", 0.0) > 0 else 0.0
        memory["prev_grad"] = g
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        v = memory["exp_avg_diff"] = beta2 * memory.get("exp_avg_diff", 0.0) + (1 - beta2) * d
        n = memory["exp_avg_sq"] = beta3 * memory.get("exp_avg_sq", 0.0) + (1 - beta3) * (g + beta2 * d) ** 2
        denominator = math.sqrt(n / (1 - beta3**t)) + spec.eps
        return -lr * (m / (1 - beta1**t) + beta2 * v / (1 - beta2**t)) / denominator if denominator > 0 else 0.0

    def _ademamix_step(self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        beta3, alpha = spec.beta3, spec.alpha
        if t < spec.alpha_warmup:
            alpha *= t / spec.alpha_warmup
        if t < spec.beta3_warmup and beta1 > 0:
            first, last = math.log(0.5) / math.log(beta1) - 1, math.log(0.5) / math.log(beta3) - 1
            beta3 = 0.5 ** (1 / (first + (last - first) * t / spec.beta3_warmup + 1))
        m1 = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        m2 = memory["exp_avg_slow"] = beta3 * memory.get("exp_avg_slow", 0.0) + (1 - beta3) * g
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g**2
        denominator = math.sqrt(v / (1 - spec.beta2**t) + spec.eps_root) + spec.eps
        return -lr * (m1 / (1 - beta1**t) + alpha * m2) / denominator if denominator > 0 else 0.0

    def _simplified_ademamix_step(
        self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]
    ) -> float:
        spec = self.spec
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["velocity"] = beta1 * memory.get("velocity", 0.0) + g
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g**2
        denominator = math.sqrt(v / (1 - spec.beta2**self.updates) + spec.eps_root) + spec.eps
        return -lr * (m + spec.alpha * g) / denominator if denominator > 0 else 0.0

    def _optimistic_gradient_descent_step(
        self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]
    ) -> float:
        before = g if self.updates == 1 else memory.get("prev_grad", 0.0)
        memory["prev_grad"] = g
        return -lr * (self.spec.alpha * g + self.spec.beta * (g - before))

    def _optimistic_adam_step(
        self, w: float, g: float, lr: float, momentum: float | None, memory: dict[str, float]
    ) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g**2
        n = m / (1 - beta1**t)
        if spec.nesterov:
            n = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        denominator = math.sqrt(v / (1 - spec.beta2**t) + spec.eps_root) + spec.eps
        r = n / denominator if denominator > 0 else 0.0
        before = r if t == 1 else memory.get("prev_step", 0.0)
        memory["prev_step"] = r
        return -lr * (spec.alpha * r + spec.beta * (r - before))


MOMENTS: dict[str, Any] = {
    "lr": LR,
    "beta1": SHARE,
    "beta2": st.floats(0.01, 0.9999),
    "eps": st.sampled_from([0.0, 1e-8, 1e-3]),
    **DECAY,
}
ROOT: dict[str, Any] = {**MOMENTS, "eps_root": st.sampled_from([0.0, 1e-4])}
WEIGHT = st.floats(0, 3)

OPTIMIZERS = (
    st.builds(specs.Adan, **{**MOMENTS, "beta2": SHARE, "beta3": SHARE, "eps": st.sampled_from([1e-8, 1e-3])})
    | st.builds(
        specs.AdEMAMix,
        beta3=st.floats(0.5, 0.99),  # 1 - beta3 has fewer digits the nearer it is to 0
        alpha=st.floats(0, 8),
        alpha_warmup=st.sampled_from([0, 5, 100]),
        beta3_warmup=st.sampled_from([0, 5, 100]),
        **ROOT,
    )
    | st.builds(specs.SimplifiedAdEMAMix, alpha=st.floats(0, 8), **ROOT)
    | st.builds(specs.OptimisticGradientDescent, lr=LR, alpha=WEIGHT, beta=WEIGHT, **DECAY)
    | st.builds(specs.OptimisticAdam, alpha=WEIGHT, beta=WEIGHT, nesterov=st.booleans(), **ROOT)
)

EACH = [
    specs.Adan(lr=0.1),
    specs.Adan(lr=0.1, beta1=0.5, weight_decay=0.01, maximize=True),
    specs.AdEMAMix(lr=0.1),
    specs.AdEMAMix(lr=0.1, beta3=0.99, alpha_warmup=10, beta3_warmup=20, eps_root=1e-6, weight_decay=0.01),
    specs.SimplifiedAdEMAMix(lr=0.1, beta1=0.9),
    specs.SimplifiedAdEMAMix(lr=0.1, beta1=0.9, alpha=2.0, eps_root=1e-6, maximize=True),
    specs.OptimisticGradientDescent(lr=0.1),
    specs.OptimisticGradientDescent(lr=0.1, alpha=0.5, beta=2.0, weight_decay=0.01),
    specs.OptimisticAdam(lr=0.1),
    specs.OptimisticAdam(lr=0.1, nesterov=False, beta=0.3, eps_root=1e-6),
]
