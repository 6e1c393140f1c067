"""Adadelta: steps as long as recent steps, per recent gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import add, divide, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .rule import Memory, Rule, Scalar, Slot, Sparse, keep_and_add

__all__ = ["Adadelta"]


class Adadelta(specs.Adadelta, Rule):
    """Steps in the units of the weights.

        v <- ρ v + (1 - ρ) g²                           float32[N], square_avg
        d = sqrt(a + eps) / sqrt(v + eps) g
        a <- ρ a + (1 - ρ) d²                           float32[N], acc_delta
        w <- w - lr d

    Source: Zeiler 2012, Algorithm 1 (arXiv:1212.5701). Matches torch.optim.Adadelta.
    """

    sparse: ClassVar[Sparse] = "lazy"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The mean squares of gradients and of steps."""
        steps = Slot("acc_delta", "a: the decaying mean of the squared steps, before lr", never_negative=True)
        return Slot("square_avg", "v: the decaying mean of the squared gradients", never_negative=True), steps

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, the root of what a square adds, decay, eps and lr."""
        return scale, math.sqrt(1.0 - self.rho), self.rho, self.eps, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, take, rho, eps, lr = c
        (v, steps), (x,) = s, a
        multiply(multiply(g, scale, u), take, x)
        keep_and_add(v, rho, multiply(x, x, x))
        divide(u, sqrt(add(v, eps, x), x), u)
        multiply(u, sqrt(add(steps, eps, x), x), u)
        multiply(u, take, x)
        keep_and_add(steps, rho, multiply(x, x, x))
        multiply(u, lr, u)
