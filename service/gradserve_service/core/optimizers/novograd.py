"""NovoGrad: one second moment a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import add, copyto, multiply

from gradserve import specs

from ..blocks import Array
from .kinds import PerTensorRule, Total
from .rule import Memory, Scalar, Shape, Slot, keep_and_add

__all__ = ["Novograd"]


def _one(shape: Shape) -> Shape:
    return ()


MOMENTS = (
    Slot("exp_avg", "m: first moment, the decaying sum of the scaled gradients"),
    Slot(
        "exp_avg_sq",
        "v: second moment, the decaying mean of the tensor's squared norm; one number",
        never_negative=True,
        shape=_one,
    ),
)


class Novograd(specs.Novograd, PerTensorRule):
    """Gradients over the recent norm of their tensor's gradient.

        n = ‖g‖²                                        of the tensor
        v <- β2 v + (1 - β2) n                          one float32 a tensor, exp_avg_sq; v <- n at its first gradient
        x = g / (sqrt(v + eps_root) + eps) + λ w
        m <- β1 m + x                                   float32[N], exp_avg; (1 - β1) x with `grad_averaging`
        w <- w - lr m

    λ is in x with `weight_decay_mode: in_update`.

    Source: Ginsburg et al. 2019, Algorithm 1 (arXiv:1905.11286). Matches optax.novograd.
    """

    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1
    sums: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The first moment, and the second of each tensor."""
        return MOMENTS

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Decay of the weights, share and decay of the moment, lr."""
        decay = self.weight_decay if self.weight_decay_mode == "in_update" else 0.0
        return decay, 1.0 - self.beta1 if self.grad_averaging else 1.0, self.beta1, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The gradient itself."""
        copyto(u, g)

    def measure(
        self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array], total: Total
    ) -> tuple[float, ...]:
        """Squares of g."""
        return (total(multiply(g, g, a[0])),)

    def of_tensor(self, c: Sequence[float], sums: Sequence[float], own: Sequence[Array]) -> tuple[float, ...]:
        """1 / (sqrt(v + eps_root) + eps)."""
        (v,) = own
        before = float(v[0])
        now = self.beta2 * before + (1.0 - self.beta2) * sums[0] if before else sums[0]
        v[0] = now
        size = math.sqrt(now + self.eps_root) + self.eps
        return (1.0 / size if size else 0.0,)

    def finish(
        self, c: Sequence[Scalar], r: Sequence[Scalar], w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]
    ) -> None:
        """x, the moment, the step."""
        decay, take, beta1, lr = c
        (m,) = s
        add(multiply(u, r[0], u), multiply(w, decay, a[0]), u)
        keep_and_add(m, beta1, multiply(u, take, u))
        multiply(m, lr, u)
