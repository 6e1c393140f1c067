"""Polyak's step size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from numpy import copyto, multiply

from gradserve import specs

from ..blocks import Array
from .kinds import GroupSums, Total, WholeRunRule
from .rule import Memory, Scalar, Slot

__all__ = ["PolyakSgd"]

NO_GRADIENT: Final = 2.0**-52  # a squared norm up to here is taken as none, as in optax


class PolyakSgd(specs.PolyakSgd, WholeRunRule):
    """SGD with a step that would reach the minimum of a linear loss.

        a = min((loss - f_min) / (‖g‖² + eps), max_lr)  over the whole run; 0 without a gradient
        w <- w - lr a g

    `variant: sps+` takes max(loss - f_min, 0). The loss is the one that came with the gradient.

    Source: Loizou et al. 2021, eq. SPS_max (arXiv:2002.10542). Matches optax.polyak_sgd.
    """

    scratch_blocks: ClassVar[int] = 1
    sums: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """None."""
        return ()

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """None."""
        return ()

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The gradient itself."""
        copyto(u, g)

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """Squares of g."""
        return (total(multiply(g, g, a[0])),)

    def of_run(
        self, t: int, groups: Sequence[GroupSums], memory: Memory, loss: float | None
    ) -> Sequence[tuple[float, ...]]:
        """lr a of each group."""
        assert loss is not None, "a push without its loss is refused"
        size, gap = self.eps, loss - self.f_min
        for group in groups:
            size += group.sums[0]
        if self.variant == "sps+":
            gap = max(gap, 0.0)
        step = min(gap / size, self.max_lr) if size > NO_GRADIENT else 0.0
        return [(group.lr * step,) for group in groups]

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """lr a g."""
        multiply(u, r[0], u)
