"""Nadam: Adam that looks ahead along its first moment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from numpy import add, divide, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .rule import TINY, Memory, Rule, Scalar, Slot, decaying_exponential, integer_power, keep_and_add

__all__ = ["Nadam"]

MOMENTS = (
    Slot("exp_avg", "m: first moment, the decaying mean of the gradients"),
    Slot("exp_avg_sq", "v: second moment, the decaying mean of their squares", never_negative=True),
)
RATE: Final = 0.040821994520255166  # -ln 0.96: Dozat's 0.96^x is e^(-RATE x)


class Nadam(specs.Nadam, Rule):
    """Adam with Nesterov's look-ahead, and a momentum that rises as the run goes on.

        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        v <- β2 v + (1 - β2) g²                         float32[N], exp_avg_sq
        μ(t) = β1 (1 - 0.96^(t ψ) / 2)                  ψ = momentum_decay
        P <- P μ(t)                                     one double a run, mu_product; starts at 1
        n  = (1 - μ(t)) / (1 - P) g + μ(t+1) / (1 - P μ(t+1)) m
        w <- w - lr n / (sqrt(v / (1 - β2^t)) + eps)

    `variant: constant` has μ(t) = β1 throughout, in optax' form: n = (1 - β1) / (1 - β1^t) g + β1 / (1 - β1^(t+1)) m.
    Folded as in `Adam`: with r = sqrt(1 - β2^t) the last line is  w <- w - lr r n / (sqrt(v) + eps r).

    Source: Dozat 2016, Algorithm 2. Matches torch.optim.NAdam; ψ = 1 keras.optimizers.Nadam.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The two moments of Adam."""
        return MOMENTS

    @property
    def memory(self) -> Mapping[str, float]:
        """The product of all μ so far."""
        return {} if self.variant == "constant" else {"mu_product": 1.0}

    def advance(self, t: int, lr: float, memory: Memory) -> None:
        """P."""
        if self.variant != "constant":
            memory["mu_product"] *= self._momentum_at(t)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of the moments, eps, and the gains of g and m."""
        now = ahead = self.beta1
        if self.variant == "constant":
            product = integer_power(self.beta1, t)
        else:
            now, ahead = self._momentum_at(t), self._momentum_at(t + 1)
            product = memory["mu_product"]
        r = math.sqrt(1.0 - integer_power(self.beta2, t))
        take1, take2 = (1.0 - self.beta1) * scale, math.sqrt(1.0 - self.beta2) * scale
        gains = lr * r * (1.0 - now) / (1.0 - product) * scale, lr * r * ahead / (1.0 - product * ahead)
        return take1, self.beta1, take2, self.beta2, max(self.eps * r, TINY), *gains

    def _momentum_at(self, t: int) -> float:
        return self.beta1 * (1.0 - 0.5 * decaying_exponential(RATE * self.momentum_decay * t))

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The folded lines of the class's formula, for one block."""
        take1, beta1, take2, beta2, eps, of_g, of_m = c
        m, v = s
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        multiply(g, of_g, u)
        add(u, multiply(m, of_m, a[0]), u)
        add(sqrt(v, a[0]), eps, a[0])
        divide(u, a[0], u)

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """lr / (sqrt(v / (1 - β2^t)) + eps)."""
        return divide(lr, sqrt(s[1] / (1.0 - integer_power(self.beta2, t))) + self.eps)
