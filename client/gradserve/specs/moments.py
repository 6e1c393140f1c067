"""The family of Adam: a mean of gradients over a mean of their sizes. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Flag, NotNegative
from .optimizer_fields import BETA_ALIASES, Beta1, Beta2, Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields


class AdamFields(OptimizerFields):
    """What Adam and AdamW have in common: everything but the decay's defaults."""

    formula: ClassVar[str] = (
        "m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g²; "
        "w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t) + eps_root) + eps)."
    )
    field_aliases: ClassVar[Mapping[str, str]] = {
        **BETA_ALIASES,
        "epsilonroot": "eps_root",
        "usebiascorrection": "bias_correction",
        "correctbias": "bias_correction",
        "debias": "bias_correction",
    }

    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    eps_root: Annotated[NotNegative, Field(description="Added under the square root (optax).")] = 0.0
    eps_hat: Annotated[Flag, Field(description="Add eps before the bias correction (Keras).")] = False
    bias_correction: Annotated[Flag, Field(description="Divide the moments by 1 - beta^t.")] = True
    amsgrad: Annotated[Flag, Field(description="Use the largest second moment so far.")] = False
    amsgrad_corrected: Annotated[Flag, Field(description="amsgrad: largest of the corrected moments (optax).")] = False


class Adam(AdamFields):
    """Adaptive moments. Matches torch.optim.Adam; weight decay is L2 in the gradient."""

    summary: ClassVar[str] = "Adaptive moments: a step size of its own for each parameter."
    source: ClassVar[str] = "torch.optim.Adam; Kingma & Ba 2015 (arXiv:1412.6980); amsgrad: Reddi et al. 2018."
    use_when: ClassVar[str] = "The first thing to try."
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "amsgrad": {"amsgrad": True},
        "fedadam": {"lr": 0.1, "beta2": 0.99, "eps": 1e-3, "bias_correction": False},
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"eps": 1e-7, "eps_hat": True, "weight_decay_mode": "decoupled"},
        "optax": {"amsgrad_corrected": True},
    }

    name: Literal["adam"] = "adam"
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class AdamW(AdamFields):
    """Adam with decoupled weight decay: w *= 1 - lr·weight_decay, then Adam's step. Matches torch.optim.AdamW."""

    summary: ClassVar[str] = "Adam with weight decay beside the step instead of inside the gradient."
    source: ClassVar[str] = "torch.optim.AdamW; Loshchilov & Hutter 2019 (arXiv:1711.05101)."
    use_when: ClassVar[str] = "Transformers, and wherever Adam needs weight decay."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"eps": 1e-7, "eps_hat": True, "weight_decay": 4e-3},
        "optax": {"amsgrad_corrected": True, "weight_decay": 1e-4},
    }

    name: Literal["adamw"] = "adamw"
    weight_decay: Decay = 1e-2
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class Adamax(OptimizerFields):
    """Adam with the largest gradient, decaying, in the place of the second moment. Matches torch.optim.Adamax."""

    summary: ClassVar[str] = "Adam with the infinity norm: a scale that one loud gradient sets, and that then decays."
    formula: ClassVar[str] = (
        "m <- beta1 m + (1 - beta1) g; u <- max(beta2 u, |g| + eps); w -= lr / (1 - beta1^t) m / u. "
        "eps_in_max false: u <- max(beta2 u, |g|); w -= lr / (1 - beta1^t) m / (u + eps)."
    )
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "adamaxw": {"weight_decay": 1e-2, "weight_decay_mode": "decoupled"},
    }
    source: ClassVar[str] = "torch.optim.Adamax; Kingma & Ba 2015, section 7.1 (arXiv:1412.6980)."
    use_when: ClassVar[str] = "Embeddings, and gradients that come rarely and loud; needs no square."
    field_aliases: ClassVar[Mapping[str, str]] = BETA_ALIASES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"lr": 1e-3, "eps": 1e-7, "eps_in_max": False, "weight_decay_mode": "decoupled"},
        "optax": {},
    }

    name: Literal["adamax"] = "adamax"
    lr: Lr = 2e-3
    beta1: Beta1 = 0.9
    beta2: Annotated[Beta2, Field(description="Decay of the largest gradient.")] = 0.999
    eps: Eps = 1e-8
    eps_in_max: Annotated[Flag, Field(description="Add eps to |g| (torch); false: to u (Keras).")] = True
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class Nadam(OptimizerFields):
    """Adam that looks ahead along its first moment, as Nesterov does. Matches torch.optim.NAdam."""

    summary: ClassVar[str] = "Adam with Nesterov's look-ahead."
    formula: ClassVar[str] = (
        "m, v as Adam; mu(t) = beta1 (1 - 0.96^(momentum_decay t) / 2); P <- P mu(t); "
        "w -= lr ((1 - mu(t)) / (1 - P) g + mu(t+1) / (1 - P mu(t+1)) m) / (sqrt(v / (1 - beta2^t)) + eps). "
        "variant constant: mu(t) = beta1, the numerator beta1 m / (1 - beta1^(t+1)) + (1 - beta1) g / (1 - beta1^t)."
    )
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "nadamw": {"weight_decay": 1e-2, "weight_decay_mode": "decoupled"},
    }
    source: ClassVar[str] = "torch.optim.NAdam; Dozat 2016; variant constant: optax.nadam."
    use_when: ClassVar[str] = "Where Adam works and the gradients are not too noisy; often a little faster."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **BETA_ALIASES, "scheduledecay": "momentum_decay", "psi": "momentum_decay",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"lr": 1e-3, "eps": 1e-7, "momentum_decay": 1.0, "weight_decay_mode": "decoupled"},
        "optax": {"variant": "constant"},
    }

    name: Literal["nadam"] = "nadam"
    lr: Lr = 2e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    momentum_decay: Annotated[
        NotNegative, Field(description="How fast mu(t) rises from beta1 / 2 to beta1: 0.004 in torch, 1 in Keras 3.")
    ] = 4e-3
    variant: Annotated[
        Literal["dozat", "constant"], Field(description="dozat: mu(t) rises with t. constant: mu is beta1 (optax).")
    ] = "dozat"
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Adam, AdamW, Adamax, Nadam)
