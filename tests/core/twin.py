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

    def step(self, gradient: Sequence[float | None], lr: float, momentum: float | None = None) -> None:
        self.updates += 1
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
        step = self._sgd_step if spec.name == "sgd" else self._adam_step
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
