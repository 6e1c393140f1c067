"""Rates divided by the size of each parameter's gradients: Adagrad, RMSprop and Adadelta. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from .base import Flag, Fraction, NotNegative, Positive
from .optimizer_fields import Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields

EpsInSqrt = Annotated[Flag, Field(description="Add eps under the square root (Keras, optax).")]
Initial = Annotated[NotNegative, Field(description="What every element of the accumulator starts at.")]

_ALIASES: Mapping[str, str] = {
    **OptimizerFields.field_aliases,
    "initialaccumulator": "initial_accumulator_value",
    "initialscale": "initial_accumulator_value",
}


class Adagrad(OptimizerFields):
    """A rate for each parameter that falls with all gradients it ever had. Matches torch.optim.Adagrad."""

    summary: ClassVar[str] = "Rates that fall with the sum of squared gradients: rare parameters keep large steps."
    formula: ClassVar[str] = (
        "h <- h + g²; w -= lr / (1 + lr_decay (t - 1)) g / (sqrt(h) + eps), or g / sqrt(h + eps) with eps_in_sqrt."
    )
    source: ClassVar[str] = "torch.optim.Adagrad; Duchi et al. 2011; fedadagrad: Reddi et al. 2021, Algorithm 2."
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fedadagrad": {"lr": 0.1, "eps": 1e-3, "initial_accumulator_value": 1e-6},
    }
    use_when: ClassVar[str] = "Sparse gradients, convex problems; on long runs its steps become too small."
    field_aliases: ClassVar[Mapping[str, str]] = _ALIASES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {
            "lr": 1e-3, "eps": 1e-7, "eps_in_sqrt": True, "initial_accumulator_value": 0.1,
            "weight_decay_mode": "decoupled",
        },
        "optax": {"eps": 1e-7, "eps_in_sqrt": True, "initial_accumulator_value": 0.1},
    }  # fmt: skip

    name: Literal["adagrad"] = "adagrad"
    lr: Lr = 1e-2
    lr_decay: Annotated[NotNegative, Field(description="The rate is lr / (1 + lr_decay (t - 1)).")] = 0.0
    eps: Eps = 1e-10
    eps_in_sqrt: EpsInSqrt = False
    initial_accumulator_value: Initial = 0.0
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class RmsProp(OptimizerFields):
    """A rate for each parameter that follows the size of its recent gradients. Matches torch.optim.RMSprop."""

    summary: ClassVar[str] = "Gradients over the root of their recent mean square, with momentum if wanted."
    formula: ClassVar[str] = (
        "v <- alpha v + (1 - alpha) g²; centered: a <- alpha a + (1 - alpha) g, and max(v - a², 0) for v; "
        "u = g / (sqrt(v) + eps), or g / sqrt(v + eps) with eps_in_sqrt; momentum 0: w -= lr u. Else "
        "b <- momentum b + u; w -= lr b, or lr (u + momentum b) with nesterov. lr_in_momentum: "
        "b <- momentum b + lr u; w -= b, or lr u + momentum b with nesterov. "
        "bias_correction: v / (1 - alpha^t) for v, a / (1 - alpha^t) for a."
    )
    source: ClassVar[str] = "torch.optim.RMSprop; Tieleman & Hinton 2012; centered: Graves 2013 (arXiv:1308.0850)."
    use_when: ClassVar[str] = "Recurrent networks and reinforcement learning."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **_ALIASES, "rho": "alpha", "beta": "alpha", "decayrate": "alpha", "decay": "alpha", "mu": "momentum",
        "debias": "bias_correction",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {
            "lr": 1e-3, "alpha": 0.9, "eps": 1e-7, "eps_in_sqrt": True, "lr_in_momentum": True,
            "weight_decay_mode": "decoupled",
        },
        "optax": {"alpha": 0.9, "eps_in_sqrt": True, "lr_in_momentum": True},
    }  # fmt: skip

    name: Literal["rmsprop"] = "rmsprop"
    lr: Lr = 1e-2
    alpha: Annotated[Fraction, Field(description="Decay of the mean square; Keras calls it rho, optax decay.")] = 0.99
    eps: Eps = 1e-8
    eps_in_sqrt: EpsInSqrt = False
    centered: Annotated[Flag, Field(description="Divide by the standard deviation: v without the mean's square.")] = (
        False
    )
    momentum: Annotated[Fraction, Field(description="Share of the velocity that stays; 0 keeps no velocity.")] = 0.0
    nesterov: Annotated[Flag, Field(description="Look ahead along the velocity.")] = False
    lr_in_momentum: Annotated[Flag, Field(description="Put lr inside the velocity (Keras, optax).")] = False
    bias_correction: Annotated[Flag, Field(description="Divide the means by 1 - alpha^t.")] = False
    initial_accumulator_value: Initial = 0.0
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False

    @model_validator(mode="after")
    def _forms_fit(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("expected momentum > 0 with nesterov, came 0: set momentum (0.9 is usual) or leave it out")
        return self


class Adadelta(OptimizerFields):
    """Steps in the units of the weights: recent steps over recent gradients. Matches torch.optim.Adadelta."""

    summary: ClassVar[str] = "Each step as long as recent steps, per recent gradient: hardly a rate to choose."
    formula: ClassVar[str] = (
        "v <- rho v + (1 - rho) g²; d = sqrt(a + eps) / sqrt(v + eps) g; a <- rho a + (1 - rho) d²; w -= lr d."
    )
    source: ClassVar[str] = "torch.optim.Adadelta; Zeiler 2012 (arXiv:1212.5701)."
    use_when: ClassVar[str] = "Where no rate is known; it begins slowly, at steps of sqrt(eps)."
    field_aliases: ClassVar[Mapping[str, str]] = {**OptimizerFields.field_aliases, "alpha": "rho", "decay": "rho"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"lr": 1e-3, "rho": 0.95, "eps": 1e-7, "weight_decay_mode": "decoupled"},
        "optax": {},
    }

    name: Literal["adadelta"] = "adadelta"
    lr: Lr = 1.0
    rho: Annotated[Fraction, Field(description="Decay of both mean squares.")] = 0.9
    eps: Annotated[Positive, Field(description="Added under both roots; its root is the first step.")] = 1e-6
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Adagrad, RmsProp, Adadelta)
