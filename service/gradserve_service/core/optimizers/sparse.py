"""Rules for gradients of some rows of a table: SparseAdam, row-wise Adagrad and Adam."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy import add, divide, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .adam import AdaptiveMoments
from .kinds import ShapedRule
from .rule import TINY, Memory, Rule, Scalar, Shape, Slot, Sparse, integer_power, keep_and_add

__all__ = ["FAMILY", "RowwiseAdagrad", "RowwiseAdam", "SparseAdam"]


class SparseAdam(specs.SparseAdam, AdaptiveMoments):
    """Adam on the rows that came; the others keep weights and moments.

        m <- β1 m + (1 - β1) g                  first moment,  float32[N]   exp_avg
        v <- β2 v + (1 - β2) g²                 second moment, float32[N]   exp_avg_sq
        w <- w - lr sqrt(1 - β2^t) / (1 - β1^t) m / (sqrt(v) + eps)

    t counts the run's updates, whatever rows came. A tensor that comes whole is one of which all rows came.

    Source: Kingma & Ba 2015, section 2 (arXiv:1412.6980). Matches torch.optim.SparseAdam.
    """

    sparse: ClassVar[Sparse] = "own"
    eps_hat: ClassVar[bool] = True
    eps_root: ClassVar[float] = 0.0
    bias_correction: ClassVar[bool] = True
    amsgrad: ClassVar[bool] = False
    amsgrad_corrected: ClassVar[bool] = False
    forms: ClassVar[tuple[Mapping[str, Any], ...]] = ()


def _a_row_each(shape: Shape) -> Shape:
    """One number for each row; a vector's elements are its rows, and a scalar is one."""
    return shape[:1] or (1,)


class _RowwiseRule(ShapedRule):
    """What the row-wise rules share: the mean square of a row's gradient."""

    @staticmethod
    def mean_squares(g: Array) -> Array:
        """Σ g² / D of each row, added in float64. Squares are taken in the gradient's dtype, as everywhere."""
        rows = g.reshape(g.shape[0], -1)
        squares = multiply(rows, rows).astype(np.float64)
        means: Array = (add.reduce(squares, axis=1) / max(rows.shape[1], 1)).astype(g.dtype)
        return means

    @staticmethod
    def beside(rows: Array, g: Array) -> Array:
        """One number a row, in a shape that spreads over the gradient's."""
        return rows.reshape(-1, *(1,) * (g.ndim - 1))


class RowwiseAdagrad(specs.RowwiseAdagrad, _RowwiseRule):
    """Adagrad with one accumulator a row.

        h_r <- h_r + Σ g² / D over the row      float32[R], sum
        w_r <- w_r - lr / (sqrt(h_r) + eps) g_r

    With rows of one element it is `Adagrad`. A row without a gradient stays where it is.

    Source: Mudigere et al. 2021, section 4.1.3 (arXiv:2104.05158). Matches FBGEMM's exact_row_wise_adagrad.
    """

    sparse: ClassVar[Sparse] = "exact"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """One sum a row."""
        meaning = "h: the mean squares of a row's gradients so far, added"
        return (Slot("sum", meaning, never_negative=True, shape=_a_row_each),)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """eps and lr."""
        return max(self.eps, TINY), lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one tensor."""
        eps, lr = c
        (h,) = s
        add(h, self.mean_squares(g), h)
        rates = divide(lr, add(sqrt(h), eps))
        multiply(g, self.beside(rates, g), u)


class RowwiseAdam(specs.RowwiseAdam, _RowwiseRule):
    """Adam with one second moment a row.

        m <- β1 m + (1 - β1) g                          first moment,  float32[N]   exp_avg
        v_r <- β2 v_r + (1 - β2) Σ g² / D over the row  second moment, float32[R]   exp_avg_sq
        w_r <- w_r - lr (m_r / (1 - β1^t)) / (sqrt(v_r / (1 - β2^t)) + eps)

    With rows of one element it is `Adam`.

    Source: Kingma & Ba 2015 (arXiv:1412.6980). Matches FBGEMM's partial_row_wise_adam.
    """

    sparse: ClassVar[Sparse] = "lazy"
    momentum_field: ClassVar[str | None] = "beta1"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The first moment, and one second moment a row."""
        meaning = "v: second moment of a row, the decaying mean of its mean squares"
        return (
            Slot("exp_avg", "m: first moment, the decaying mean of the gradients"),
            Slot("exp_avg_sq", meaning, never_negative=True, shape=_a_row_each),
        )

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of the moments, eps times the root of the second correction, the gain."""
        r = math.sqrt(1.0 - integer_power(self.beta2, t))
        gain = lr * r / (1.0 - integer_power(self.beta1, t))
        return 1.0 - self.beta1, self.beta1, 1.0 - self.beta2, self.beta2, max(self.eps * r, TINY), gain

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, folded as `Adam`'s, for one tensor."""
        take1, beta1, take2, beta2, eps, gain = c
        m, v = s
        keep_and_add(m, beta1, multiply(g, take1, u))
        keep_and_add(v, beta2, multiply(self.mean_squares(g), take2))
        rates = divide(gain, add(sqrt(v), eps))
        multiply(m, self.beside(rates, g), u)


FAMILY: tuple[type[Rule], ...] = (SparseAdam, RowwiseAdagrad, RowwiseAdam)
