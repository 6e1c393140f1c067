"""The dumb twin: every optimizer as its paper says it, one number at a time, in Python floats.

Shares no code and no algebra with the service: nothing is folded, `**` is `**`, a weight is a float in a list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


class Twin:
    """Weights and optimizer state as lists of floats. `step` applies one gradient; None marks a weight without one."""

    def __init__(self, spec: Any, clip: Sequence[Any], weights: Sequence[float]) -> None:
        self.spec, self.clip = spec, clip
        self.weights = [float(w) for w in weights]
        self.memory: list[dict[str, float]] = [{} for _ in self.weights]
        self.updates = 0
        self.path = [0.0 for _ in self.weights]  # how far each weight has walked, back and forth
        self.clip_scale = 1.0
        self._mu_product = 1.0  # Nadam's

    def step(self, gradient: Sequence[float | None], lr: float, momentum: float | None = None) -> None:
        self.updates += 1
        if self.spec.name == "nadam":
            self._mu_product *= self._mu(self.updates, momentum)
        came = [i for i, g in enumerate(gradient) if g is not None]
        clipped = self._clip([float(gradient[i]) for i in came])  # type: ignore[arg-type]
        for i, g in zip(came, clipped, strict=True):
            before = self.weights[i]
            self.weights[i] = self._updated(before, g, lr, momentum, self.memory[i])
            self.path[i] += abs(self.weights[i] - before)

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
        decayed = w - lr * spec.weight_decay * w if spec.weight_decay_mode == "decoupled" else w
        return decayed + step(g, lr, momentum, memory)

    def _sgd_step(self, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
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

    def _adam_step(self, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
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

    def _adagrad_step(self, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec = self.spec
        h = memory["sum"] = memory.get("sum", spec.initial_accumulator_value) + g**2
        rate = lr / (1 + spec.lr_decay * (self.updates - 1))
        denominator = math.sqrt(h + spec.eps) if spec.eps_in_sqrt else math.sqrt(h) + spec.eps
        return -rate * g / denominator if denominator > 0 else 0.0

    def _rmsprop_step(self, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
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

    def _adamax_step(self, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec = self.spec
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        size = abs(g) + spec.eps if spec.eps_in_max else abs(g)
        u = memory["exp_inf"] = max(spec.beta2 * memory.get("exp_inf", 0.0), size)
        denominator = u if spec.eps_in_max else u + spec.eps
        return -lr / (1 - beta1**self.updates) * m / denominator if denominator > 0 else 0.0

    def _nadam_step(self, g: float, lr: float, momentum: float | None, memory: dict[str, float]) -> float:
        spec, t = self.spec, self.updates
        beta1 = spec.beta1 if momentum is None else momentum
        m = memory["exp_avg"] = beta1 * memory.get("exp_avg", 0.0) + (1 - beta1) * g
        v = memory["exp_avg_sq"] = spec.beta2 * memory.get("exp_avg_sq", 0.0) + (1 - spec.beta2) * g**2
        if spec.variant == "constant":
            numerator = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        else:
            now, ahead, product = self._mu(t, momentum), self._mu(t + 1, momentum), self._mu_product
            numerator = (1 - now) * g / (1 - product) + ahead * m / (1 - product * ahead)
        denominator = math.sqrt(v / (1 - spec.beta2**t)) + spec.eps
        return -lr * numerator / denominator if denominator > 0 else 0.0

    def _mu(self, t: int, momentum: float | None) -> float:
        beta1 = self.spec.beta1 if momentum is None else momentum
        return beta1 * (1 - 0.5 * 0.96 ** (t * self.spec.momentum_decay))
