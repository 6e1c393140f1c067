"""Rules that start from an anchor, sum up all gradients, or average all weights: FTRL, MADGRAD, COCOB, ASGD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import absolute, add, copyto, divide, maximum, minimum, multiply, sign, sqrt, subtract

from gradserve import specs

from ..blocks import Array
from .rule import TINY, Memory, Rule, Scalar, Slot, Sparse, decaying_exponential, negative_logarithm

__all__ = ["Asgd", "Cocob", "Ftrl", "Madgrad"]

ANCHOR = Slot("x0", "w0: the weights at their first gradient")
Q_LEAST = 2.0**-60  # far below the root of any n that counts; keeps 0 / 0 away where n is 0 as well
CUBE_ROOT_LEAST = 2.0**-40  # far below any eps that is added to a cube root


class Ftrl(specs.Ftrl, Rule):
    """Follow the regularised leader, proximally.

        q(n) = n^p,  p = -learning_rate_power           0, 1/2 or 1
        z <- z + lr (g + 2 l2s w) - (q(n + g²) - q(n)) w        float32[N], linear
        n <- n + g²                                     float32[N], accumulator; `initial_accumulator_value`
        w <- (clip(z, ± base l1) - z) / Q,  Q = q(n) + β + 2 base l2

    base is the optimizer's lr, lr that of the update. The paper and Keras have the same sums over lr, which is constant
    there: read with another lr, all weights are multiplied with the ratio of the two (Keras under a schedule). Here
    each gradient counts at the lr of its update, and l1 and l2 at base, so that zeros stay zeros as lr falls.

    `keep_initial`: before a weight's first gradient, where n is what it began with, z = -w Q, so that the weight is
    the leader of no gradients at all. Without it z starts at 0, as in Keras, and the first weights are forgotten. At a
    rate of 0 nothing moves.

    Source: McMahan et al. 2013, Algorithm 1. Matches keras.optimizers.Ftrl with keep_initial: false at a constant lr.
    """

    sparse: ClassVar[Sparse] = "lazy"
    scratch_blocks: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The sum of squares and the linear term."""
        began = self.initial_accumulator_value
        squares = Slot("accumulator", "n: all squared gradients so far, added", began, never_negative=True)
        return squares, Slot("linear", "z: all gradients so far at their lr, less what the weights were worth")

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, where n begins, lr, 2 l2s lr, what is added to q, bound of z, 0 for no move."""
        added = max(self.beta + 2.0 * self.lr * self.l2, Q_LEAST)
        least, shrink, bound = self.initial_accumulator_value, 2.0 * self.l2_shrinkage * lr, self.lr * self.l1
        return scale, least, lr, shrink, added, bound, 1.0 if lr else 0.0

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, least, lr, shrink, added, bound, moves = c
        (n, z), (x, y) = s, a
        if not moves:
            u.fill(0.0)
            return
        self._power(n, x)
        if self.keep_initial:
            sign(subtract(n, least, y), y)  # 1, or 0 where there was no gradient yet
            multiply(z, y, z)
            multiply(subtract(1.0, y, y), w, y)
            subtract(z, multiply(add(x, added, u), y, u), z)
        multiply(g, scale, y)
        add(add(z, multiply(y, lr, u), z), multiply(w, shrink, u), z)
        add(n, multiply(y, y, y), n)
        self._power(n, y)
        subtract(z, multiply(subtract(y, x, x), w, x), z)
        subtract(minimum(maximum(z, -bound, out=x), bound, out=x), z, x)
        subtract(w, divide(x, add(y, added, y), x), u)

    def _power(self, n: Array, out: Array) -> Array:
        if self.learning_rate_power == -0.5:
            return sqrt(n, out)
        out[...] = 1.0 if self.learning_rate_power == 0.0 else n
        return out


class Madgrad(specs.Madgrad, Rule):
    """Momentumized, adaptive, dual averaged gradient.

        k = (lr + eps) sqrt(t)
        w0 <- w where G = 0                             float32[N], x0
        G <- G + k g²                                   float32[N], grad_sum_sq
        S <- S + k g                                    float32[N], s
        w <- μ w + (1 - μ) (w0 - S / (cbrt(G) + eps))

    The cube root is made of roots and Newton's steps: the C library's differs between machines.

    At lr = 0 nothing is added.

    Source: Defazio & Jelassi 2022, Algorithm 1 and the authors' code (arXiv:2101.11075). Matches
    optax.contrib.madgrad.
    """

    momentum_field: ClassVar[str | None] = "momentum"
    scratch_blocks: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The anchor and both weighted sums."""
        squares = Slot("grad_sum_sq", "G: all squared gradients so far, weighted and added", never_negative=True)
        return ANCHOR, squares, Slot("s", "S: all gradients so far, weighted and added")

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """What a sum takes of a gradient, the root of what the other takes of its square, eps, and 1 - μ."""
        weight = (lr + self.eps) * math.sqrt(t) if lr else 0.0
        return weight * scale, math.sqrt(weight) * scale, max(self.eps, TINY), 1.0 - self.momentum

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        take, take_root, eps, share = c
        (x0, squares, total), (x, y) = s, a
        _anchor(x0, w, squares, x)
        multiply(g, take_root, x)
        add(squares, multiply(x, x, x), squares)
        add(total, multiply(g, take, x), total)
        cube_root(squares, u, x, y)
        divide(total, add(u, eps, u), u)
        multiply(add(subtract(w, x0, x), u, u), share, u)


