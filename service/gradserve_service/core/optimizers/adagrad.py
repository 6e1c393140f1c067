"""Adagrad: rates that fall with all gradients so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from numpy import add, divide, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .rule import TINY, Memory, Rule, Scalar, Slot, Sparse

__all__ = ["Adagrad"]


class Adagrad(specs.Adagrad, Rule):
    """A rate for each parameter, divided by the length of all its gradients so far.

        h <- h + g²                                     float32[N], sum; starts at `initial_accumulator_value`
        w <- w - lr' g / (sqrt(h) + eps)                lr' = lr / (1 + lr_decay (t - 1))

    `eps_in_sqrt` divides by sqrt(h + eps) instead, as Keras and optax do. Slots are written in place. With eps = 0 an
    element that never had a gradient stays where it is: 0 / 0 is taken as 0.

    The rate lr' / sqrt(h) of an element never rises. Under a constant gradient the t-th step is lr / sqrt(t).

    Source: Duchi, Hazan & Singer 2011, figure 1 (the diagonal form). Matches torch.optim.Adagrad.
    """

    sparse: ClassVar[Sparse] = "exact"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The sum of squares."""
        return (
            Slot("sum", "h: all squared gradients so far, added", self.initial_accumulator_value, never_negative=True),
        )

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, eps under and beside the root, and the gain."""
        inside, outside = (self.eps, 0.0) if self.eps_in_sqrt else (0.0, self.eps)
        return scale, inside, max(outside, TINY), lr / (1.0 + self.lr_decay * (t - 1)) * scale

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, inside, outside, gain = c
        (h,) = s
        multiply(g, scale, u)
        add(h, multiply(u, u, u), h)
        x = add(h, inside, u) if self.eps_in_sqrt else h
        add(sqrt(x, u), outside, u)
        multiply(divide(g, u, u), gain, u)

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """lr' / (sqrt(h) + eps), or lr' / sqrt(h + eps): it never rises while lr' does not."""
        (h,) = s
        gain = lr / (1.0 + self.lr_decay * (t - 1))
        return divide(gain, sqrt(h + self.eps) if self.eps_in_sqrt else sqrt(h) + self.eps)
