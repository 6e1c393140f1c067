"""Steps mixed from several means or directions: Adan, AdEMAMix and its simple form, the optimistic rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import add, copyto, divide, multiply, sign, sqrt, subtract

from gradserve import specs

from ..blocks import Array
from .adam import MOMENTS
from .rule import (
    TINY,
    Memory,
    Rule,
    Scalar,
    Slot,
    decaying_exponential,
    integer_power,
    keep_and_add,
    negative_logarithm,
)

__all__ = ["AdEMAMix", "Adan", "OptimisticAdam", "OptimisticGradientDescent", "SimplifiedAdEMAMix"]


class Adan(specs.Adan, Rule):
    """Adaptive Nesterov momentum.

        d = g - p,  0 where n = 0                       p <- g after it: float32[N], prev_grad
        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        v <- β2 v + (1 - β2) d                          float32[N], exp_avg_diff
        n <- β3 n + (1 - β3) (g + β2 d)²                float32[N], exp_avg_sq
        w <- w - lr (m / (1 - β1^t) + β2 v / (1 - β2^t)) / (sqrt(n / (1 - β3^t)) + eps)

    n = 0 is a weight that had no gradient yet. With r = sqrt(1 - β3^t), both gains get r and eps gets r.

    Source: Xie et al. 2022, Algorithm 1, and the authors' code (arXiv:2208.06677). optax.adan takes 1 - β2 for β2 in
    both places.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Three means and the gradient before."""
        difference = Slot("exp_avg_diff", "v: the decaying mean of differences of gradients")
        meaning = "n: the decaying mean of squares of gradients with their differences"
        square = Slot("exp_avg_sq", meaning, never_negative=True)
        return MOMENTS[0], difference, square, Slot("prev_grad", "p: the gradient before")

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, shares and decays of the means, eps, and the gains of m and v."""
        gain = lr * math.sqrt(1.0 - integer_power(self.beta3, t))
        of_m = gain / (1.0 - integer_power(self.beta1, t))
        of_v = gain * self.beta2 / (1.0 - integer_power(self.beta2, t))
        eps = max(self.eps * math.sqrt(1.0 - integer_power(self.beta3, t)), TINY)
        shares = 1.0 - self.beta1, self.beta1, 1.0 - self.beta2, self.beta2, math.sqrt(1.0 - self.beta3), self.beta3
        return scale, *shares, eps, of_m, of_v

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, take1, beta1, take2, beta2, take3, beta3, eps, of_m, of_v = c
        (m, v, n, p), (d,) = s, a
        multiply(g, scale, u)
        multiply(subtract(u, p, d), sign(n, p), d)
        copyto(p, u)
        keep_and_add(m, beta1, multiply(u, take1, u))
        add(multiply(d, beta2, u), p, u)
        multiply(u, take3, u)
        keep_and_add(n, beta3, multiply(u, u, u))
        keep_and_add(v, beta2, multiply(d, take2, d))
        add(multiply(m, of_m, u), multiply(v, of_v, d), u)
        divide(u, add(sqrt(n, d), eps, d), u)


class AdEMAMix(specs.AdEMAMix, Rule):
    """Adam with a fast and a slow mean.

        m1 <- β1 m1 + (1 - β1) g                        float32[N], exp_avg
        m2 <- β3(t) m2 + (1 - β3(t)) g                  float32[N], exp_avg_slow
        v  <- β2 v + (1 - β2) g²                        float32[N], exp_avg_sq
        w  <- w - lr (m1 / (1 - β1^t) + α(t) m2) / (sqrt(v / (1 - β2^t) + eps_root) + eps)

    The slow mean is not corrected: it is to fill slowly. α(t) = α min(1, t / T). β3(t) = e^-x with 1 / x going from
    that of β1 to that of β3, linear in t / T until T: then the half-life ln 2 / x does so too. Both T are fields.

    Source: Pagliardini et al. 2024, Algorithm 1 and appendix A.1 (arXiv:2409.03137). Matches optax.contrib.ademamix.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The two moments of Adam and the slow mean."""
        return MOMENTS[0], Slot("exp_avg_slow", "m2: the slow mean of the gradients"), MOMENTS[1]

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of the means, eps_root, eps, and the gains of m1 and m2."""
        c2, beta3 = 1.0 - integer_power(self.beta2, t), self._slow_decay(t)
        gain = lr * math.sqrt(c2)
        alpha = self.alpha * min(1.0, t / self.alpha_warmup) if self.alpha_warmup else self.alpha
        fast = (1.0 - self.beta1) * scale, self.beta1
        tail = self.eps_root * c2, max(self.eps * math.sqrt(c2), TINY), gain / (1.0 - integer_power(self.beta1, t))
        take2 = math.sqrt(1.0 - self.beta2) * scale
        return *fast, (1.0 - beta3) * scale, beta3, take2, self.beta2, *tail, gain * alpha

    def _slow_decay(self, t: int) -> float:
        if t >= self.beta3_warmup or min(self.beta1, self.beta3) == 0.0:
            return self.beta3
        first, last = 1.0 / negative_logarithm(self.beta1), 1.0 / negative_logarithm(self.beta3)
        return decaying_exponential(1.0 / (first + (last - first) * t / self.beta3_warmup))

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The folded lines of the class's formula, for one block."""
        take1, beta1, take3, beta3, take2, beta2, eps_root, eps, of_fast, of_slow = c
        (m1, m2, v), (x,) = s, a
        keep_and_add(m1, beta1, multiply(g, take1, u))
        keep_and_add(m2, beta3, multiply(g, take3, u))
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        add(multiply(m1, of_fast, u), multiply(m2, of_slow, x), u)
        divide(u, add(sqrt(add(v, eps_root, x), x), eps, x), u)


