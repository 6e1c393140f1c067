"""Steps by the sign of a gradient: sign_sgd, signum, Lion, Rprop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from numpy import add, maximum, minimum, multiply, sign

from gradserve import specs

from ..blocks import Array
from .rule import Memory, Rule, Scalar, Slot, Sparse, keep_and_add

__all__ = ["Lion", "Rprop", "SignSgd", "Signum"]

MOMENT = (Slot("exp_avg", "m: the decaying mean of the gradients"),)


class SignSgd(specs.SignSgd, Rule):
    """Descent by signs.

        w <- w - lr sign(g)                             sign(0) = 0

    The clip factor cannot change a sign; only that of `maximize` can.

    Source: Bernstein et al. 2018, Algorithm 1 (arXiv:1802.04434). Matches optax.sign_sgd.
    """

    sparse: ClassVar[Sparse] = "exact"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """None."""
        return ()

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """The factor of the gradient, for its sign, and lr."""
        return scale, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The line of the class's formula, for one block."""
        scale, lr = c
        multiply(sign(multiply(g, scale, u), u), lr, u)


class Signum(specs.Signum, Rule):
    """Descent by the signs of the first moment.

        m <- β m + (1 - β) g                            float32[N], exp_avg
        w <- w - lr sign(m)

    Source: Bernstein et al. 2018, Algorithm 2 (arXiv:1802.04434). Matches optax.signum.
    """

    sparse: ClassVar[Sparse] = "lazy"
    momentum_field: ClassVar[str | None] = "beta"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The first moment."""
        return MOMENT

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Share and decay of the moment, lr."""
        return (1.0 - self.beta) * scale, self.beta, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        take, beta, lr = c
        (m,) = s
        keep_and_add(m, beta, multiply(g, take, u))
        multiply(sign(m, u), lr, u)


class Lion(specs.Lion, Rule):
    """Evolved sign momentum.

        w <- w - lr sign(β1 m + (1 - β1) g)             with the moment before this update
        m <- β2 m + (1 - β2) g                          float32[N], exp_avg

    Source: Chen et al. 2023, Algorithm 2 (arXiv:2302.06675). Matches optax.lion and keras.optimizers.Lion.
    """

    sparse: ClassVar[Sparse] = "lazy"
    momentum_field: ClassVar[str | None] = "beta1"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The moment."""
        return MOMENT

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares of the gradient and of the moment in the step, then in the moment, and lr."""
        return (1.0 - self.beta1) * scale, self.beta1, (1.0 - self.beta2) * scale, self.beta2, lr

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        take1, beta1, take2, beta2, lr = c
        (m,) = s
        add(multiply(g, take1, u), multiply(m, beta1, a[0]), u)
        multiply(sign(u, u), lr, u)
        keep_and_add(m, beta2, multiply(g, take2, a[0]))


class Rprop(specs.Rprop, Rule):
    """Resilient backpropagation.

        s = sign(g p)                                   p: float32[N], prev; the gradient before
        d <- clip(d e(s), step_min, step_max)           d: float32[N], step_size; starts at lr0, the optimizer's lr
        p <- g where s ≥ 0, else 0                      e(s) = eta_plus, 1 or eta_minus as s is 1, 0 or -1
        w <- w - (lr / lr0) d sign(p)

    lr / lr0 is 1 unless a schedule or staleness scales the rate. e(s) is computed as 1 + max(s, 0) (eta_plus - 1)
    + min(s, 0) (1 - eta_minus), which has these values without a branch.

    Source: Riedmiller & Braun 1993 (the form without backtracking of weights). Matches torch.optim.Rprop.
    """

    sparse: ClassVar[Sparse] = "lazy"
    scratch_blocks: ClassVar[int] = 1

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The gradient before and the step lengths."""
        lengths = Slot("step_size", "d: how far each weight steps", self.lr, never_negative=True)
        return (Slot("prev", "p: the gradient before, 0 where its sign turned"), lengths)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Factor of the gradient, growth, shrinkage, bounds, and what the schedule makes of a step."""
        now = lr / self.lr if self.lr else 0.0
        return scale, self.eta_plus - 1.0, 1.0 - self.eta_minus, self.step_min, self.step_max, now

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The lines of the class's formula, for one block."""
        scale, growth, shrinkage, least, most, now = c
        p, d = s
        (turn,) = a
        sign(multiply(multiply(g, scale, u), sign(p, p), turn), turn)
        multiply(minimum(turn, 0.0, out=p), shrinkage, p)
        add(p, multiply(maximum(turn, 0.0, out=turn), growth, turn), turn)
        multiply(u, add(sign(p, p), 1.0, p), p)  # p is 0 or -1 as the sign stayed or turned
        multiply(d, add(turn, 1.0, turn), d)
        minimum(maximum(d, least, out=d), most, out=d)
        multiply(multiply(sign(p, u), d, u), now, u)


FAMILY = (SignSgd, Signum, Lion, Rprop)
