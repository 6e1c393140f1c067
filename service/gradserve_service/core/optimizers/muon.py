"""Muon: momentum, orthogonalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from numpy import add, divide, matmul, multiply, sqrt

from gradserve import specs

from ..blocks import Array, sum_of_squares
from .kinds import ShapedRule
from .rule import TINY, Memory, Scalar, Shape, Slot, integer_power, keep_and_add

__all__ = ["Muon", "orthogonalized"]


def _matrix(shape: Shape) -> Shape | None:
    return shape if len(shape) == 2 else None


def _no_matrix(shape: Shape) -> Shape | None:
    return None if len(shape) == 2 else shape


MOMENTUM = Slot("momentum_buffer", "m: momentum of the matrices", shape=_matrix)
MOMENTS = (
    Slot("exp_avg", "m: first moment of the other tensors", shape=_no_matrix),
    Slot("exp_avg_sq", "v: second moment of the other tensors", never_negative=True, shape=_no_matrix),
)


class Muon(specs.Muon, ShapedRule):
    """Each matrix goes by the orthogonal factor of its momentum, other tensors go by AdamW.

        m <- μ m + (1 - μ) g                            float32[N] of matrices, momentum_buffer
        u = (1 - μ) g + μ m                             nesterov; else m
        X = u / max(‖u‖, ε)
        five times:  A = X Xᵀ;  X <- a X + (b A + c A A) X
        w <- w (1 - lr λ) - lr k X                      k = sqrt(max(1, out / in)), or 0.2 sqrt(max(out, in))

    A matrix that is higher than wide is turned first: A is then the smaller of the two products. The iteration is in
    the dtype of the weights, where torch computes it in bfloat16. The moments of the other tensors are exp_avg and
    exp_avg_sq, as in `Adam`.

    Source: Jordan et al. 2024 (github.com/KellerJordan/Muon); Liu et al. 2025 (arXiv:2502.16982). Matches
    torch.optim.Muon with a float32 iteration; `compat`: keras.optimizers.Muon, optax.contrib.muon.
    """

    momentum_field: ClassVar[str | None] = "momentum"
    every_machine: ClassVar[bool] = False

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The momentum of matrices, both moments of the other tensors."""
        return (MOMENTUM, *MOMENTS)

    def scalars(self, t: int, lr: float, scale: float, memory: Memory) -> tuple[float, ...]:
        """lr; what the momentum takes, and shares of g and m in u; then those of the other tensors."""
        mu, take = self.momentum, 1.0 - self.momentum if self.dampened else 1.0
        past, next_past = (integer_power(mu, t), integer_power(mu, t + 1)) if self.bias_correction else (0.0, 0.0)
        of_g, of_m = (take / (1.0 - past), mu / (1.0 - next_past)) if self.nesterov else (0.0, 1.0 / (1.0 - past))
        return (lr, take, of_g, of_m, *self._fallback_scalars(t, lr))

    def _fallback_scalars(self, t: int, lr: float) -> tuple[float, ...]:
        """Shares of g and m in the numerator, eps, gain, and the decay to be taken back."""
        beta1 = self.fallback_beta1
        past = integer_power(beta1, t)
        of_g, of_m = 0.0, 1.0 / (1.0 - past)
        if self.fallback_nesterov:
            of_g, of_m = (1.0 - beta1) / (1.0 - past), beta1 / (1.0 - integer_power(beta1, t + 1))
        root = math.sqrt(1.0 - integer_power(self.fallback_beta2, t))
        eps = max(self.fallback_eps * (1.0 if self.fallback_eps_hat else root), TINY)
        taken_back = (
            lr * self.weight_decay if self.weight_decay_mode == "decoupled" and not self.fallback_decay else 0.0
        )
        return of_g, of_m, eps, lr * self.fallback_lr_scale * root, taken_back

    def change(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array, a: Sequence[Array]) -> None:
        """A matrix's orthogonal step, or another tensor's step of Adam."""
        if g.ndim != 2:
            self._fallback(c[4:], g, w, s, u)
            return
        lr, take, of_g, of_m = c[:4]
        (m,) = s
        keep_and_add(m, self.momentum, multiply(g, take, u))
        add(multiply(g, of_g, u), multiply(m, of_m), u)
        multiply(orthogonalized(u, self), float(lr) * self._growth(g.shape), u)

    def _fallback(self, c: Sequence[Scalar], g: Array, w: Array, s: Sequence[Array], u: Array) -> None:
        of_g, of_m, eps, gain, taken_back = c
        m, v = s
        keep_and_add(m, self.fallback_beta1, multiply(g, 1.0 - self.fallback_beta1, u))
        keep_and_add(v, self.fallback_beta2, multiply(multiply(g, 1.0 - self.fallback_beta2, u), g, u))
        add(multiply(g, of_g, u), multiply(m, of_m), u)
        multiply(divide(u, add(sqrt(v), eps), u), gain, u)
        if taken_back:
            add(u, multiply(w, -taken_back), u)

    def _growth(self, shape: Shape) -> float:
        outs, ins = shape if self.matrix_layout == "out_in" else shape[::-1]
        if self.adjust_lr_fn == "original":
            return math.sqrt(max(1.0, outs / ins))
        return self.rms_rate * math.sqrt(max(outs, ins)) if self.adjust_lr_fn == "match_rms_adamw" else 1.0


def orthogonalized(matrix: Array, rule: specs.Muon) -> Array:
    """Nearly U Vᵀ of U S Vᵀ, with singular values around 1, by Newton-Schulz iterations; a new array or a view of one.

    The iteration is a polynomial in X, odd and the same for Xᵀ: singular values below 1 rise to 0.7 … 1.2.
    """
    size = math.sqrt(sum_of_squares(matrix.reshape(-1)))
    x = multiply(matrix, 1.0 / max(size + rule.eps if rule.eps_added else max(size, rule.eps), TINY))
    turned = x.shape[0] > x.shape[1]
    if turned:
        x = x.T
    a, b, c = rule.ns_coefficients
    for _ in range(rule.ns_steps):
        product = matmul(x, x.T)
        inner = add(multiply(product, b), multiply(matmul(product, product), c))
        x = add(multiply(x, a), matmul(inner, x))
    return x.T if turned else x
