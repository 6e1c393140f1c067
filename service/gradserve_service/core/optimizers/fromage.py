"""Fromage: steps that are a share of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import add, copyto, multiply

from gradserve import specs

from ..blocks import Array
from .kinds import PerTensorRule, Total
from .lamb import trust_ratio
from .rule import Memory, Scalar, Slot

__all__ = ["Fromage"]


class Fromage(specs.Fromage, PerTensorRule):
    """Each tensor moves by the share lr of its norm, and is drawn back by what that would let it grow.

        r = max(‖w‖, min_norm) / max(‖g‖, min_norm)     norms of the tensor; 1 where either is 0
        w <- (w - lr r g) / sqrt(1 + lr²)

    Source: Bernstein et al. 2020, Algorithm 1 (arXiv:2002.03432). Matches optax.fromage.
    """

    scratch_blocks: ClassVar[int] = 1
    sums: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """None."""
        return ()

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """1 - k and lr k, with k = 1 / sqrt(1 + lr²)."""
        root = math.sqrt(1.0 + lr * lr)
        return lr * (lr / (root * (root + 1.0))), lr / root  # 1 - 1 / root, without cancellation

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The gradient itself."""
        copyto(u, g)

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """Squares of w and of g."""
        return total(multiply(w, w, a[0])), total(multiply(g, g, a[0]))

    def of_tensor(self, c: Sequence[float], sums: Sequence[float], own: Sequence[Array]) -> tuple[float, ...]:
        """lr k r."""
        weights, gradient = (max(math.sqrt(x), self.min_norm) for x in sums)
        return (c[1] * trust_ratio(weights, gradient),)

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """lr k r g + (1 - k) w."""
        multiply(u, r[0], u)
        add(u, multiply(w, c[0], a[0]), u)
