"""LARS: momentum by layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import add, copyto, multiply

from gradserve import specs

from ..blocks import Array
from .kinds import PerTensorRule, Total
from .lamb import trust_ratio
from .rule import Memory, Scalar, Slot, keep_and_add

__all__ = ["Lars"]

VELOCITY = (Slot("velocity", "v: the scaled gradients so far, decaying"),)


class Lars(specs.Lars, PerTensorRule):
    """Momentum over gradients that are scaled in each tensor to the norm of its weights.

        u = g + λ w
        r = trust_coefficient ‖w‖ / (‖u‖ + eps)         norms of the tensor; 1 where either is 0
        v <- μ v + lr r u                               float32[N], velocity
        w <- w - v                                      or  w - (lr r u + μ v)  with `nesterov`

    `norm_of_sum: false` has ‖g‖ + λ ‖w‖ for ‖u‖. `lr_in_momentum: false` has lr outside: v <- μ v + r u; w <- w - lr v.
    λ is in u with `weight_decay_mode: in_update`.

    Source: You et al. 2017, Algorithm 1 (arXiv:1708.03888). Matches optax.lars.
    """

    momentum_field: ClassVar[str | None] = "momentum"
    scratch_blocks: ClassVar[int] = 1
    sums: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """A velocity if there is momentum."""
        return VELOCITY if self.momentum else ()

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Decay, μ, lr inside and outside the velocity."""
        decay = self.weight_decay if self.weight_decay_mode == "in_update" else 0.0
        inside, outside = (lr, 1.0) if self.lr_in_momentum else (1.0, lr)
        return decay, self.momentum, inside, outside

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """g + λ w, for one block."""
        add(g, multiply(w, c[0], a[0]), u)

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """Squares of w, and of u or g."""
        x = u if self.norm_of_sum else g
        return total(multiply(w, w, a[0])), total(multiply(x, x, a[0]))

    def of_tensor(self, c: Sequence[float], sums: Sequence[float], own: Sequence[Array]) -> tuple[float, ...]:
        """The ratio, with lr where it is inside the velocity."""
        decay, _, inside, _ = c
        weights, change = map(math.sqrt, sums)
        beside = self.eps if self.norm_of_sum else self.eps + decay * weights
        ratio = trust_ratio(weights * self.trust_coefficient, change, beside) if weights else 1.0
        return (inside * ratio,)

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """The velocity, and the step that it makes."""
        _, mu, _, outside = c
        multiply(u, r[0], u)
        for v in s:
            keep_and_add(v, mu, u)
            add(u, multiply(v, mu, a[0]), u) if self.nesterov else copyto(u, v)
        multiply(u, outside, u)
