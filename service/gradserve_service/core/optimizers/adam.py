"""Adam and AdamW: one arithmetic, two defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from numpy import add, divide, maximum, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .rule import TINY, Memory, Rule, Scalar, Slot, Sparse, integer_power, keep_and_add

__all__ = ["Adam", "AdamW", "AdaptiveMoments"]

MOMENTS = (
    Slot("exp_avg", "m: first moment, the decaying mean of the gradients"),
    Slot("exp_avg_sq", "v: second moment, the decaying mean of their squares", never_negative=True),
)
AMSGRAD_MOMENTS = (*MOMENTS, Slot("max_exp_avg_sq", "the largest second moment so far", never_negative=True))


class AdaptiveMoments(Rule):
    """The arithmetic that `Adam`, `AdamW` and `SparseAdam` share."""

    sparse: ClassVar[Sparse] = "lazy"

    if TYPE_CHECKING:  # fields of specs.Adam and specs.AdamW, constants of SparseAdam
        beta1: float
        beta2: float
        eps: float

        @property
        def eps_root(self) -> float: ...
        @property
        def eps_hat(self) -> bool: ...
        @property
        def bias_correction(self) -> bool: ...
        @property
        def amsgrad(self) -> bool: ...
        @property
        def amsgrad_corrected(self) -> bool: ...

    momentum_field: ClassVar[str | None] = "beta1"
    forms: ClassVar[tuple[Mapping[str, Any], ...]] = ({"amsgrad": True},)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The two moments, and the largest second one with `amsgrad`."""
        return AMSGRAD_MOMENTS if self.amsgrad else MOMENTS

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """Shares and decays of the moments, the corrected moment's factor, eps_root, eps and the gain, all folded."""
        c1, c2 = 1.0, 1.0
        if self.bias_correction:
            c1, c2 = 1.0 - integer_power(self.beta1, t), 1.0 - integer_power(self.beta2, t)
        x_scale = 1.0 if self.amsgrad and self.amsgrad_corrected else c2  # x is this much of the corrected moment
        r = math.sqrt(x_scale)
        eps = self.eps * math.sqrt(x_scale / c2) if self.eps_hat else self.eps * r
        take1, take2 = (1.0 - self.beta1) * scale, math.sqrt(1.0 - self.beta2) * scale
        return take1, self.beta1, take2, self.beta2, x_scale / c2, self.eps_root * x_scale, max(eps, TINY), lr * r / c1

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """The folded lines of `Adam`, for one block."""
        take1, beta1, take2, beta2, correct, eps_root, eps, gain = c
        m, v = s[0], s[1]
        keep_and_add(m, beta1, multiply(g, take1, u))
        multiply(g, take2, u)
        keep_and_add(v, beta2, multiply(u, u, u))
        x = v
        if self.amsgrad:
            x = maximum(s[2], multiply(v, correct, u) if self.amsgrad_corrected else v, out=s[2])
        if self.eps_root:
            x = add(x, eps_root, u)
        add(sqrt(x, u), eps, u)
        multiply(divide(m, u, u), gain, u)

    def element_rates(self, t: int, lr: float, s: Sequence[Array]) -> Array | None:
        """lr / (sqrt(v / (1 - β2^t) + eps_root) + eps), with the largest second moment for v where that is the rule."""
        c2 = 1.0 - integer_power(self.beta2, t) if self.bias_correction else 1.0
        x = s[-1] if self.amsgrad and self.amsgrad_corrected else s[-1] / c2
        return divide(lr, sqrt(x + self.eps_root) + (self.eps / math.sqrt(c2) if self.eps_hat else self.eps))


class Adam(specs.Adam, AdaptiveMoments):
    """Adaptive moments with bias correction.

        m <- β1 m + (1 - β1) g                  first moment,  float32[N]   exp_avg
        v <- β2 v + (1 - β2) g²                 second moment, float32[N]   exp_avg_sq
        w <- w - lr (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t) + eps_root) + eps)

    t counts updates from 1; slots are written in place. Folded, with r = sqrt(1 - β2^t), the last line is

        w <- w - [lr r / (1 - β1^t)] m / (sqrt(v + eps_root r²) + eps r)

    and the clip factor k of the gradient sits in (1 - β1) k and, so that its square cannot underflow, in
    (sqrt(1 - β2) k g)²: twelve operations a block. Variants, each a field:

        bias_correction: false   1 instead of 1 - β1^t and of 1 - β2^t
        eps_hat                  eps beside the uncorrected root: `sqrt(v) + eps` in the folded line, as in Keras
        amsgrad                  the largest v so far instead of v       max_exp_avg_sq
        amsgrad_corrected        the largest v / (1 - β2^t) so far instead of v / (1 - β2^t), as in optax

    With eps = 0 an element that never had a gradient stays where it is: 0 / 0 is taken as 0, nothing else changes.

    Source: Kingma & Ba 2015, Algorithm 1 (arXiv:1412.6980); amsgrad: Reddi et al. 2018. Matches torch.optim.Adam.
    """


class AdamW(specs.AdamW, AdaptiveMoments):
    """Adam with decoupled weight decay.

        w <- (1 - lr λ) w                       λ = weight_decay; the driver's work
        w <- w - Adam's change

    Slots, variants and arithmetic are those of `Adam`; only the decay and its defaults differ.

    Source: Loshchilov & Hutter 2019, Algorithm 2 with η·α as one lr (arXiv:1711.05101). Matches torch.optim.AdamW.
    """
