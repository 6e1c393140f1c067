"""Adam and AdamW: one arithmetic, two defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from numpy import add, divide, maximum, multiply, sqrt

from gradserve import specs

from ..blocks import Array
from .rule import TINY, Rule, Scalar, Slot, integer_power, keep_and_add

__all__ = ["Adam", "AdamW"]

MOMENTS = (Slot("exp_avg"), Slot("exp_avg_sq"))
AMSGRAD_MOMENTS = (*MOMENTS, Slot("max_exp_avg_sq"))


class _AdaptiveMoments(Rule):
    """Adaptive moments with bias correction.

        m <- β1 m + (1 - β1) g                  first moment,  float32[N]   exp_avg
        v <- β2 v + (1 - β2) g²                 second moment, float32[N]   exp_avg_sq
        w <- w - lr (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps)

    t counts updates from 1; slots are written in place. Folded, with r = sqrt(1 - β2^t), the last line is

        w <- w - [lr r / (1 - β1^t)] m / (sqrt(v) + eps r)

    and the clip factor k of the gradient sits in (1 - β1) k and, so that its square cannot underflow, in
    (sqrt(1 - β2) k g)²: twelve operations a block. Variants, each a field:

        amsgrad                  x <- max(x, v) takes the place of v in the last line       max_exp_avg_sq
        bias_correction: false   1 instead of 1 - β1^t and of r
        eps_hat                  eps instead of eps r: beside the uncorrected root, as in Keras

    With eps = 0 an element that never had a gradient stays where it is (0 / 0 is taken as 0; no other element changes).

    Source: Kingma & Ba 2015, Algorithm 1 (arXiv:1412.6980); Reddi et al. 2018 (amsgrad). Matches torch.optim.Adam, with
    `weight_decay_mode` decoupled torch.optim.AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
    """

    if TYPE_CHECKING:  # fields of specs.Adam and specs.AdamW
        beta1: float
        beta2: float
        eps: float
        amsgrad: bool
        bias_correction: bool
        eps_hat: bool

    momentum_field: ClassVar[str] = "beta1"

    @property
    def slots(self) -> tuple[Slot, ...]:
        return AMSGRAD_MOMENTS if self.amsgrad else MOMENTS

    def scalars(self, t: int, lr: float, scale: float) -> tuple[float, ...]:
        c1, r = 1.0, 1.0
        if self.bias_correction:
            c1 = 1.0 - integer_power(self.beta1, t)
            r = math.sqrt(1.0 - integer_power(self.beta2, t))
        take1, take2 = (1.0 - self.beta1) * scale, math.sqrt(1.0 - self.beta2) * scale
        eps = self.eps if self.eps_hat else self.eps * r
        return take1, self.beta1, take2, self.beta2, max(eps, TINY), lr * r / c1

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        take1, beta1, take2, beta2, eps, gain = c
        m, v = s[0], s[1]
        multiply(g, take1, u)
        keep_and_add(m, beta1, u)
        multiply(g, take2, u)
        multiply(u, u, u)
        keep_and_add(v, beta2, u)
        if self.amsgrad:
            v = maximum(s[2], v, s[2])
        sqrt(v, u)
        add(u, eps, u)
        divide(m, u, u)
        multiply(u, gain, u)


class Adam(specs.Adam, _AdaptiveMoments):
    __doc__ = _AdaptiveMoments.__doc__


class AdamW(specs.AdamW, _AdaptiveMoments):
    __doc__ = _AdaptiveMoments.__doc__