class Cocob(specs.Cocob, Rule):
    """Continuous coin betting.

        w0 <- w where G = 0                             float32[N], x0
        L <- max(L, |g|)                                float32[N], largest; starts at eps
        G <- G + |g|                                    float32[N], grad_norm_sum
        R <- max(R - g (w - w0), 0)                     float32[N], reward
        C <- C - g                                      float32[N], theta
        w <- w0 + C (L + R) / (L max(G + L, α L))       g is the gradient times lr

    Source: Orabona & Tommasi 2017, Algorithm 2 (arXiv:1705.07795). Matches optax.contrib.cocob.
    """

    sparse: ClassVar[Sparse] = "lazy"  # exact but for rounding: each update computes the weight anew
    scratch_blocks: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The anchor and the accounts of the bettor."""
        largest = Slot("largest", "L: the largest gradient so far", self.eps, never_negative=True)
        sums = Slot("grad_norm_sum", "G: the sizes of all gradients so far, added", never_negative=True)
        theta = Slot("theta", "C: all gradients so far, added, with the sign turned")
        return ANCHOR, largest, sums, Slot("reward", "R: what the bets have won", never_negative=True), theta

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, α."""
        return lr * scale, self.alpha

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, alpha = c
        (x0, largest, sums, reward, theta), (x, y) = s, a
        _anchor(x0, w, sums, x)
        multiply(g, scale, x)
        subtract(theta, x, theta)
        multiply(x, subtract(w, x0, u), y)
        maximum(subtract(reward, y, reward), 0.0, out=reward)
        add(sums, absolute(x, x), sums)
        maximum(largest, x, out=largest)
        maximum(add(sums, largest, x), multiply(largest, alpha, y), out=x)
        multiply(theta, add(largest, reward, y), y)
        subtract(u, divide(y, multiply(largest, x, x), y), u)


class Asgd(specs.Asgd, Rule):
    """Averaged gradient descent.

        η = lr / (1 + λ lr (t - 1))^α
        w <- w - λ η w - η g
        a <- a + (w - a) / max(1, t - 1 - t0)           float32[N], ax

    torch takes the rate of the update before in η; at a constant lr that is the same.

    Source: Polyak & Juditsky 1992; the rate: Xu 2011 (arXiv:1107.2490). Matches torch.optim.ASGD.
    """

    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The average."""
        return (Slot("ax", "a: the average of the weights after t0; the weights before", from_weights=True),)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """What is taken of the gradient and of the weights, and the share of the new weights in the average."""
        growth = 1.0 + self.lambd * lr * (t - 1)
        eta = lr * decaying_exponential(self.alpha * negative_logarithm(1.0 / growth))
        return eta * scale, self.lambd * eta, 1.0 / max(1.0, t - 1 - self.t0)

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        step, shrink, share = c
        (ax,), (x,) = s, a
        add(multiply(g, step, u), multiply(w, shrink, x), u)
        subtract(w, u, x)
        if share == 1.0:
            copyto(ax, x)
        else:
            add(ax, multiply(subtract(x, ax, x), share, x), ax)

    def average(self, w: Array, s: Sequence[Array]) -> Array | None:
        """The average a."""
        return s[0]


def _anchor(x0: Array, w: Array, seen: Array, a: Array) -> None:
    """x0 ← w where nothing was seen yet: multiplied by 0 and 1, which is exact."""
    sign(seen, a)
    multiply(x0, a, x0)
    add(x0, multiply(subtract(1.0, a, a), w, a), x0)


def cube_root(x: Array, out: Array, a: Array, b: Array) -> Array:
    """The cube root of x ≥ 0 by √ × ÷ alone; below `CUBE_ROOT_LEAST` something smaller than that.

    x^(1/4 + 1/16 + 1/64) is within 60 % of it over all of float32; five steps of Newton square the error five times.
    """
    sqrt(sqrt(x, a), a)
    copyto(out, a)
    for _ in range(2):
        multiply(out, sqrt(sqrt(a, a), a), out)
    maximum(out, CUBE_ROOT_LEAST, out=out)
    for _ in range(5):
        divide(x, multiply(out, out, a), b)
        multiply(add(add(out, out, out), b, out), 1.0 / 3.0, out)
    return out


FAMILY = (Ftrl, Madgrad, Cocob, Asgd)
