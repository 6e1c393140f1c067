"""RMSprop: gradients over the root of their recent mean square."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy import add, copyto, divide, maximum, multiply, sqrt, subtract

from gradserve import specs

from ..blocks import Array
from .rule import TINY, Memory, Rule, Scalar, Slot, Sparse, integer_power, keep_and_add

__all__ = ["RmsProp"]


class RmsProp(specs.RmsProp, Rule):
    """A rate for each parameter, divided by the size of its recent gradients.

        v <- α v + (1 - α) g²                           float32[N], square_avg; starts at `initial_accumulator_value`
        a <- α a + (1 - α) g                            float32[N], grad_avg, with `centered`
        x  = v,  or max(v - a², 0) with `centered`
        d  = g / (sqrt(x) + eps),  or g / sqrt(x + eps) with `eps_in_sqrt`, as in Keras and optax

        w <- w - lr d                                   without momentum
        b <- μ b + d;     w <- w - lr b                 float32[N], velocity; or w - lr (d + μ b) with `nesterov`
        b <- μ b + lr d;  w <- w - b                    with `lr_in_momentum`; or w - lr d - μ b with `nesterov`

    `bias_correction` divides v and a by 1 - α^t. Folded, with r = sqrt(1 - α^t): d = g r / (sqrt(v - (a/r)²) + eps r).
    The clip factor k of the gradient sits in (sqrt(1 - α) k g)². The variance is kept from falling below 0, where
    torch's becomes NaN after a thousand equal gradients.

    Source: Tieleman & Hinton 2012, lecture 6e; centered: Graves 2013, eq. 38-45 (arXiv:1308.0850). Matches
    torch.optim.RMSprop; with `compat: keras` keras.optimizers.RMSprop.
    """

    sparse: ClassVar[Sparse] = "lazy"
    momentum_field: ClassVar[str | None] = "momentum"
    forms: ClassVar[tuple[Mapping[str, Any], ...]] = ({"centered": True}, {"momentum": 0.9})
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The mean square; the mean if centered; a velocity if there is momentum."""
        mean = (Slot("grad_avg", "a: the decaying mean of the gradients"),) if self.centered else ()
        velocity = (Slot("velocity", "b: the changes so far, decaying"),) if self.momentum else ()
        square = Slot(
            "square_avg",
            "v: the decaying mean of the squared gradients",
            self.initial_accumulator_value,
            never_negative=True,
        )
        return (square, *mean, *velocity)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares of the means, 1/r, eps under and beside the root, the gain of d, μ, and lr outside the velocity."""
        r = math.sqrt(1.0 - integer_power(self.alpha, t)) if self.bias_correction else 1.0
        inside, outside = (self.eps * r * r, 0.0) if self.eps_in_sqrt else (0.0, self.eps * r)
        take, take_root = (1.0 - self.alpha) * scale, math.sqrt(1.0 - self.alpha) * scale
        gain, after = (lr, 1.0) if self.lr_in_momentum else (1.0, lr)
        tail = (gain * scale * r, self.momentum, after)
        return take_root, self.alpha, take, 1.0 / r, inside, max(outside, TINY), *tail

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        take_root, alpha, take, per_r, inside, outside, gain, mu, after = c
        x, velocity = s[0], s[1 + self.centered :]  # a schedule may bring a momentum to a rule without velocity
        multiply(g, take_root, u)
        keep_and_add(x, alpha, multiply(u, u, u))
        if self.centered:
            keep_and_add(s[1], alpha, multiply(g, take, u))
            multiply(s[1], per_r, u)
            x = maximum(subtract(x, multiply(u, u, u), u), 0.0, out=u)
        if self.eps_in_sqrt:
            x = add(x, inside, u)
        add(sqrt(x, u), outside, u)
        multiply(divide(g, u, u), gain, u)
        for b in velocity:
            keep_and_add(b, mu, u)
            add(u, multiply(b, mu, a[0]), u) if self.nesterov else copyto(u, b)
        multiply(u, after, u)

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """lr / (sqrt(x) + eps), or lr / sqrt(x + eps)."""
        correction = 1.0 - integer_power(self.alpha, t) if self.bias_correction else 1.0
        x = s[0] / correction
        if self.centered:
            x = maximum(x - (s[1] / correction) ** 2, 0.0)
        return divide(lr, sqrt(x + self.eps) if self.eps_in_sqrt else sqrt(x) + self.eps)
