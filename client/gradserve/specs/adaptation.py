"""Rates found while training, from how far the solution must be. Legend: `optimizers.py`; ‖·‖, <·,·> and Σ are over the
whole run, w0 what training began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Flag, Fraction, Positive, Real
from .optimizer_fields import BETA_ALIASES, Beta1, Beta2, Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields

Factor = Annotated[Lr, Field(description="Factor of the rate that is found: leave it at 1; the schedule scales it.")]
D0 = Annotated[Positive, Field(description="First estimate of the distance; too small does no harm.")]
Growth = Annotated[
    Annotated[Real, Field(ge=1)] | None,
    Field(description="The most that d grows by in one update, as a factor; null: any. 1.02 warms up slowly."),
]
AdaptedDecayMode = Annotated[
    Literal["l2", "decoupled"],
    Field(description="l2: g += wd·w before the rule. decoupled: w *= 1 - k·wd, k the rate that was found."),
]
Corrected = Annotated[Flag, Field(description="Scale the rate by sqrt(1 - beta2^t) / (1 - beta1^t), as optax does.")]
_ALIASES: Mapping[str, str] = {
    **BETA_ALIASES, "usebiascorrection": "bias_correction", "estimlr0": "d0", "estimlrcoef": "d_coef",
}  # fmt: skip
_RATE = "k = d lr, times sqrt(1 - beta2^t) / (1 - beta1^t) with bias_correction; "


class DAdaptSgd(OptimizerFields):
    """SGD that finds its rate. Matches dadaptation.DAdaptSGD."""

    summary: ClassVar[str] = "SGD without a rate: a lower bound of the distance to the solution is the rate."
    formula: ClassVar[str] = (
        "k = d lr / ‖g1‖, g1 the first gradient; n += k <g, s>; s += k g; d <- max(d, min(2 n / ‖s‖, d growth_rate)); "
        "w <- momentum w + (1 - momentum) (w0 - s). d starts at d0."
    )
    source: ClassVar[str] = "Package dadaptation, DAdaptSGD; Defazio & Mishchenko 2023 (arXiv:2301.07733)."
    use_when: ClassVar[str] = "In the place of SGD when nobody wants to search for the rate; keep its schedule."
    field_aliases: ClassVar[Mapping[str, str]] = {**OptimizerFields.field_aliases, "mu": "momentum"}

    name: Literal["dadapt_sgd"] = "dadapt_sgd"
    lr: Factor = 1.0
    momentum: Annotated[Fraction, Field(description="Share of the weights that stays.")] = 0.0
    d0: D0 = 1e-6
    growth_rate: Growth = None
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class DAdaptAdam(OptimizerFields):
    """Adam that finds its rate. Matches dadaptation.DAdaptAdam; `compat: optax` optax.contrib.dadapt_adamw."""

    summary: ClassVar[str] = "Adam without a rate: a lower bound of the distance to the solution is the rate."
    formula: ClassVar[str] = (
        _RATE + "b = sqrt(beta2); n <- b n + (1 - b) k <g, s / (sqrt(v) + eps)>; m <- beta1 m + (1 - beta1) k g; "
        "v as Adam; s <- b s + (1 - b) k g; d <- max(d, min(n / ((1 - b) Σ|s|), d growth_rate)); "
        "w -= m / (sqrt(v) + eps). d starts at d0."
    )
    source: ClassVar[str] = (
        "Package dadaptation, DAdaptAdam; optax.contrib.dadapt_adamw; Defazio & Mishchenko 2023 (arXiv:2301.07733)."
    )
    use_when: ClassVar[str] = "In the place of Adam when nobody wants to search for the rate; keep its schedule."
    field_aliases: ClassVar[Mapping[str, str]] = _ALIASES
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"dadaptadamw": {"weight_decay_mode": "decoupled"}}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {}, "optax": {"bias_correction": True, "weight_decay_mode": "decoupled"},
    }  # fmt: skip

    name: Literal["dadapt_adam"] = "dadapt_adam"
    lr: Factor = 1.0
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    bias_correction: Corrected = False
    d0: D0 = 1e-6
    growth_rate: Growth = None
    weight_decay: Decay = 0.0
    weight_decay_mode: AdaptedDecayMode = "l2"
    maximize: Maximize = False


class Prodigy(OptimizerFields):
    """Adam that finds its rate, faster than D-Adaptation. Matches prodigyopt.Prodigy; `compat: optax` optax' form."""

    summary: ClassVar[str] = "Adam without a rate, with later gradients counting more in finding it."
    formula: ClassVar[str] = (
        _RATE + "b = beta3, or sqrt(beta2); n <- b n + (d / d0) k <g, w0 - w>; m <- beta1 m + (1 - beta1) d g; "
        "v <- beta2 v + (1 - beta2) d² g²; s <- b s + (d / d0) k g (d for k: safeguard_warmup); D = d_coef n / Σ|s|; "
        "d' = min(largest D so far, growth_rate d); w -= k m / (sqrt(v) + d' eps); d <- d'. d and D start at d0."
    )
    source: ClassVar[str] = "Package prodigyopt; optax.contrib.prodigy; Mishchenko & Defazio 2024 (arXiv:2306.06101)."
    use_when: ClassVar[str] = "In the place of AdamW when nobody wants to search for the rate; cosine schedule, lr 1."
    field_aliases: ClassVar[Mapping[str, str]] = {**_ALIASES, "b3": "beta3"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {"bias_correction": True}}

    name: Literal["prodigy"] = "prodigy"
    lr: Factor = 1.0
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    beta3: Annotated[Fraction | None, Field(description="Decay of the sums; null: sqrt(beta2).")] = None
    eps: Eps = 1e-8
    bias_correction: Corrected = False
    safeguard_warmup: Annotated[Flag, Field(description="Keep lr out of s: a warmup does not raise D.")] = False
    d0: D0 = 1e-6
    d_coef: Annotated[Positive, Field(description="Factor of D: the way to tune this rule.")] = 1.0
    growth_rate: Growth = None
    weight_decay: Decay = 0.0
    weight_decay_mode: AdaptedDecayMode = "decoupled"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (DAdaptSgd, DAdaptAdam, Prodigy)
