"""Adam with another second moment: RAdam, AdaBelief, Yogi, ACProp, ADOPT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import add, divide, full_like, maximum, minimum, multiply, sign, sqrt, subtract

from gradserve import specs

from ..blocks import Array
from .adam import MOMENTS
from .rule import TINY, Memory, Rule, Scalar, Slot, Sparse, integer_power, keep_and_add

__all__ = ["AcProp", "AdaBelief", "Adopt", "RAdam", "Yogi"]

TRUSTED = 5.0  # gradients that the second moment must be worth before RAdam divides by it
VARIANCE = Slot(
    "exp_avg_var",
    "s: the decaying mean of squared differences between gradients and their mean",
    never_negative=True,
)


class RAdam(specs.RAdam, Rule):
    """Adam, rectified.

        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        v <- β2 v + (1 - β2) g²                         float32[N], exp_avg_sq
        q = 2 / (1 - β2) - 1,  p = q - 2 t β2^t / (1 - β2^t)         p: gradients that v is worth
        w <- w - lr ρ m / (1 - β1^t) sqrt(1 - β2^t) / (sqrt(v) + eps)        if p > 5, with
             ρ² = (p - 4)(p - 2) q / ((q - 4)(q - 2) p)
        w <- w - lr m / (1 - β1^t)                                           else

    `eps_hat: false` adds eps to the corrected root, as optax does: sqrt(v) + eps sqrt(1 - β2^t).

    Source: Liu et al. 2020, Algorithm 2 (arXiv:1908.03265). Matches torch.optim.RAdam.
    """

    sparse: ClassVar[Sparse] = "lazy"
    momentum_field: ClassVar[str | None] = "beta1"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The two moments of Adam."""
        return MOMENTS

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of the moments, whether to divide, eps and the gain."""
        take1, take2 = (1.0 - self.beta1) * scale, math.sqrt(1.0 - self.beta2) * scale
        gain = lr / (1.0 - integer_power(self.beta1, t))
        rectified, r = rectification(self.beta2, t, TRUSTED), math.sqrt(1.0 - integer_power(self.beta2, t))
        eps = max(self.eps if self.eps_hat else self.eps * r, TINY)
        gain *= rectified * r if rectified else 1.0
        return take1, self.beta1, take2, self.beta2, 1.0 if rectified else 0.0, eps, gain

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        take1, beta1, take2, beta2, divides, eps, gain = c
        m, v = s
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        x = divide(m, add(sqrt(v, u), eps, u), u) if divides else m
        multiply(x, gain, u)

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """lr ρ sqrt(1 - β2^t) / (sqrt(v) + eps); lr while there is no ρ."""
        rectified, r = rectification(self.beta2, t, TRUSTED), math.sqrt(1.0 - integer_power(self.beta2, t))
        if not rectified:
            return full_like(s[1], lr)
        return divide(lr * rectified * r, sqrt(s[1]) + (self.eps if self.eps_hat else self.eps * r))


def rectification(beta2: float, t: int, trusted: float) -> float:
    """ρ of `RAdam`, or 0 where the second moment cannot be trusted yet."""
    power, q = integer_power(beta2, t), 2.0 / (1.0 - beta2) - 1.0
    p = q - 2.0 * t * power / (1.0 - power)
    return math.sqrt((p - 4.0) * (p - 2.0) * q / ((q - 4.0) * (q - 2.0) * p)) if p > trusted else 0.0


class AdaBelief(specs.AdaBelief, Rule):
    """Adam by the belief in a gradient.

        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        s <- β2 s + (1 - β2) (g - m)² + eps_root        float32[N], exp_avg_var; with the new m
        w <- w - lr (m / (1 - β1^t)) / (sqrt(s / (1 - β2^t)) + eps)

    eps_root stays in s, as in the authors' code: it grows to eps_root / (1 - β2). Folded as in `Adam`.

    Source: Zhuang et al. 2020, Algorithm 2 (arXiv:2010.07468). Matches optax.adabelief.
    """

    sparse: ClassVar[Sparse] = "lazy"
    momentum_field: ClassVar[str | None] = "beta1"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The mean and the variance around it."""
        return MOMENTS[0], VARIANCE

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, shares and decays of both, eps_root, eps and the gain."""
        r = math.sqrt(1.0 - integer_power(self.beta2, t))
        gain = lr * r / (1.0 - integer_power(self.beta1, t))
        take1, take2 = (1.0 - self.beta1) * scale, math.sqrt(1.0 - self.beta2)
        return scale, take1, self.beta1, take2, self.beta2, self.eps_root, max(self.eps * r, TINY), gain

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The folded lines of the class's formula, for one block."""
        scale, take1, beta1, take2, beta2, eps_root, eps, gain = c
        m, v = s
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(subtract(multiply(g, scale, u), m, u), take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        add(sqrt(add(v, eps_root, v), u), eps, u)
        multiply(divide(m, u, u), gain, u)

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """lr / (sqrt(s / (1 - β2^t)) + eps)."""
        return divide(lr, sqrt(s[1] / (1.0 - integer_power(self.beta2, t))) + self.eps)


class Yogi(specs.Yogi, Rule):
    """Adam with a second moment that moves by sign.

        m <- β1 m + (1 - β1) g                          float32[N], exp_avg; starts at `initial_moment_value`
        v <- v - (1 - β2) sign(v - g²) g²               float32[N], exp_avg_sq; at `initial_accumulator_value`
        w <- w - lr (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps)

    `bias_correction: false` has 1 instead of both 1 - β^t, the form of FedYogi. Folded as in `Adam`.

    Source: Zaheer et al. 2018, Algorithm 2; FedYogi: Reddi et al. 2021, Algorithm 2 (arXiv:2003.00295). Matches
    optax.yogi, which starts m at 1e-6 too.
    """

    sparse: ClassVar[Sparse] = "lazy"
    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The two moments, with the values they start at."""
        m, v = MOMENTS
        first = Slot(m.name, m.meaning, self.initial_moment_value)
        square = Slot(v.name, "v: second moment, moved by squares", self.initial_accumulator_value, never_negative=True)
        return first, square

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, share and decay of the mean, step of the second moment, eps and the gain."""
        c1, c2 = 1.0, 1.0
        if self.bias_correction:
            c1, c2 = 1.0 - integer_power(self.beta1, t), 1.0 - integer_power(self.beta2, t)
        r = math.sqrt(c2)
        return scale, (1.0 - self.beta1) * scale, self.beta1, 1.0 - self.beta2, max(self.eps * r, TINY), lr * r / c1

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The folded lines of the class's formula, for one block."""
        scale, take, beta1, step, eps, gain = c
        m, v = s
        keep_and_add(m, beta1, multiply(g, take, u))
        multiply(g, scale, u)
        multiply(u, u, u)
        sign(subtract(v, u, a[0]), a[0])
        subtract(v, multiply(multiply(u, step, u), a[0], u), v)
        add(sqrt(v, u), eps, u)
        multiply(divide(m, u, u), gain, u)

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """lr / (sqrt(v / (1 - β2^t)) + eps)."""
        c2 = 1.0 - integer_power(self.beta2, t) if self.bias_correction else 1.0
        return divide(lr, sqrt(s[1] / c2) + self.eps)


class AcProp(specs.AcProp, Rule):
    """Asynchronous centering: the deviation of the updates before.

        w <- w - lr g / (sqrt(s / (1 - β2^(t-1))) + eps)        where s > 0;  lr g / (1 + eps) where s = 0
        s <- β2 s + (1 - β2) (g - m)² + eps_root        float32[N], exp_avg_var; with the m before
        m <- β1 m + (1 - β1) g                          float32[N], exp_avg

    s = 0 is a weight that had no gradient yet: at the first update all of them, later those of tensors that come late.

    Source: Zhuang et al. 2021, Algorithm 1 (arXiv:2110.05454). Matches optax.contrib.acprop.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The mean and the variance around it."""
        return MOMENTS[0], VARIANCE

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, both shares and decays, the root's correction, eps_root, eps and lr."""
        correct = 1.0 / math.sqrt(1.0 - integer_power(self.beta2, t - 1)) if t > 1 else 1.0
        take = math.sqrt(1.0 - self.beta2)
        tail = (correct, self.eps_root, max(self.eps, TINY), lr * scale)
        return scale, (1.0 - self.beta1) * scale, self.beta1, take, self.beta2, *tail

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, take1, beta1, take2, beta2, correct, eps_root, eps, gain = c
        (m, v), (root,) = s, a
        subtract(1.0, sign(v, u), u)  # 1 where there was no gradient yet
        add(add(multiply(sqrt(v, root), correct, root), u, root), eps, root)
        multiply(subtract(multiply(g, scale, u), m, u), take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        add(v, eps_root, v)
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(divide(g, root, u), gain, u)


class Adopt(specs.Adopt, Rule):
    """Adam that divides before it averages, by what was known before.

        x = g / max(sqrt(v), eps),  within ± (t - 1)^(1/4) with `clip_updates`;  x = 0 where v = 0
        m <- β1 m + (1 - β1) x                          float32[N], exp_avg
        w <- w - lr m
        v <- β2 v + (1 - β2) g²,  g² where v was 0      float32[N], exp_avg_sq

    v = 0 is a weight that had no gradient yet: its first only starts the second moment.

    Source: Taniguchi et al. 2024, Algorithm 2 and its clipped form (arXiv:2411.02853). Matches optax.contrib.adopt.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The mean of normalised gradients and the second moment."""
        return Slot("exp_avg", "m: the decaying mean of normalised gradients"), MOMENTS[1]

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, eps, the bounds of x, both shares and decays, and lr."""
        bound = math.sqrt(math.sqrt(t - 1.0))
        take1, take2 = 1.0 - self.beta1, 1.0 - self.beta2
        return scale, max(self.eps, TINY), -bound, bound, take1, self.beta1, take2, self.beta2, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, eps, low, high, take1, beta1, take2, beta2, lr = c
        (m, v), (x, known) = s, a
        sign(v, known)  # 1, or 0 where there was no gradient yet
        divide(multiply(g, scale, u), maximum(sqrt(v, x), eps, out=x), x)
        if self.clip_updates:
            minimum(maximum(x, low, out=x), high, out=x)
        keep_and_add(m, beta1, multiply(multiply(x, known, x), take1, x))
        multiply(u, u, u)
        add(subtract(1.0, known, x), multiply(known, take2, known), known)
        keep_and_add(v, beta2, multiply(u, known, u))
        multiply(m, lr, u)


FAMILY = (RAdam, AdaBelief, Yogi, AcProp, Adopt)
