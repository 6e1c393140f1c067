"""Rates found while training, from how far the solution must be: D-Adaptation of SGD and Adam, Prodigy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from numpy import absolute, add, copyto, divide, multiply, sqrt, subtract

from gradserve import specs

from ..blocks import Array
from .adam import MOMENTS
from .distances import ORIGIN
from .kinds import GroupSums, Total, WholeRunRule, over_run
from .rule import TINY, Memory, Scalar, Slot, integer_power, keep_and_add

__all__ = ["DAdaptAdam", "DAdaptSgd", "Prodigy"]

SUM = Slot("s", "s: all gradients so far, weighted and added")


class _Adaptation(WholeRunRule):
    """What the three share: d, one double a run, a lower bound of the distance to the solution. It never falls.

    All sums are over the run. A group's lr is a factor on d for the group.
    """

    if TYPE_CHECKING:
        d0: float
        growth_rate: float | None

    @property
    def memory(self) -> Mapping[str, float]:
        """d, and the numerator of the quotient that it is found by."""
        return {"d": self.d0, "d_numerator": 0.0}

    def grown(self, d: float) -> float:
        """The most that d may be after this update."""
        return math.inf if self.growth_rate is None else d * self.growth_rate


class DAdaptSgd(specs.DAdaptSgd, _Adaptation):
    """SGD with D-Adaptation.

        k = d lr / ‖g1‖                                 g1: the first gradient; ‖g1‖ is one double a run
        n <- n + k <g, s>                               d_numerator
        s <- s + k g                                    float32[N], s
        d <- max(d, min(2 n / ‖s‖, d growth_rate))
        w <- μ w + (1 - μ) (w0 - s)                     w0 is a slot, x0

    ‖s‖² after its step is ‖s‖² + 2 k <g, s> + k² ‖g‖² of before, so that one sweep finds all sums. While every gradient
    was 0 nothing moves.

    Source: Defazio & Mishchenko 2023, Algorithm 4 (arXiv:2301.07733), and the authors' code. Matches
    dadaptation.DAdaptSGD.
    """

    momentum_field: ClassVar[str | None] = "momentum"
    scratch_blocks: ClassVar[int] = 1
    sums: ClassVar[int] = 3

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The weighted sum and where training began."""
        return SUM, ORIGIN

    @property
    def memory(self) -> Mapping[str, float]:
        """d, n and ‖g1‖."""
        return {**super().memory, "first_norm": 0.0}

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """1 - μ."""
        return (1.0 - self.momentum,)

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The gradient itself."""
        copyto(u, g)

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """<g, s>, ‖s‖², ‖g‖²."""
        x, sums = a[0], s[0]
        return total(multiply(g, sums, x)), total(multiply(sums, sums, x)), total(multiply(g, g, x))

    def of_run(
        self, t: int, groups: Sequence[GroupSums], memory: Memory, loss: float | None
    ) -> Sequence[tuple[float, ...]]:
        """k of each group."""
        memory["first_norm"] = memory["first_norm"] or math.sqrt(over_run(groups)[2])
        d, size = memory["d"], 0.0
        steps = [d * group.lr / memory["first_norm"] if memory["first_norm"] else 0.0 for group in groups]
        for step, group in zip(steps, groups, strict=True):
            along, before, gradient = group.sums
            memory["d_numerator"] += step * along
            size += before + 2.0 * step * along + step * step * gradient
        if size > 0.0:
            memory["d"] = max(d, min(2.0 * memory["d_numerator"] / math.sqrt(size), self.grown(d)))
        return [(step,) for step in steps]

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """s, and (1 - μ) (w - w0 + s)."""
        sums, start = s
        add(sums, multiply(u, r[0], u), sums)
        multiply(add(subtract(w, start, u), sums, u), c[0], u)


class _AdaptedAdam(_Adaptation):
    """What Prodigy and D-Adaptation of Adam share: the factor of the rate, b d lr, with b from Adam's corrections."""

    if TYPE_CHECKING:
        beta1: float
        beta2: float
        eps: float
        bias_correction: bool

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1
    sums: ClassVar[int] = 2

    def decay_rate(self, t: int, lr: float, memory: Memory) -> float:
        """k = b d lr, with b = sqrt(1 - β2^t) / (1 - β1^t), or 1 without bias_correction."""
        rate = memory["d"] * lr
        if self.bias_correction:
            rate *= math.sqrt(1.0 - integer_power(self.beta2, t)) / (1.0 - integer_power(self.beta1, t))
        return rate


