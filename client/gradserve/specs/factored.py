"""Second moments as a row times a column: Adafactor. Legend: `optimizers.py`; rms is over one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Count, Flag, Fraction, NotNegative, Real, folded
from .optimizer_fields import Decay, Lr, Maximize, OptimizerFields

_ADDED: Mapping[str, Any] = {"variant": "paper", "eps1": 1e-30}


class Adafactor(OptimizerFields):
    """Gradients over the root of a second moment of rank one. Matches torch.optim.Adafactor."""

    summary: ClassVar[str] = "Adam's rates in the memory of a row and a column a matrix; steps relative to the weights."
    formula: ClassVar[str] = (
        "k = t^beta2_decay; row <- (1 - k) row + k (mean of g² over the columns), col likewise over the rows; "
        "v = row col / max(mean row, eps1), of vectors the whole v; x = g / sqrt(max(v, eps1²)); "
        "alpha = max(eps2, rms w) min(lr, 1/sqrt t); w -= alpha x / max(1, rms x / clip_threshold). "
        "variant paper: means of g² + eps1 and no max with eps1. scale_parameter false: no max(eps2, rms w). "
        "relative_step false: lr for min(lr, 1/sqrt t). beta1: w -= m, the decaying mean of the steps."
    )
    source: ClassVar[str] = (
        "torch.optim.Adafactor; Shazeer & Stern 2018 (arXiv:1804.04235); variant paper: transformers, Keras, optax."
    )
    use_when: ClassVar[str] = "Large matrices, such as transformers, where two moments a weight do not fit."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "learningrate": "lr", "epsilon1": "eps1", "epsilon2": "eps2", "d": "clip_threshold", "b1": "beta1",
        "clippingthreshold": "clip_threshold", "momentum": "beta1", "multiplybyparameterscale": "scale_parameter",
        "mindimsizetofactor": "factor_from", "weightdecayrate": "weight_decay",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {**_ADDED, "lr": 1e-3, "decay_first": True},
        "optax": {
            **_ADDED, "relative_step": False, "factored_axes": "largest", "factor_from": 128,
            "weight_decay_mode": "fixed",
        },
        "transformers": {**_ADDED, "weight_decay_mode": "in_update"},
    }  # fmt: skip

    name: Literal["adafactor"] = "adafactor"
    lr: Lr = 1e-2
    variant: Annotated[
        Literal["torch", "paper"],
        Field(description="torch: eps1 bounds what is divided by. paper: eps1 is added to each squared gradient."),
    ] = "torch"
    beta2_decay: Annotated[
        Real, Field(le=0, description="The means take the share t^beta2_decay of what is new.")
    ] = -0.8
    eps1: Annotated[NotNegative | None, Field(description="See variant; null: the precision of the weights.")] = None
    eps2: Annotated[NotNegative, Field(description="The least size that weights are taken to have.")] = 1e-3
    clip_threshold: Annotated[Real, Field(ge=1, description="The largest root mean square of x.")] = 1.0
    scale_parameter: Annotated[Flag, Field(description="Steps relative to the size of the tensor's weights.")] = True
    relative_step: Annotated[Flag, Field(description="The rate is min(lr, 1/sqrt t); false: lr.")] = True
    beta1: Annotated[Fraction, Field(description="Decay of the mean of the steps; 0 keeps none.")] = 0.0
    factored_axes: Annotated[
        Literal["last", "largest"], Field(description="Which two axes are row and column (largest: optax).")
    ] = "last"
    factor_from: Annotated[
        Count, Field(description="A tensor with a shorter row or column keeps the whole v (optax: 128).")
    ] = 0
    weight_decay: Decay = 0.0
    weight_decay_mode: Annotated[
        Literal["decoupled", "in_update", "fixed", "l2"],
        Field(description="decoupled: w *= 1 - lr·wd. in_update: alpha for lr. fixed: 1 for lr. l2: g += wd·w."),
    ] = "decoupled"
    decay_first: Annotated[Flag, Field(description="rms w is of the weights after decoupled decay (Keras).")] = False
    maximize: Maximize = False

    @classmethod
    def _expand(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """torch's and transformers' `eps` is a pair, optax' `decay_rate` has the other sign, null is no momentum."""
        rest = super()._expand(given)
        for key in [key for key in rest if isinstance(key, str)]:
            word = folded(key)
            if word == "eps":
                pair = rest.pop(key)
                if not isinstance(pair, (list, tuple)) or len(pair) != 2 or {"eps1", "eps2"} & set(rest):
                    raise ValueError(f"expected eps1 and eps2, or eps to be [eps1, eps2], came eps {pair!r:.80}")
                rest["eps1"], rest["eps2"] = pair
            elif word in ("decayrate", "beta2decay") and "beta2_decay" not in set(rest) - {key}:
                value = rest.pop(key)
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                rest["beta2_decay"] = -abs(value) if number and word == "decayrate" else value
            elif word in ("beta1", "momentum") and rest[key] is None:
                rest[key] = 0.0
        return rest


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Adafactor,)
