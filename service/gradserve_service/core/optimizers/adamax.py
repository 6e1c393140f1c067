"""Adamax: Adam by the infinity norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from numpy import absolute, add, divide, maximum, multiply

from gradserve import specs

from ..blocks import Array
from .rule import TINY, Memory, Rule, Scalar, Slot, Sparse, integer_power, keep_and_add

__all__ = ["Adamax"]

MOMENTS = (
    Slot("exp_avg", "m: first moment, the decaying mean of the gradients"),
    Slot("exp_inf", "n: the largest gradient, decaying", never_negative=True),
)


class Adamax(specs.Adamax, Rule):
    """Adam with a decaying maximum in the place of the second moment.

        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        n <- max(β2 n, |g| + eps)                       float32[N], exp_inf
        w <- w - [lr / (1 - β1^t)] m / n

    The maximum needs no correction for its start at zero. `eps_in_max: false` is Keras' form: n <- max(β2 n, |g|), and
    m / (n + eps). With eps = 0 an element that never had a gradient stays where it is: 0 / 0 is taken as 0.

    Source: Kingma & Ba 2015, Algorithm 2 (arXiv:1412.6980). Matches torch.optim.Adamax.
    """

    sparse: ClassVar[Sparse] = "lazy"
    momentum_field: ClassVar[str | None] = "beta1"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The first moment and the largest gradient."""
        return MOMENTS

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Share and decay of the moment, factor of the gradient, decay of the maximum, eps in and after it, gain."""
        inside, after = (self.eps, 0.0) if self.eps_in_max else (0.0, self.eps)
        gain = lr / (1.0 - integer_power(self.beta1, t))
        return (1.0 - self.beta1) * scale, self.beta1, scale, self.beta2, inside, max(after, TINY), gain

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        take, beta1, scale, beta2, inside, after, gain = c
        m, n = s
        keep_and_add(m, beta1, multiply(g, take, u))
        absolute(multiply(g, scale, u), u)
        if self.eps_in_max:
            add(u, inside, u)
        maximum(multiply(n, beta2, n), u, out=n)
        divide(m, add(n, after, u), u)
        multiply(u, gain, u)

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """lr / n, or lr / (n + eps)."""
        return divide(lr, s[1] if self.eps_in_max else s[1] + self.eps)
