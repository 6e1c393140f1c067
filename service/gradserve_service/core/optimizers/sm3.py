"""SM3: Adagrad in the memory of rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import ClassVar

from numpy import add, copyto, divide, maximum, minimum, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .kinds import ShapedRule
from .rule import Memory, Scalar, Shape, Slot, keep_and_add

__all__ = ["Sm3"]


def _all_places(shape: Shape) -> Shape:
    return (sum(shape) or 1,)


ACCUMULATORS = Slot(
    "accumulators", "the largest n of each place of each axis, axes end to end", never_negative=True, shape=_all_places
)
MEAN = Slot("exp_avg", "m: the decaying mean of the changes")


class Sm3(specs.Sm3, ShapedRule):
    """Adagrad whose sum of an element is the least of what its row, its column, … have seen.

        n = g² + min over the axes of their accumulator at the element's place
        axis' accumulator <- the largest n at each place   float32[Σ dimensions] a tensor, accumulators; axes in order
        x = g / sqrt(n + eps)                              0 where n is 0
        m <- μ m + (1 - μ) x                               float32[N], exp_avg, with momentum
        w <- w - lr m                                      or  w - lr x

    Source: Anil et al. 2019, SM3-II (arXiv:1901.11150). Matches optax.sm3.
    """

    momentum_field: ClassVar[str | None] = "momentum"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The axes' accumulators end to end; a mean change if there is momentum."""
        return (ACCUMULATORS, *((MEAN,) if self.momentum else ()))

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Share and decay of the mean, eps, lr."""
        return 1.0 - self.momentum, self.momentum, self.eps, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one tensor."""
        take, mu, eps, lr = c
        axes = _by_axis(s[0], g.shape)
        n = multiply(g, g)
        add(n, reduce(minimum, axes), n)
        for place, axis in enumerate(axes):
            others = tuple(i for i in range(g.ndim) if i != place)
            copyto(axis, maximum.reduce(n, axis=others, keepdims=True) if others else n)
        divide(g, sqrt(add(n, eps)), u)
        copyto(u, 0.0, where=n == 0.0)
        for m in s[1:]:
            keep_and_add(m, mu, multiply(u, take, u))
            copyto(u, m)
        multiply(u, lr, u)


def _by_axis(vector: Array, shape: Shape) -> list[Array]:
    """Each axis' accumulator, in a shape that spreads over the tensor."""
    found, start = [], 0
    for place, size in enumerate(shape):
        spread = tuple(size if i == place else 1 for i in range(len(shape)))
        found.append(vector[start : start + size].reshape(spread))
        start += size
    return found
