"""SOAP: Adam in the eigenbasis of Shampoo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy import add, copyto, divide, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .adam import MOMENTS
from .axes import Matrices, along_each, by_axis, eigenbasis, matrix_slot, next_eigenbasis, outer
from .kinds import ShapedRule
from .rule import TINY, Memory, Scalar, Slot, integer_power, keep_and_add

__all__ = ["Soap"]


class Soap(specs.Soap, ShapedRule):
    """Adam in coordinates that turn with the statistics of each axis.

        L_i <- β L_i + (1 - β) G(i) G(i)ᵀ               n_i × n_i, statistics, after the step
        Q_i: eigenvectors of the first L_i              n_i × n_i, eigenbasis; QR(L_i Q_i) every ten updates
        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        v <- β2 v + (1 - β2) (g in Q)²                  float32[N], exp_avg_sq; in the eigenbasis
        u = (m in Q) / (sqrt(v) + ε), turned back
        w <- (w - lr sqrt(1 - β2^k) / (1 - β1^k) u) (1 - lr λ)          k = t - 1

    The first update, and a tensor's first gradient, only begin L and Q. Decompositions are in float64. With a new
    basis v goes to the new places of the old directions.

    Source: Vyas et al. 2024, Algorithm 3 (arXiv:2409.11321), in the form of its authors' code. Matches
    pytorch_optimizer.SOAP.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    every_machine: ClassVar[bool] = False

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The moments of Adam; statistics and basis, one matrix an axis."""
        form = (self.max_preconditioner_dim, 1 if self.precondition_vectors else 2)
        return (
            *MOMENTS,
            matrix_slot("statistics", "L: decaying means of G Gᵀ along each axis", *form),
            matrix_slot("eigenbasis", "Q: the basis of each axis that v is in", *form),
        )

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Whether this is the first update and whether a basis is due (1 or 0), gain, lr."""
        gain, k = lr, t - 1
        if self.bias_correction and k:
            root = math.sqrt(1.0 - integer_power(self.beta2, k))
            gain *= root / (1.0 - integer_power(self.beta1, k))
        return float(k == 0), float(k % self.precondition_frequency == 0), gain, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one tensor."""
        first, due, gain, lr = c
        m, v, *vectors = s
        statistics, basis = [by_axis(x, g.shape, self.max_preconditioner_dim) for x in vectors] or ({}, {})
        begins = any(not matrix.any() for matrix in basis.values())
        if first or begins:
            copyto(u, 0.0)
        else:
            self._step(g, m, v, basis, u)
            multiply(u, gain, u)
            if self.weight_decay_mode == "after_step":
                decay = float(lr) * self.weight_decay
                add(multiply(u, 1.0 - decay, u), multiply(w, decay), u)
        beta = self.beta2 if self.shampoo_beta is None else self.shampoo_beta
        for axis, statistic in statistics.items():
            keep_and_add(statistic, beta, multiply(outer(g, axis), 1.0 - beta))
            if begins:
                _begin(statistic, basis[axis])
            elif due:
                _turn(statistic, basis[axis], v, axis)

    def _step(self, g: Array, m: Array, v: Array, basis: Matrices, u: Array) -> None:
        """u, turned back; the moments go one update ahead."""
        turned = along_each(g, basis)
        keep_and_add(m, self.beta1, multiply(g, 1.0 - self.beta1, u))
        keep_and_add(v, self.beta2, multiply(multiply(turned, 1.0 - self.beta2), turned))
        size = add(sqrt(v), max(self.eps, TINY))
        copyto(u, along_each(divide(along_each(m, basis), size), basis, back=True))


def _begin(statistic: Array, basis: Array) -> None:
    found = eigenbasis(statistic)
    if found is not None:  # else at the tensor's next gradient
        copyto(basis, found, casting="same_kind")


def _turn(statistic: Array, basis: Array, v: Array, axis: int) -> None:
    found = next_eigenbasis(statistic, basis)
    if found is not None:  # else the old basis stays
        following, order = found
        copyto(basis, following, casting="same_kind")
        copyto(v, np.take(v, order, axis=axis))
