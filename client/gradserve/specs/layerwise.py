"""Rates of a tensor's own: LAMB, LARS, NovoGrad, Fromage. Legend: `optimizers.py`; ‖·‖ is over one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from .base import Flag, Fraction, NotNegative
from .optimizer_fields import (
    BESIDE,
    BETA_ALIASES,
    Beside,
    Beta1,
    Beta2,
    Decay,
    DecayMode,
    Eps,
    Lr,
    Maximize,
    OptimizerFields,
)  # fmt: skip

InnerDecayMode = Annotated[
    Literal["in_update", "l2", Beside],
    Field(description=f"in_update: u += wd·w before the norms. l2: g += wd·w. {BESIDE}"),
]
EpsRoot = Annotated[NotNegative, Field(description="Added under the square root (optax).")]


class Lamb(OptimizerFields):
    """Adam whose step is as long as the tensor's weights allow. Matches optax.lamb."""

    summary: ClassVar[str] = "Adam, each tensor's step scaled by the norm of its weights: for very large batches."
    formula: ClassVar[str] = (
        "u = Adam's direction + weight_decay w; r = ‖w‖ / ‖u‖ (1 if either is 0; at most 1 with trust_clip); "
        "w -= lr r u. weight_decay_mode decoupled: w *= 1 - lr weight_decay first (Keras)."
    )
    source: ClassVar[str] = "optax.lamb; You et al. 2020 (arXiv:1904.00962); trust_clip: timm's LAMBC."
    use_when: ClassVar[str] = "Batches of thousands of samples, such as many workers whose gradients are averaged."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **BETA_ALIASES, "epsilonroot": "eps_root", "usebiascorrection": "bias_correction", "debias": "bias_correction",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"eps": 1e-7, "weight_decay_mode": "decoupled"},
        "optax": {},
    }

    name: Literal["lamb"] = "lamb"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-6
    eps_root: EpsRoot = 0.0
    bias_correction: Annotated[Flag, Field(description="Divide the moments by 1 - beta^t.")] = True
    trust_clip: Annotated[Flag, Field(description="Never lengthen a step: r is at most 1.")] = False
    weight_decay: Decay = 0.0
    weight_decay_mode: InnerDecayMode = "in_update"
    maximize: Maximize = False


class Lars(OptimizerFields):
    """Momentum whose step is as long as the tensor's weights allow. Matches optax.lars."""

    summary: ClassVar[str] = "SGD with momentum, each tensor's step scaled by the norm of its weights."
    formula: ClassVar[str] = (
        "u = g + weight_decay w; r = trust_coefficient ‖w‖ / (‖u‖ + eps) (1 if either norm is 0); "
        "v <- momentum v + lr r u; w -= v, or lr r u + momentum v with nesterov. "
        "norm_of_sum false: ‖g‖ + weight_decay ‖w‖ for ‖u‖. lr_in_momentum false: v <- momentum v + r u; w -= lr v."
    )
    source: ClassVar[str] = "optax.lars; You et al. 2017 (arXiv:1708.03888); both switches false: timm."
    use_when: ClassVar[str] = "Convolutional networks with batches of thousands of samples."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, "mu": "momentum", "trustcoeff": "trust_coefficient",
        "eeta": "trust_coefficient",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["lars"] = "lars"
    lr: Lr = 1.0
    momentum: Annotated[Fraction, Field(description="Share of the velocity that stays; 0 keeps no velocity.")] = 0.9
    nesterov: Annotated[Flag, Field(description="Look ahead along the velocity.")] = False
    lr_in_momentum: Annotated[Flag, Field(description="Put lr inside the velocity (the paper, optax).")] = True
    trust_coefficient: Annotated[NotNegative, Field(description="Share of ‖w‖ that a step of lr 1 has.")] = 1e-3
    norm_of_sum: Annotated[Flag, Field(description="Divide by ‖g + wd w‖; false: by ‖g‖ + wd ‖w‖ (the paper).")] = True
    eps: Eps = 0.0
    weight_decay: Decay = 0.0
    weight_decay_mode: InnerDecayMode = "in_update"
    maximize: Maximize = False

    @model_validator(mode="after")
    def _forms_fit(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("expected momentum > 0 with nesterov, came 0: set momentum (0.9 is usual) or leave it out")
        return self


class Novograd(OptimizerFields):
    """Adam with one second moment a tensor: the norm of its gradient. Matches optax.novograd."""

    summary: ClassVar[str] = "Gradients over their tensor's recent norm, with momentum: half of Adam's memory."
    formula: ClassVar[str] = (
        "n = ‖g‖²; v <- n (first gradient) or beta2 v + (1 - beta2) n; x = g / (sqrt(v + eps_root) + eps) + "
        "weight_decay w; m <- beta1 m + x, or (1 - beta1) x with grad_averaging; w -= lr m."
    )
    source: ClassVar[str] = "optax.novograd; Ginsburg et al. 2019 (arXiv:1905.11286)."
    use_when: ClassVar[str] = "Speech and image networks with large batches; robust to the first learning rate."
    field_aliases: ClassVar[Mapping[str, str]] = {**BETA_ALIASES, "epsilonroot": "eps_root"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["novograd"] = "novograd"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.25
    eps: Eps = 1e-6
    eps_root: EpsRoot = 0.0
    grad_averaging: Annotated[Flag, Field(description="The moment takes (1 - beta1) x instead of x.")] = False
    weight_decay: Decay = 0.0
    weight_decay_mode: InnerDecayMode = "in_update"
    maximize: Maximize = False


class Fromage(OptimizerFields):
    """Steps that are a share of the tensor's weights, and weights that do not grow by them. Matches optax.fromage."""

    summary: ClassVar[str] = "Each tensor moves by the share lr of its own norm; no moments, nothing to tune but lr."
    formula: ClassVar[str] = (
        "k = 1 / sqrt(1 + lr²); w <- k (w - lr max(‖w‖, min_norm) / max(‖g‖, min_norm) g); "
        "1 for the ratio if either is 0."
    )
    source: ClassVar[str] = "optax.fromage; Bernstein et al. 2020 (arXiv:2002.03432)."
    use_when: ClassVar[str] = "GANs and networks whose layers have very different scales; lr 0.01 nearly always."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["fromage"] = "fromage"
    lr: Lr = 1e-2
    min_norm: Annotated[NotNegative, Field(description="Norms below it are taken as this.")] = 1e-6
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Lamb, Lars, Novograd, Fromage)
