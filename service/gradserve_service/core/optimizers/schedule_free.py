"""Training without a schedule: the average of the weights is what is trained, SGD, AdamW and RAdam below it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from numpy import add, divide, multiply, sqrt, subtract

from gradserve import specs

from ..blocks import Array
from .adam import MOMENTS
from .rule import TINY, Memory, Rule, Scalar, Slot, integer_power, keep_and_add, real_power
from .variances import rectification

__all__ = ["ScheduleFreeAdamW", "ScheduleFreeRAdam", "ScheduleFreeSgd"]

FAST = Slot("z", "z: the weights of the rule below, without averaging", from_weights=True)
TRUSTED = 4.0  # gradients that the second moment must be worth, as the authors have it; RAdam's own paper: 5
WEIGHT_MAX: Final = 1e290  # of one update in the average: their sum stays a number


class _ScheduleFree(Rule):
    """What the three share: from a direction d to the three points.

        ρ = rate of the update, from lr            rate_max <- max(rate_max, ρ)          two doubles a run
        c = q / Σ q,   q = t^r rate_max^p          weight_sum                            p = weight_lr_power
        z <- z - ρ d                               float32[N], z; starts as the weights
        x <- (1 - c) x + c z                       not kept
        y <- (1 - β) z + β x                       the weights: gradients are taken at y

    so that y <- y + c (z - y) - ρ (1 - β (1 - c)) d, with the z before; x = y + (1 - 1/β) (z - y) is what to evaluate
    at. c has no unit: where all groups' rates follow one schedule it is the same for all of them.

    Source: Defazio et al. 2024, Algorithm 1 (arXiv:2405.15682), and the authors' code.
    """

    if TYPE_CHECKING:
        r: float
        weight_lr_power: float

    @property
    @abstractmethod
    def share_of_average(self) -> float:
        """β."""

    @abstractmethod
    def rate(self, t: int, lr: float) -> float:
        """ρ."""

    @property
    def memory(self) -> Mapping[str, float]:
        """The largest rate so far, and the sum of all q."""
        return {"rate_max": 0.0, "weight_sum": 0.0}

    def advance(self, t: int, lr: float, memory: Memory) -> None:
        """Both, by the rate of this update."""
        memory["rate_max"] = max(memory["rate_max"], self.rate(t, lr))
        memory["weight_sum"] += self._weight(t, memory)

    def _weight(self, t: int, memory: Memory) -> float:
        return min(real_power(t, self.r) * real_power(memory["rate_max"], self.weight_lr_power), WEIGHT_MAX)

    def steps(self, t: int, lr: float, memory: Memory) -> tuple[float, float, float]:
        """c, ρ and what the weights take of d."""
        share, rate = 0.0, self.rate(t, lr)
        if memory["weight_sum"]:
            share = self._weight(t, memory) / memory["weight_sum"]
        return share, rate, rate * (1.0 - self.share_of_average * (1.0 - share))

    def move(self, c: Sequence[Scalar], d: Array, w: Array, z: Array, u: Array, a: Array) -> None:
        """z, and into u what is to be subtracted from y. `c` are `steps`; d and a are overwritten."""
        share, rate, own = c
        multiply(subtract(w, z, a), share, a)
        add(multiply(d, own, u), a, u)
        subtract(z, multiply(d, rate, d), z)

    def average(self, w: Array, s: Sequence[Array]) -> Array | None:
        """x."""
        x = subtract(s[0], w)
        return add(w, multiply(x, 1.0 - 1.0 / self.share_of_average, x), x)


class ScheduleFreeSgd(specs.ScheduleFreeSgd, _ScheduleFree):
    """SGD without a schedule.

        d = g,   ρ = lr min(1, t / warmup_steps),   β = momentum         the rest as in `_ScheduleFree`

    Matches schedulefree.SGDScheduleFree; its weights in train mode are ours, those in eval mode are `average`.
    """

    scratch_blocks: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """z."""
        return (FAST,)

    @property
    def share_of_average(self) -> float:
        """β."""
        return self.momentum

    def rate(self, t: int, lr: float) -> float:
        """ρ."""
        return warmed(lr, t, self.warmup_steps)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, and `steps`."""
        return scale, *self.steps(t, lr, memory)

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of `_ScheduleFree`, for one block."""
        self.move(c[1:], multiply(g, c[0], a[0]), w, s[0], u, a[1])


class _ScheduleFreeMoments(_ScheduleFree):
    """What AdamW and RAdam share: the second moment, and d."""

    if TYPE_CHECKING:
        beta1: float
        beta2: float
        eps: float

    scratch_blocks: ClassVar[int] = 2

    @property
    def slots(self) -> tuple[Slot, ...]:
        """z and Adam's second moment."""
        return FAST, MOMENTS[1]

    @property
    def share_of_average(self) -> float:
        """β."""
        return self.beta1

    def divides(self, t: int) -> bool:
        """Whether the second moment can be trusted."""
        return True

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Share and decay of the moment, whether to divide by it, gain of the gradient, eps, decay, and `steps`."""
        divides, root = self.divides(t), math.sqrt(1.0 - integer_power(self.beta2, t))
        moment = math.sqrt(1.0 - self.beta2) * scale, self.beta2
        gain, decay = root * scale if divides else scale, self.weight_decay * (self.weight_decay_mode == "in_update")
        return *moment, float(divides), gain, max(self.eps * root, TINY), decay, *self.steps(t, lr, memory)

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula and of `_ScheduleFree`, for one block."""
        take2, beta2, divides, gain, eps, decay, *steps = c
        (z, v), (d, spare) = s, a
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        multiply(g, gain, d)
        if divides:
            divide(d, add(sqrt(v, u), eps, u), d)
        if decay:
            add(d, multiply(w, decay, u), d)
        self.move(steps, d, w, z, u, spare)


class ScheduleFreeAdamW(specs.ScheduleFreeAdamW, _ScheduleFreeMoments):
    """AdamW without a schedule.

        v <- β2 v + (1 - β2) g²                         float32[N], exp_avg_sq
        d = g / (sqrt(v / (1 - β2^t)) + eps) + λ y      λ as it stands with `weight_decay_mode: in_update`
        ρ = lr min(1, t / warmup_steps),   β = β1       the rest as in `_ScheduleFree`

    With r = sqrt(1 - β2^t), d = (r g) / (sqrt(v) + eps r). Matches schedulefree.AdamWScheduleFree.
    """

    def rate(self, t: int, lr: float) -> float:
        """ρ."""
        return warmed(lr, t, self.warmup_steps)


class ScheduleFreeRAdam(specs.ScheduleFreeRAdam, _ScheduleFreeMoments):
    """RAdam without a schedule, and without a warmup.

        v and d as in `ScheduleFreeAdamW`;   ρ = lr · the rectification of `RAdam`,   β = β1

    While v is worth four gradients or fewer nothing moves but v; with `silent_sgd_phase: false` d = g + λ y and ρ = lr.

    Matches schedulefree.RAdamScheduleFree.
    """

    def divides(self, t: int) -> bool:
        """Whether the second moment can be trusted."""
        return rectification(self.beta2, t, TRUSTED) > 0.0

    def rate(self, t: int, lr: float) -> float:
        """ρ."""
        return lr * (rectification(self.beta2, t, TRUSTED) or float(not self.silent_sgd_phase))


def warmed(lr: float, t: int, warmup_steps: int) -> float:
    """lr, on its way up from 0 during the first updates."""
    return lr * (t / warmup_steps) if t < warmup_steps else lr


FAMILY = (ScheduleFreeSgd, ScheduleFreeAdamW, ScheduleFreeRAdam)
