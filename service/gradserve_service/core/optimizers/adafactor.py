"""Adafactor: a second moment of rank one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy import add, copyto, divide, maximum, multiply, sqrt

from gradserve import specs

from ..blocks import Array, sum_of_squares
from .kinds import ShapedRule
from .rule import TINY, Memory, Scalar, Shape, Slot, decaying_exponential, keep_and_add, negative_logarithm

__all__ = ["Adafactor"]

Axes = tuple[int, int]  # the rows' axis and the columns'

MEAN = Slot("exp_avg", "m: the decaying mean of the steps")


class Adafactor(specs.Adafactor, ShapedRule):
    """Gradients over the root of the product of a row and a column of mean squares.

        k = t^-0.8
        r <- (1 - k) r + k mean of g² over the columns        one number a row, row_var
        c <- (1 - k) c + k mean of g² over the rows           one number a column, col_var
        v = r c / max(mean r, ε1)                             of a vector: v <- (1 - k) v + k g², variance
        x = g / sqrt(max(v, ε1²))
        α = max(ε2, rms w) min(lr, 1 / sqrt t)
        w <- w (1 - lr λ) - α x / max(1, rms x / d)

    Rows and columns are the last two axes, or the two longest, of each matrix along the others; rms is over the
    tensor. `variant: paper`: the means are of g² + ε1, and nothing is bounded by ε1. With β1 the step goes through
    m <- β1 m + (1 - β1) step, float32[N], exp_avg. Sums are in float64, in an order that the shape alone decides.

    Source: Shazeer & Stern 2018, Algorithms 4 and 5 (arXiv:1804.04235). Matches torch.optim.Adafactor; `compat`:
    keras.optimizers.Adafactor, optax.adafactor, transformers' Adafactor.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    forms: ClassVar[tuple[Mapping[str, Any], ...]] = ({"beta1": 0.9},)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Rows and columns of matrices, the whole second moment of the other tensors; a mean step with beta1."""
        return (*_statistics(self.factored_axes, self.factor_from), *((MEAN,) if self.beta1 else ()))

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """k and 1 - k, the relative rate, lr."""
        take = decaying_exponential(-self.beta2_decay * negative_logarithm(1.0 / t))
        return take, 1.0 - take, min(lr, 1.0 / math.sqrt(t)) if self.relative_step else lr, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one tensor."""
        rate, lr = float(c[2]), float(c[3])
        axes = _rows_and_columns(g.shape, self.factored_axes, self.factor_from)
        own = 2 if axes else 1
        divide(g, sqrt(self._second_moment(c, g, s[:own], axes)), u)
        alpha = rate * self._size(w, lr) if self.scale_parameter else rate
        multiply(u, alpha / max(1.0, _rms(u) / self.clip_threshold), u)
        for m in s[own:]:
            keep_and_add(m, self.beta1, multiply(u, 1.0 - self.beta1, u))
            copyto(u, m)
        decay = {"in_update": alpha, "fixed": 1.0}.get(self.weight_decay_mode, 0.0) * self.weight_decay
        if decay:
            add(u, multiply(w, decay), u)

    def _second_moment(self, c: Sequence[Scalar], g: Array, s: Sequence[Array], axes: Axes | None) -> Array:
        """v of the tensor, in a new array, from its statistics, which go one update ahead."""
        take, keep = c[:2]
        eps1 = float(np.finfo(g.dtype).eps) if self.eps1 is None else self.eps1
        added, bound = (eps1, 0.0) if self.variant == "paper" else (0.0, eps1)
        squares = add(multiply(g, g), added)
        if axes is None:
            (v,) = s
            keep_and_add(v, keep, multiply(squares, take, squares))
            return maximum(v, max(bound * bound, TINY), out=squares)
        rows, columns = s
        doubles = squares.astype(np.float64)
        keep_and_add(rows, keep, multiply(_mean(doubles, axes[1], g), take))
        keep_and_add(columns, keep, multiply(_mean(doubles, axes[0], g), take))
        level = maximum(_mean(rows.astype(np.float64), axes[0], g), max(bound, TINY))
        multiply(divide(rows, level), columns, squares)
        return maximum(squares, max(bound * bound, TINY), out=squares)

    def _size(self, w: Array, lr: float) -> float:
        kept = 1.0 - lr * self.weight_decay if self.decay_first and self.weight_decay_mode == "decoupled" else 1.0
        return max(self.eps2, _rms(w) * abs(kept))


def _rms(x: Array) -> float:
    return math.sqrt(sum_of_squares(x.reshape(-1)) / x.size)


def _mean(doubles: Array, axis: int, like: Array) -> Array:
    """The mean over an axis, which stays, added in float64."""
    total: Array = add.reduce(doubles, axis=axis, keepdims=True)
    return divide(total, doubles.shape[axis]).astype(like.dtype)


def _rows_and_columns(shape: Shape, which: str, factor_from: int) -> Axes | None:
    """The axes of the rows and of the columns; None for a tensor that keeps its whole second moment."""
    if len(shape) < 2:
        return None
    axes = range(len(shape))
    rows, columns = sorted(axes, key=lambda axis: shape[axis])[-2:] if which == "largest" else axes[-2:]
    return (rows, columns) if min(shape[rows], shape[columns]) >= factor_from else None


@cache
def _statistics(which: str, factor_from: int) -> tuple[Slot, ...]:
    """The same three slots for the same form: what lies where in them is remembered by slot."""

    def without(place: int) -> Callable[[Shape], Shape | None]:
        def shape_of(shape: Shape) -> Shape | None:
            axes = _rows_and_columns(shape, which, factor_from)
            return axes and tuple(1 if axis == axes[place] else size for axis, size in enumerate(shape))

        return shape_of

    def whole(shape: Shape) -> Shape | None:
        return None if _rows_and_columns(shape, which, factor_from) else shape

    return (
        Slot("row_var", "r: mean square of each row", never_negative=True, shape=without(1)),
        Slot("col_var", "c: mean square of each column", never_negative=True, shape=without(0)),
        Slot("variance", "v: mean square, of tensors without rows", never_negative=True, shape=whole),
    )
