"""Momentum with the longest step that a model of the loss allows: MoMo, and MoMo on Adam."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from numpy import add, copyto, divide, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .adam import MOMENTS
from .kinds import GroupSums, Total, WholeRunRule, over_run
from .polyak import NO_GRADIENT
from .rule import TINY, Memory, Scalar, Slot, integer_power, keep_and_add

__all__ = ["Momo", "MomoAdam"]


class _Momo(WholeRunRule):
    """What the two share: from a mean gradient m, divided into a direction u, to the length of the step.

        f <- b f + (1 - b) loss                         loss_mean, one double a run, as the next two
        q <- b q + (1 - b) <g, w>                       product_mean
        K = 1 + lr λ                                    1 without decay, or with L2 decay
        τ = max(K (f - B c - q) + <m, w>, 0) / <m, u>,  at most lr / c;  0 where <m, u> is next to nothing
        w <- w / K - τ u

    B is `lower_bound`. `adapt_lower_bound` keeps it in lower_bound: it falls to max(C / (2 c K), lower_bound) where
    C = K (f - q) + <m, w> < K c B, and rises to max((f - q + <m, w> - τ <m, u> / 2) / c, lower_bound) at the end.

    All products are over the run. K is of the default group's decay and the largest rate; each group's own rate bounds
    its τ, and its own decay its w / K.

    Source: Schaipp et al. 2024, Algorithms 1 and 2 (arXiv:2305.07583), Appendix A for the bound.
    """

    if TYPE_CHECKING:
        lower_bound: float
        adapt_lower_bound: bool

    sums: ClassVar[int] = 3

    @abstractmethod
    def shares(self, t: int) -> tuple[float, float]:
        """b, and the correction c of the means."""

    @property
    def memory(self) -> Mapping[str, float]:
        """The means, and the bound that adapts."""
        return {"loss_mean": 0.0, "product_mean": 0.0, "lower_bound": self.lower_bound}

    def decay_rate(self, t: int, lr: float, memory: Memory) -> float:
        """1 - this λ is 1 / K."""
        return lr / (1.0 + lr * self.weight_decay)

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """<m, u>, <m, w>, <g, w>."""
        m, x = s[0], a[0]
        return total(multiply(m, u, x)), total(multiply(m, w, x)), total(multiply(g, w, x))

    def of_run(
        self, t: int, groups: Sequence[GroupSums], memory: Memory, loss: float | None
    ) -> Sequence[tuple[float, ...]]:
        """τ of each group."""
        assert loss is not None, "a push without its loss is refused"
        (kept, correction), lr = self.shares(t), max(group.lr for group in groups)
        size, product, now = over_run(groups)
        memory["loss_mean"] = kept * memory["loss_mean"] + (1.0 - kept) * loss
        memory["product_mean"] = kept * memory["product_mean"] + (1.0 - kept) * now
        gap = memory["loss_mean"] - memory["product_mean"]
        grown = 1.0 + lr * self.weight_decay if self.weight_decay_mode == "decoupled" else 1.0
        bound = self._bound(grown * gap + product, grown * correction, memory)
        longest = max(grown * (gap - correction * bound) + product, 0.0) / size if size > NO_GRADIENT else 0.0
        if self.adapt_lower_bound:
            step = min(lr / correction, longest)
            memory["lower_bound"] = max((gap + product - 0.5 * step * size) / correction, self.lower_bound)
        return [(min(group.lr / correction, longest),) for group in groups]

    def _bound(self, cap: float, unit: float, memory: Memory) -> float:
        """B, not above what the model says of the loss."""
        if not self.adapt_lower_bound:
            return self.lower_bound
        known = memory["lower_bound"]
        return max(cap / (2.0 * unit), self.lower_bound) if cap < unit * known else known

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """τ u."""
        multiply(u, r[0], u)


class Momo(specs.Momo, _Momo):
    """SGD with momentum, and the step of MoMo.

        m <- β m + (1 - β) g, at the first update g     float32[N], exp_avg
        u = m,   b = β, at the first update 0,   c = 1  the rest as in `_Momo`

    Matches optax.contrib.momo.
    """

    momentum_field: ClassVar[str | None] = "beta"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The mean gradient."""
        return (MOMENTS[0],)

    def shares(self, t: int) -> tuple[float, float]:
        """b and c."""
        return (0.0 if t == 1 else self.beta), 1.0

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Decay and share of the mean."""
        kept, _ = self.shares(t)
        return kept, 1.0 - kept

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """m, and u = m, for one block."""
        keep_and_add(s[0], c[0], multiply(g, c[1], u))
        copyto(u, s[0])


class MomoAdam(specs.MomoAdam, _Momo):
    """Adam, and the step of MoMo.

        m <- β1 m + (1 - β1) g                          float32[N], exp_avg
        v <- β2 v + (1 - β2) g²                         float32[N], exp_avg_sq
        u = m / (sqrt(v / (1 - β2^t)) + eps),   b = β1,   c = 1 - β1^t          the rest as in `_Momo`

    Matches optax.contrib.momo_adam.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The two moments of Adam."""
        return MOMENTS

    def shares(self, t: int) -> tuple[float, float]:
        """b and c."""
        return self.beta1, 1.0 - integer_power(self.beta1, t)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of the moments, eps and the gain."""
        root = math.sqrt(1.0 - integer_power(self.beta2, t))
        take1, take2 = 1.0 - self.beta1, math.sqrt(1.0 - self.beta2)
        return take1, self.beta1, take2, self.beta2, max(self.eps * root, TINY), root

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The moments and u, for one block."""
        take1, beta1, take2, beta2, eps, gain = c
        m, v = s
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        add(sqrt(v, u), eps, u)
        multiply(divide(m, u, u), gain, u)


FAMILY = (Momo, MomoAdam)
