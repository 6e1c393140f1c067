"""Step sizes found while training, from the loss: Polyak's and MoMo's. Legend: `optimizers.py`; ‖·‖ and <·,·> are over
the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Flag, Fraction, Positive, Real
from .optimizer_fields import BETA_ALIASES, Beta1, Beta2, Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields

LowerBound = Annotated[Real, Field(description="A bound that the loss does not fall below; 0 fits most losses.")]
AdaptBound = Annotated[Flag, Field(description="Raise the bound while training; lower_bound is the least it may be.")]
MomoDecayMode = Annotated[
    Literal["decoupled", "l2"], Field(description="decoupled: w /= 1 + lr·wd. l2: g += wd·w before the rule.")
]
_MODEL = (
    "k = 1 + lr weight_decay (1 with l2); step = max(k (f - lower_bound c - q) + <m, w>, 0) / <m, u>, at most lr / c; "
    "w <- w / k - step u."
)


class PolyakSgd(OptimizerFields):
    """Steps as long as the loss is far from its minimum. Matches optax.polyak_sgd."""

    summary: ClassVar[str] = "SGD whose step follows from the loss: long far from the minimum, short near it."
    formula: ClassVar[str] = (
        "a = min((loss - f_min) / (‖g‖² + eps), max_lr); w -= lr a g. variant sps+: max(loss - f_min, 0)."
    )
    source: ClassVar[str] = "optax.polyak_sgd; Loizou et al. 2021 (arXiv:2002.10542); sps+: Garrigos et al. 2023."
    use_when: ClassVar[str] = "Losses whose minimum is known, such as 0; each push has to name its loss."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, "maxlearningrate": "max_lr", "scaling": "lr",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sps": {}}
    needs_loss: ClassVar[bool] = True

    name: Literal["polyak_sgd"] = "polyak_sgd"
    lr: Lr = 1.0
    max_lr: Annotated[Positive, Field(description="The longest step.")] = 1.0
    f_min: Annotated[Real, Field(description="The smallest loss there can be.")] = 0.0
    eps: Eps = 0.0
    variant: Annotated[Literal["sps", "sps+"], Field(description="sps+: a loss below f_min gives no step.")] = "sps"
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class Momo(OptimizerFields):
    """Momentum whose steps follow from the loss, never longer than lr. Matches optax.contrib.momo."""

    summary: ClassVar[str] = "SGD with momentum that shortens its steps where a model of the loss says so."
    formula: ClassVar[str] = (
        "b = beta, 0 at t = 1; m <- b m + (1 - b) g; f <- b f + (1 - b) loss; q <- b q + (1 - b) <g, w>; u = m; c = 1; "
        + _MODEL
    )
    source: ClassVar[str] = "optax.contrib.momo; Schaipp et al. 2024 (arXiv:2305.07583)."
    use_when: ClassVar[str] = "In the place of SGD with momentum when lr is hard to find: take it large, 1 is usual."
    field_aliases: ClassVar[Mapping[str, str]] = {**OptimizerFields.field_aliases, "mu": "beta", "momentum": "beta"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}
    needs_loss: ClassVar[bool] = True

    name: Literal["momo"] = "momo"
    lr: Annotated[Lr, Field(description="The longest step; the schedule scales it.")] = 1.0
    beta: Annotated[Fraction, Field(description="Decay of the means of gradient, loss and product.")] = 0.9
    lower_bound: LowerBound = 0.0
    adapt_lower_bound: AdaptBound = False
    weight_decay: Decay = 0.0
    weight_decay_mode: MomoDecayMode = "decoupled"
    maximize: Maximize = False


class MomoAdam(OptimizerFields):
    """Adam whose steps follow from the loss, never longer than lr. Matches optax.contrib.momo_adam."""

    summary: ClassVar[str] = "Adam that shortens its steps where a model of the loss says so."
    formula: ClassVar[str] = (
        "m, v as Adam; f <- beta1 f + (1 - beta1) loss; q <- beta1 q + (1 - beta1) <g, w>; c = 1 - beta1^t; "
        "u = m / (sqrt(v / (1 - beta2^t)) + eps); " + _MODEL
    )
    source: ClassVar[str] = "optax.contrib.momo_adam; Schaipp et al. 2024 (arXiv:2305.07583)."
    use_when: ClassVar[str] = "In the place of Adam when lr is hard to find: take it ten times as large."
    field_aliases: ClassVar[Mapping[str, str]] = BETA_ALIASES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}
    needs_loss: ClassVar[bool] = True

    name: Literal["momo_adam"] = "momo_adam"
    lr: Annotated[Lr, Field(description="The longest step; the schedule scales it.")] = 1e-2
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    lower_bound: LowerBound = 0.0
    adapt_lower_bound: AdaptBound = False
    weight_decay: Decay = 0.0
    weight_decay_mode: MomoDecayMode = "decoupled"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (PolyakSgd, Momo, MomoAdam)
