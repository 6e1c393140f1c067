"""Stochastic gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy import add, multiply

from gradserve import specs

from ..blocks import Array
from .rule import Memory, Rule, Scalar, Slot, Sparse, keep_and_add

__all__ = ["NoisySgd", "Sgd"]

VELOCITY = (Slot("velocity", "b or v: the gradients so far, decaying; with lr_in_momentum times -lr"),)


class Sgd(specs.Sgd, Rule):
    """Gradient descent; a velocity with momentum μ; Nesterov's look-ahead.

        w <- w - lr g                                                 without momentum

        b <- μ b + (1 - dampening) g          velocity, float32[N]; b <- g at the first update, as in torch
        w <- w - lr b                         or  w - lr (g + μ b)  with `nesterov`

        v <- μ v - lr g                       with `lr_in_momentum`, the form of Keras and of textbooks
        w <- w + v                            or  w + μ v - lr g    with `nesterov`

    Both forms walk the same way at a constant lr, with v = -lr b; when lr changes, the second keeps the old one in the
    velocity.

    Source: Polyak 1964; Sutskever et al. 2013, section 2. Matches torch.optim.SGD, keras.optimizers.SGD with
    `lr_in_momentum`.
    """

    sparse: ClassVar[Sparse] = "exact"
    momentum_field: ClassVar[str | None] = "momentum"
    forms: ClassVar[tuple[Mapping[str, Any], ...]] = ({"momentum": 0.9},)
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """A velocity if there is momentum."""
        return VELOCITY if self.momentum else ()

    @property
    def sparse_as_set(self) -> Sparse:
        """With momentum every weight goes on along its velocity."""
        return "lazy" if self.momentum else "exact"

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """lr and factor of the gradient; what the velocity takes of it; μ; what a step takes of the velocity."""
        take = scale if t == 1 else scale * (1.0 - self.dampening)
        inside, outside = (-lr, -1.0) if self.lr_in_momentum else (1.0, lr)
        ahead = outside * self.momentum if self.nesterov else outside
        return lr * scale, take * inside, self.momentum, ahead

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        step, take, mu, out = c
        if not s:
            multiply(g, step, u)
            return
        (b,) = s
        keep_and_add(b, mu, multiply(g, take, u))
        multiply(b, out, u)
        if self.nesterov:
            add(u, multiply(g, step, a[0]), u)


class NoisySgd(specs.NoisySgd, Rule):
    """Gradient descent on a gradient with noise.

        w <- w - lr (g + sqrt(eta / t^gamma) n)         n of mean 0 and variance 1

    The noise is there already when the rule is asked: `stages` of its spec, done with those of `clip`, after them.

    Source: Neelakantan et al. 2015, eq. 1 (arXiv:1511.06807). Matches optax.noisy_sgd in distribution.
    """

    @property
    def slots(self) -> tuple[Slot, ...]:
        """None."""
        return ()

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """lr and factor of the gradient."""
        return (lr * scale,)

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """lr g."""
        multiply(g, c[0], u)