class DAdaptAdam(specs.DAdaptAdam, _AdaptedAdam):
    """Adam with D-Adaptation.

        k = b d lr,  β3 = sqrt(β2)                      b: see `_AdaptedAdam`
        n <- β3 n + (1 - β3) k <g, s / (sqrt(v) + eps)> d_numerator; s and v of before
        m <- β1 m + (1 - β1) k g                        float32[N], exp_avg
        v <- β2 v + (1 - β2) g²                         float32[N], exp_avg_sq
        s <- β3 s + (1 - β3) k g                        float32[N], s
        d <- max(d, min(n / ((1 - β3) Σ|s|), d growth_rate))
        w <- w - m / (sqrt(v) + eps)

    Decoupled decay takes k λ.

    Source: Defazio & Mishchenko 2023, Algorithm 5 (arXiv:2301.07733), and the authors' code. Matches
    dadaptation.DAdaptAdam; with bias_correction optax.contrib.dadapt_adamw.
    """

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Adam's moments, the first of them with the rate inside, and the weighted sum."""
        return *MOMENTS, SUM

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of m, v and s, and eps."""
        rate, beta3 = self.decay_rate(t, lr, memory), math.sqrt(self.beta2)
        take1, take2, take3 = (1.0 - self.beta1) * rate, math.sqrt(1.0 - self.beta2), (1.0 - beta3) * rate
        return take1, self.beta1, take2, self.beta2, take3, beta3, max(self.eps, TINY)

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """g s / (sqrt(v) + eps) of before, then m, v and s."""
        take1, beta1, take2, beta2, take3, beta3, eps = c
        (m, v, sums), (x,) = s, a
        multiply(g, divide(sums, add(sqrt(v, u), eps, u), u), u)
        keep_and_add(m, beta1, multiply(g, take1, x))
        multiply(g, take2, x)
        keep_and_add(v, beta2, multiply(x, x, x))
        keep_and_add(sums, beta3, multiply(g, take3, x))

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """The product of before, and the sizes of s now."""
        return total(u), total(absolute(s[2], a[0]))

    def of_run(
        self, t: int, groups: Sequence[GroupSums], memory: Memory, loss: float | None
    ) -> Sequence[tuple[float, ...]]:
        """Nothing that differs between groups."""
        d, beta3, along, size = memory["d"], math.sqrt(self.beta2), 0.0, over_run(groups)[1]
        for group in groups:
            along += self.decay_rate(t, group.lr, memory) * group.sums[0]
        memory["d_numerator"] = beta3 * memory["d_numerator"] + (1.0 - beta3) * along
        if size > 0.0:
            found = memory["d_numerator"] / ((1.0 - beta3) * size)
            memory["d"] = max(d, min(found, self.grown(d)))
        return [() for _ in groups]

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """m / (sqrt(v) + eps)."""
        divide(s[0], add(sqrt(s[1], u), c[-1], u), u)


class Prodigy(specs.Prodigy, _AdaptedAdam):
    """Adam with the rate of Prodigy.

        k = b d lr,  β3 = `beta3`, or sqrt(β2)          b: see `_AdaptedAdam`
        n <- β3 n + (d / d0) k <g, w0 - w>              d_numerator; w0 is a slot, x0
        m <- β1 m + (1 - β1) d g                        float32[N], exp_avg
        v <- β2 v + (1 - β2) d² g²                      float32[N], exp_avg_sq
        s <- β3 s + (d / d0) k g                        float32[N], s; d in the place of k with safeguard_warmup
        D = d_coef n / Σ|s|;  e = max(d, D) if d = d0, else d;  d_max <- max(d_max, D);  d' = min(d_max, e growth_rate)
        w <- w - k m / (sqrt(v) + d' eps)
        d <- d'

    Decoupled decay takes k λ.

    Source: Mishchenko & Defazio 2024, Algorithm 4 (arXiv:2306.06101), and the authors' code. Matches
    prodigyopt.Prodigy; with bias_correction optax.contrib.prodigy.
    """

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Adam's moments with d inside, the weighted sum, and where training began."""
        return *MOMENTS, SUM, ORIGIN

    @property
    def memory(self) -> Mapping[str, float]:
        """d, n, and the largest D so far."""
        return {**super().memory, "d_max": self.d0}

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of m, v and s."""
        d = memory["d"]
        rate = d if self.safeguard_warmup else self.decay_rate(t, lr, memory)
        moments = (1.0 - self.beta1) * d, self.beta1, math.sqrt(1.0 - self.beta2) * d, self.beta2
        return *moments, d / self.d0 * rate, self._beta3

    @property
    def _beta3(self) -> float:
        return math.sqrt(self.beta2) if self.beta3 is None else self.beta3

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """m, v and s."""
        take1, beta1, take2, beta2, take3, beta3 = c
        m, v, sums, _ = s
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        keep_and_add(sums, beta3, multiply(g, take3, u))

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """<g, w0 - w>, and the sizes of s."""
        return total(multiply(g, subtract(s[3], w, a[0]), a[0])), total(absolute(s[2], a[0]))

    def of_run(
        self, t: int, groups: Sequence[GroupSums], memory: Memory, loss: float | None
    ) -> Sequence[tuple[float, ...]]:
        """k of each group, and d' eps."""
        d, size = memory["d"], over_run(groups)[1]
        rates = [self.decay_rate(t, group.lr, memory) for group in groups]
        memory["d_numerator"] *= self._beta3
        for rate, group in zip(rates, groups, strict=True):
            memory["d_numerator"] += d / self.d0 * rate * group.sums[0]
        if size > 0.0:
            found = self.d_coef * memory["d_numerator"] / size
            memory["d_max"] = max(memory["d_max"], found)
            memory["d"] = min(memory["d_max"], self.grown(max(d, found) if d == self.d0 else d))
        return [(rate, max(memory["d"] * self.eps, TINY)) for rate in rates]

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """k m / (sqrt(v) + d' eps)."""
        divide(s[0], add(sqrt(s[1], u), r[1], u), u)
        multiply(u, r[0], u)


FAMILY = (DAdaptSgd, DAdaptAdam, Prodigy)
