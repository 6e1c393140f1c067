"""Steps in the coordinates of each axis' statistics: Shampoo, SOAP. Legend: `optimizers.py`; G(i) is the gradient with
axis i in front and the others flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import COUNT_MAX, Flag, Fraction, Positive
from .optimizer_fields import BETA_ALIASES, Beta1, Beta2, Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields

Frequency = Annotated[
    int, Field(strict=True, ge=1, le=COUNT_MAX, description="Updates from one decomposition of matrices to the next.")
]
LongestAxis = Annotated[
    int, Field(strict=True, ge=1, le=COUNT_MAX, description="A longer axis is left as it is: it would cost its square.")
]
_ALIASES: Mapping[str, str] = {
    "preconditioningcomputesteps": "precondition_frequency", "maxpreconddim": "max_preconditioner_dim",
    "maxpreconditiondim": "max_preconditioner_dim",
}  # fmt: skip


class Shampoo(OptimizerFields):
    """The gradient times a root of the inverse of each axis' statistics. Matches pytorch_optimizer's Shampoo."""

    summary: ClassVar[str] = "Rates for directions instead of weights, from what rows and columns have seen together."
    formula: ClassVar[str] = (
        "for each axis i of a tensor: L_i <- L_i + G(i) G(i)ᵀ, from eps I; P_i = L_i^(-1 / 2r), r the number of axes, "
        "every precondition_frequency updates; u = G times P_i along each axis; grafting sgd: u ‖G‖ / ‖u‖; "
        "w -= lr u, or with momentum m <- momentum m + u; w -= lr m."
    )
    source: ClassVar[str] = "pytorch_optimizer.Shampoo; Gupta et al. 2018, Algorithm 2 (arXiv:1802.09568)."
    use_when: ClassVar[str] = "Networks of matrices up to a few hundred wide; precondition_frequency 10 or more."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, **_ALIASES, "matrixeps": "eps", "mu": "momentum", "grafttype": "grafting",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}}

    name: Literal["shampoo"] = "shampoo"
    lr: Lr = 1e-3
    momentum: Annotated[Fraction, Field(description="Share of the mean step that stays; 0 keeps none.")] = 0.0
    eps: Annotated[Positive, Field(description="Where the statistics of each direction begin.")] = 1e-6
    precondition_frequency: Frequency = 1
    max_preconditioner_dim: LongestAxis = 8192
    grafting: Annotated[
        Literal["none", "sgd"], Field(description="sgd: a tensor's step is as long as its gradient.")
    ] = "none"
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class Soap(OptimizerFields):
    """Adam in the eigenbasis of Shampoo's statistics. Matches its authors' SOAP."""

    summary: ClassVar[str] = "Adam in coordinates that are turned to what rows and columns have seen together."
    formula: ClassVar[str] = (
        "for each axis i: L_i <- shampoo_beta L_i + (1 - shampoo_beta) G(i) G(i)ᵀ; Q_i the eigenvectors of the first "
        "L_i, then every precondition_frequency updates those of one power step, QR(L_i Q_i); the first gradient only "
        "begins L and Q. k = t - 1; m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) (g in Q)²; "
        "u = (m in Q) / (sqrt(v) + eps), turned back; w -= lr sqrt(1 - beta2^k) / (1 - beta1^k) u; "
        "w *= 1 - lr weight_decay."
    )
    source: ClassVar[str] = "Vyas et al. 2024, Algorithm 3 (arXiv:2409.11321); pytorch_optimizer.SOAP."
    use_when: ClassVar[str] = "Transformers, where fewer updates are worth a decomposition now and then."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **BETA_ALIASES, **_ALIASES, "correctbias": "bias_correction", "precondition1d": "precondition_vectors",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}}

    name: Literal["soap"] = "soap"
    lr: Lr = 3e-3
    beta1: Beta1 = 0.95
    beta2: Beta2 = 0.95
    shampoo_beta: Annotated[Fraction | None, Field(description="Decay of the statistics; null: beta2.")] = None
    eps: Eps = 1e-8
    bias_correction: Annotated[Flag, Field(description="Divide the moments by 1 - beta^k.")] = True
    precondition_frequency: Frequency = 10
    max_preconditioner_dim: LongestAxis = 10_000
    precondition_vectors: Annotated[Flag, Field(description="Turn vectors too; false: plain Adam for them.")] = False
    weight_decay: Decay = 1e-2
    weight_decay_mode: Annotated[
        Literal["after_step", "decoupled", "l2"],
        Field(description="after_step: w *= 1 - lr·wd after the step. decoupled: before it. l2: g += wd·w."),
    ] = "after_step"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Shampoo, Soap)
