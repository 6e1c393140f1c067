"""LAMB: Adam by layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import add, divide, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .kinds import PerTensorRule, Total
from .rule import TINY, Memory, Scalar, Slot, integer_power, keep_and_add

__all__ = ["Lamb"]

MOMENTS = (
    Slot("exp_avg", "m: first moment, the decaying mean of the gradients"),
    Slot("exp_avg_sq", "v: second moment, the decaying mean of their squares", never_negative=True),
)


class Lamb(specs.Lamb, PerTensorRule):
    """Adam's direction, scaled in each tensor to the norm of its weights.

        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        v <- β2 v + (1 - β2) g²                         float32[N], exp_avg_sq
        u = (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t) + eps_root) + eps) + λ w
        w <- w - lr (‖w‖ / ‖u‖) u                       norms of the tensor; 1 for the ratio where either is 0

    λ is in u with `weight_decay_mode: in_update`; with `decoupled`, as in Keras, ‖w‖ is of the weights after their
    decay, with every other mode before it. `trust_clip`: the ratio is at most 1. Folded as in `Adam`.

    Source: You et al. 2020, Algorithm 2 (arXiv:1904.00962). Matches optax.lamb; `compat: keras` keras.optimizers.Lamb.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1
    sums: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The two moments of Adam."""
        return MOMENTS

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of the moments, eps under and beside the root, gain, decay, lr."""
        c1, c2 = 1.0, 1.0
        if self.bias_correction:
            c1, c2 = 1.0 - integer_power(self.beta1, t), 1.0 - integer_power(self.beta2, t)
        r, decay = math.sqrt(c2), self.weight_decay if self.weight_decay_mode == "in_update" else 0.0
        take1, take2, eps = 1.0 - self.beta1, math.sqrt(1.0 - self.beta2), max(self.eps * r, TINY)
        return take1, self.beta1, take2, self.beta2, self.eps_root * c2, eps, r / c1, decay, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The direction u, for one block."""
        take1, beta1, take2, beta2, eps_root, eps, gain, decay, _ = c
        m, v = s
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        add(sqrt(add(v, eps_root, u), u), eps, u)
        multiply(divide(m, u, u), gain, u)
        add(u, multiply(w, decay, a[0]), u)

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """Squares of w and of u."""
        return total(multiply(w, w, a[0])), total(multiply(u, u, a[0]))

    def of_tensor(self, c: Sequence[float], sums: Sequence[float], own: Sequence[Array]) -> tuple[float, ...]:
        """lr times the ratio."""
        weights, change = map(math.sqrt, sums)
        kept = 1.0 - c[-1] * self.weight_decay if self.weight_decay_mode == "decoupled" else 1.0
        ratio = trust_ratio(weights * abs(kept), change)
        return (c[-1] * (min(ratio, 1.0) if self.trust_clip else ratio),)

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """u as long as it may be."""
        multiply(u, r[0], u)


def trust_ratio(weights: float, change: float, eps: float = 0.0) -> float:
    """‖w‖ / (‖u‖ + eps), 1 where either norm is 0: weights that are all 0 could never leave it."""
    return weights / (change + eps) if weights and change else 1.0
