"""Shampoo: a matrix of rates for each axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy import add, copyto, multiply

from gradserve import specs

from ..blocks import Array, sum_of_squares
from .axes import along_each, by_axis, inverse_root, matrix_slot, outer
from .kinds import ShapedRule
from .lamb import trust_ratio
from .rule import Memory, Scalar, Slot, keep_and_add

__all__ = ["Shampoo"]

VELOCITY = Slot("velocity", "m: the decaying sum of the steps")


class Shampoo(specs.Shampoo, ShapedRule):
    """The gradient, along each axis times a root of the inverse of what that axis has seen.

        L_i <- L_i + G(i) G(i)ᵀ                         n_i × n_i, statistics (without the ε I that it begins with)
        P_i = (L_i + ε I)^(-1 / 2r)                     n_i × n_i, preconditioners; r axes have one
        u = G × P_1 × P_2 …                             ‖G‖ / ‖u‖ times that with `grafting: sgd`
        w <- w - lr u                                   or m <- μ m + u; w <- w - lr m, float32[N], velocity

    G(i) is the tensor as a matrix with axis i in front. Roots are taken at a tensor's first gradient and every
    `precondition_frequency` updates, in float64.

    Source: Gupta et al. 2018, Algorithm 2 (arXiv:1802.09568). Matches pytorch_optimizer.Shampoo without momentum:
    there the momentum mixes the gradient with the step before, and is in the statistics.
    """

    momentum_field: ClassVar[str | None] = "momentum"
    forms: ClassVar[tuple[Mapping[str, Any], ...]] = ({"momentum": 0.9},)
    every_machine: ClassVar[bool] = False

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Statistics and their roots, one matrix an axis; a sum of steps if there is momentum."""
        matrices = (
            matrix_slot("statistics", "L: sums of G Gᵀ along each axis", self.max_preconditioner_dim, 1),
            matrix_slot("preconditioners", "P: inverse roots of the statistics", self.max_preconditioner_dim, 1),
        )
        return (*matrices, *((VELOCITY,) if self.momentum else ()))

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Whether roots are due (1 or 0), lr."""
        return float(t % self.precondition_frequency == 0), lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one tensor."""
        due, lr = c
        has_matrices = any(n <= self.max_preconditioner_dim for n in g.shape)
        if has_matrices:
            statistics, roots = (by_axis(vector, g.shape, self.max_preconditioner_dim) for vector in s[:2])
            for axis, statistic in statistics.items():
                add(statistic, outer(g, axis), statistic)
                if due or not roots[axis][0, 0]:
                    self._take_root(statistic, roots[axis], 2 * len(roots))
            copyto(u, along_each(g, roots))
        else:
            copyto(u, g)
        if self.grafting == "sgd":
            multiply(u, trust_ratio(_norm(g), _norm(u)), u)
        for m in s[2 if has_matrices else 0 :]:
            keep_and_add(m, self.momentum, u)
            copyto(u, m)
        multiply(u, lr, u)

    def _take_root(self, statistic: Array, root: Array, exponent: int) -> None:
        """The old root stays where the statistics have grown over all numbers."""
        begun = statistic.astype(np.float64)
        begun.flat[:: begun.shape[0] + 1] += self.eps
        found = inverse_root(begun, exponent, self.eps)
        if found is not None:
            copyto(root, found, casting="same_kind")


def _norm(x: Array) -> float:
    return math.sqrt(sum_of_squares(x.reshape(-1)))
