"""Steps that are orthogonal matrices: Muon. Legend: `optimizers.py`; ‖·‖ is over one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Flag, Fraction, NotNegative, Real, folded
from .matrix_layout import AXES, MatrixLayout
from .optimizer_fields import Decay, DecayMode, Lr, Maximize, OptimizerFields


class Muon(OptimizerFields):
    """Momentum whose matrices are made orthogonal; AdamW for all other tensors. Matches torch.optim.Muon in float32."""

    summary: ClassVar[str] = "Each matrix moves by the orthogonal matrix nearest to its momentum; the rest by AdamW."
    formula: ClassVar[str] = (
        "m <- momentum m + (1 - momentum) g, or + g without dampened; u = (1 - momentum) g + momentum m (nesterov) or "
        "m; X = u / max(‖u‖, eps), or ‖u‖ + eps with eps_added; ns_steps times, with ns_coefficients a, b, c: "
        "A = X Xᵀ, X <- a X + (b A + c A A) X; w *= 1 - lr weight_decay; w -= lr k X, k = sqrt(max(1, out/in)) "
        "(original), rms_rate sqrt(max(out, in)) (match_rms_adamw) or 1. Tensors that are no matrices: "
        "adamw with the fields fallback_…, at lr fallback_lr_scale."
    )
    source: ClassVar[str] = (
        "torch.optim.Muon, its iteration in float32; Jordan et al. 2024 (github.com/KellerJordan/Muon); "
        "match_rms_adamw: Liu et al. 2025 (arXiv:2502.16982)."
    )
    use_when: ClassVar[str] = (
        "Transformers: fewer updates than AdamW, one moment; give the embedding a group of its own."
    )
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, "beta": "momentum", "mu": "momentum", "newtonschulzsteps": "ns_steps",
        "nscoeffs": "ns_coefficients", "layout": "matrix_layout", "adambeta1": "fallback_beta1",
        "adambeta2": "fallback_beta2", "adamb1": "fallback_beta1", "adamb2": "fallback_beta2",
        "adamlrratio": "fallback_lr_scale",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {
            "weight_decay": 4e-3, "dampened": False, "eps_added": True, "adjust_lr_fn": "match_rms_adamw",
            "matrix_layout": "in_out", "fallback_eps": 1e-7, "fallback_eps_hat": True,
        },
        "optax": {
            "weight_decay": 0.0, "eps": 1e-8, "eps_added": True, "bias_correction": True, "matrix_layout": "in_out",
            "fallback_nesterov": True, "fallback_decay": False,
        },
        "author": {"lr": 0.02, "weight_decay": 0.0, "eps_added": True},
    }  # fmt: skip

    name: Literal["muon"] = "muon"
    lr: Lr = 1e-3
    momentum: Annotated[Fraction, Field(description="Share of the momentum that stays.")] = 0.95
    nesterov: Annotated[Flag, Field(description="Look ahead along the momentum.")] = True
    dampened: Annotated[Flag, Field(description="The momentum takes (1 - momentum) g; false: g (Keras).")] = True
    bias_correction: Annotated[Flag, Field(description="m / (1 - momentum^(t+1)), g / (1 - momentum^t) (optax).")] = (
        False
    )
    eps: Annotated[NotNegative, Field(description="The least norm that u is divided by.")] = 1e-7
    eps_added: Annotated[Flag, Field(description="Add eps to the norm instead (Keras, optax, the author).")] = False
    ns_steps: Annotated[int, Field(strict=True, ge=1, le=99, description="Newton-Schulz iterations.")] = 5
    ns_coefficients: Annotated[tuple[Real, Real, Real], Field(description="a, b, c of each iteration.")] = (
        3.4445,
        -4.7750,
        2.0315,
    )
    adjust_lr_fn: Annotated[
        Literal["original", "match_rms_adamw", "none"], Field(description="How a step grows with its matrix.")
    ] = "original"
    rms_rate: Annotated[NotNegative, Field(description="Root mean square of a step of match_rms_adamw, lr 1.")] = 0.2
    matrix_layout: Annotated[MatrixLayout, Field(description=AXES)] = "out_in"
    fallback_lr_scale: Annotated[NotNegative, Field(description="Of lr, for tensors that are no matrices.")] = 1.0
    fallback_beta1: Annotated[Fraction, Field(description="Decay of their first moment.")] = 0.9
    fallback_beta2: Annotated[Fraction, Field(description="Decay of their second moment.")] = 0.999
    fallback_eps: Annotated[NotNegative, Field(description="Added to their denominator.")] = 1e-8
    fallback_eps_hat: Annotated[Flag, Field(description="Add it beside the uncorrected root (Keras).")] = False
    fallback_nesterov: Annotated[Flag, Field(description="Their first moment looks ahead (optax).")] = False
    fallback_decay: Annotated[Flag, Field(description="False: decoupled decay is for matrices alone (optax).")] = True
    weight_decay: Decay = 0.1
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False

    @classmethod
    def _expand(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Keras' and optax' words that are two fields here, and null for no adjustment."""
        rest = super()._expand(given)
        for key in [key for key in rest if isinstance(key, str)]:
            word = folded(key)
            if word in ("rmsrate", "consistentrms") and (word == "consistentrms" or rest[key] is None):
                rate = rest.pop(key)
                without = "none" if word == "rmsrate" else "original"
                rest |= {"adjust_lr_fn": without} if rate is None else {**_MATCHED, "rms_rate": rate}
            elif word == "adjustlrfn" and rest[key] is None:
                rest[key] = "original"
            elif word in ("excludelayers", "excludeembeddings") and rest.pop(key):
                raise ValueError(f"expected {key} unset: a tensor is a matrix by its shape here, not by its name")
        return rest


_MATCHED: Mapping[str, Any] = {"adjust_lr_fn": "match_rms_adamw"}

FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Muon,)