class SimplifiedAdEMAMix(specs.SimplifiedAdEMAMix, Rule):
    """A heavy ball and the gradient, over Adam's second moment.

        m <- β1 m + g                                   float32[N], velocity
        v <- β2 v + (1 - β2) g²                         float32[N], exp_avg_sq
        w <- w - lr (m + α g) / (sqrt(v / (1 - β2^t) + eps_root) + eps)

    Source: Morwani et al. 2025, section 4 (arXiv:2502.02431). Matches optax.contrib.simplified_ademamix.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The velocity and the second moment."""
        return Slot("velocity", "m: the gradients so far, decaying"), MOMENTS[1]

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, both decays, the share of a square, eps_root, eps, and the gains of m and g."""
        c2 = 1.0 - integer_power(self.beta2, t)
        gain, eps = lr * math.sqrt(c2), max(self.eps * math.sqrt(c2), TINY)
        take = math.sqrt(1.0 - self.beta2) * scale
        return scale, self.beta1, take, self.beta2, self.eps_root * c2, eps, gain, gain * self.alpha * scale

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The folded lines of the class's formula, for one block."""
        scale, beta1, take, beta2, eps_root, eps, of_m, of_g = c
        (m, v), (x,) = s, a
        keep_and_add(m, beta1, multiply(g, scale, u))
        multiply(g, take, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        add(multiply(m, of_m, u), multiply(g, of_g, x), u)
        divide(u, add(sqrt(add(v, eps_root, x), x), eps, x), u)


class OptimisticGradientDescent(specs.OptimisticGradientDescent, Rule):
    """Descent along this gradient and its difference to the one before.

        w <- w - lr ((α + β) g - β p)                   at the first update p = g
        p <- g                                          float32[N], prev_grad

    Source: Mokhtari, Ozdaglar & Pattathil 2020 (arXiv:1901.08511). Matches optax.optimistic_gradient_descent.
    """

    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The gradient before."""
        return (Slot("prev_grad", "p: the gradient before"),)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient and the gains of it and of the one before."""
        return scale, *_optimism(t, lr, self.alpha, self.beta)

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, now, before = c
        (p,), (x,) = s, a
        multiply(p, before, u)
        multiply(g, scale, p)
        subtract(multiply(p, now, x), u, u)


class OptimisticAdam(specs.OptimisticAdam, Rule):
    """Adam's direction and its difference to the one before.

        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        v <- β2 v + (1 - β2) g²                         float32[N], exp_avg_sq
        r = n / (sqrt(v / (1 - β2^t) + eps_root) + eps)
        w <- w - lr ((α + β) r - β p)                   at the first update p = r
        p <- r                                          float32[N], prev_step

    n = m / (1 - β1^t); with `nesterov` n = β1 m / (1 - β1^(t+1)) + (1 - β1) g / (1 - β1^t).

    Source: Daskalakis et al. 2018, Algorithm 1 (arXiv:1711.00141). Matches optax.optimistic_adam_v2.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The two moments of Adam and the direction before."""
        return *MOMENTS, Slot("prev_step", "p: the direction before")

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of the moments, eps_root, eps, the gains of m and g in r, those of r and p."""
        c1, c2 = 1.0 - integer_power(self.beta1, t), 1.0 - integer_power(self.beta2, t)
        r = math.sqrt(c2)
        of_m, of_g = r / c1, 0.0
        if self.nesterov:
            of_m = r * self.beta1 / (1.0 - integer_power(self.beta1, t + 1))
            of_g = r * (1.0 - self.beta1) / c1 * scale
        shares = (1.0 - self.beta1) * scale, self.beta1, math.sqrt(1.0 - self.beta2) * scale, self.beta2
        return (
            *shares,
            self.eps_root * c2,
            max(self.eps * r, TINY),
            of_m,
            of_g,
            *_optimism(t, lr, self.alpha, self.beta),
        )

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The folded lines of the class's formula, for one block."""
        take1, beta1, take2, beta2, eps_root, eps, of_m, of_g, now, before = c
        (m, v, p), (x,) = s, a
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        multiply(m, of_m, u)
        if self.nesterov:
            add(u, multiply(g, of_g, x), u)
        divide(u, add(sqrt(add(v, eps_root, x), x), eps, x), x)
        multiply(p, before, u)
        copyto(p, x)
        subtract(multiply(x, now, x), u, u)


def _optimism(t: int, lr: float, alpha: float, beta: float) -> tuple[float, float]:
    """What stands before this direction and before the last."""
    return (lr * alpha, 0.0) if t == 1 else (lr * (alpha + beta), lr * beta)


FAMILY = (Adan, AdEMAMix, SimplifiedAdEMAMix, OptimisticGradientDescent, OptimisticAdam)
