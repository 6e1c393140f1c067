"""Clipping and what else is done to a gradient before weight decay and the rule. Stages of a list, in its order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from .base import Count, Family, Fraction, NotNegative, Positive, Spec
from .matrix_layout import MatrixLayout


class GlobalNorm(Spec):
    """Scale the whole gradient so that its Euclidean norm is at most `max_norm`."""

    summary: ClassVar[str] = "Bound the norm of the whole gradient; its direction stays."
    formula: ClassVar[str] = "g *= min(1, max_norm / (norm(g) + eps))"
    source: ClassVar[str] = "torch.nn.utils.clip_grad_norm_; eps 0 is optax and Keras' global_clipnorm."
    use_when: ClassVar[str] = "Recurrent networks and transformers; 1.0 is usual."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "clipnorm": "max_norm", "globalclipnorm": "max_norm", "epsilon": "eps",
    }  # fmt: skip

    name: Literal["global_norm"] = "global_norm"
    max_norm: Annotated[Positive, Field(description="Largest norm that passes unchanged.")]
    eps: Annotated[NotNegative, Field(description="Added to the norm.")] = 1e-6


class Value(Spec):
    """Bound each element of the gradient to -value … value."""

    summary: ClassVar[str] = "Bound each element of the gradient."
    formula: ClassVar[str] = "g = min(max(g, -value), value)"
    source: ClassVar[str] = "torch.nn.utils.clip_grad_value_; Keras' clipvalue."
    use_when: ClassVar[str] = "Single wild elements; it turns the gradient's direction."
    field_aliases: ClassVar[Mapping[str, str]] = {"clipvalue": "value"}

    name: Literal["value"] = "value"
    value: Annotated[Positive, Field(description="Largest magnitude of an element.")]


class TensorNorm(Spec):
    """Scale each tensor's gradient so that its Euclidean norm is at most `max_norm`."""

    summary: ClassVar[str] = "Bound the norm of each tensor on its own."
    formula: ClassVar[str] = "g *= max_norm / max(norm(g), max_norm), by tensor"
    source: ClassVar[str] = "Keras' clipnorm."
    use_when: ClassVar[str] = "One layer explodes and the others should not pay for it."
    field_aliases: ClassVar[Mapping[str, str]] = {"clipnorm": "max_norm"}

    name: Literal["tensor_norm"] = "tensor_norm"
    max_norm: Annotated[Positive, Field(description="Largest norm of a tensor that passes unchanged.")]


class BlockRms(Spec):
    """Scale each tensor's gradient so that its root mean square is at most `max_rms`."""

    summary: ClassVar[str] = "Bound the root mean square of each tensor."
    formula: ClassVar[str] = "g /= max(1, rms(g) / max_rms), by tensor"
    source: ClassVar[str] = "optax.clip_by_block_rms; Shazeer & Stern 2018 (arXiv:1804.04235)."
    use_when: ClassVar[str] = "Tensors of very different sizes."
    field_aliases: ClassVar[Mapping[str, str]] = {"threshold": "max_rms"}

    name: Literal["block_rms"] = "block_rms"
    max_rms: Annotated[Positive, Field(description="Largest root mean square that passes unchanged.")] = 1.0


class Adaptive(Spec):
    """Bound the gradient of each unit by a share of the norm of its weights."""

    summary: ClassVar[str] = "Bound each unit's gradient by a share of its weights' norm."
    formula: ClassVar[str] = "m = clipping max(norm(w), eps); where norm(g) > m: g *= m / norm(g), by unit"
    source: ClassVar[str] = "Brock et al. 2021 (arXiv:2102.06171); optax.adaptive_grad_clip (in_out), timm (out_in)."
    use_when: ClassVar[str] = "Networks without batch normalisation; leave the last layer out with a group of its own."
    field_aliases: ClassVar[Mapping[str, str]] = {"clipfactor": "clipping"}

    name: Literal["adaptive"] = "adaptive"
    clipping: Annotated[Positive, Field(description="Largest share.")] = 0.01
    eps: Annotated[Positive, Field(description="Norm that a unit of smaller weights counts with.")] = 1e-3
    layout: Annotated[
        MatrixLayout,
        Field(description="A unit is a slice of the first axis (torch), or of the last one (Keras, JAX)."),
    ] = "out_in"


class Normalize(Spec):
    """Scale the whole gradient to the norm `norm`, be it longer or shorter."""

    summary: ClassVar[str] = "The same length for every gradient."
    formula: ClassVar[str] = "g *= norm / (norm(g) + eps)"
    source: ClassVar[str] = "optax.normalize_by_update_norm."
    use_when: ClassVar[str] = "Only the direction can be trusted."
    field_aliases: ClassVar[Mapping[str, str]] = {"scalefactor": "norm"}

    name: Literal["normalize"] = "normalize"
    norm: Annotated[Positive, Field(description="The norm afterwards.")] = 1.0
    eps: Annotated[Positive, Field(description="Added to the norm.")] = 1e-6


class Centralize(Spec):
    """Take the mean over all axes but the first from each tensor of rank 2 and more."""

    summary: ClassVar[str] = "Gradients whose mean over each output unit is zero."
    formula: ClassVar[str] = "g -= mean(g over all axes but the first), rank > 1"
    source: ClassVar[str] = "Yong et al. 2020 (arXiv:2004.01461); optax.centralize."
    use_when: ClassVar[str] = "Convolutional networks; a regularisation that costs nothing."

    name: Literal["centralize"] = "centralize"


NoiseVariance = Annotated[NotNegative, Field(description="Variance at the first update.")]
NoisePower = Annotated[NotNegative, Field(le=2, description="How fast the variance falls.")]
NoiseSeed = Annotated[Count, Field(description="Another seed, other noise.")]


class Noise(Spec):
    """Add noise that gets smaller with the updates: the same noise for the same seed and update."""

    summary: ClassVar[str] = "Noise that decays with the updates."
    formula: ClassVar[str] = "g += sqrt(eta / t^gamma) n, n of mean 0 and variance 1: 12 uniform numbers added, less 6"
    source: ClassVar[str] = "Neelakantan et al. 2015 (arXiv:1511.06807); optax.add_noise (in distribution)."
    use_when: ClassVar[str] = "Very deep networks that start badly. No privacy: the sum ends at six deviations."

    name: Literal["noise"] = "noise"
    eta: NoiseVariance = 0.01
    gamma: NoisePower = 0.5
    seed: NoiseSeed = 0


class Quantile(Spec):
    """A bound that the run finds itself: a quantile of the norms of its last gradients."""

    summary: ClassVar[str] = "Bound the norm by what was usual in the last updates: a guard against explosions."
    formula: ClassVar[str] = "g *= min(1, factor q / norm(g)), q the quantile of the last `window` norms as they came"
    source: ClassVar[str] = "Seetharaman et al. 2020 (AutoClip, arXiv:2007.14469)."
    use_when: ClassVar[str] = "No good bound is known. Nothing is bound before there are 8 norms."
    field_aliases: ClassVar[Mapping[str, str]] = {"p": "quantile"}

    name: Literal["quantile"] = "quantile"
    quantile: Annotated[Fraction, Field(description="0.5 is the median.")] = 0.9
    factor: Annotated[Positive, Field(description="How much longer than the quantile a gradient may be.")] = 1.0
    window: Annotated[int, Field(strict=True, ge=8, le=1000, description="Updates looked back on.")] = 100


CLIPS = Family(
    kind="clip",
    built={
        "global_norm": GlobalNorm, "value": Value, "tensor_norm": TensorNorm, "block_rms": BlockRms,
        "adaptive": Adaptive, "normalize": Normalize, "centralize": Centralize, "noise": Noise, "quantile": Quantile,
    },
    aliases={
        "globalclipnorm": ("global_norm", {"eps": 0.0}), "clipvalue": ("value", {}), "clipnorm": ("tensor_norm", {}),
        "agc": ("adaptive", {}), "addnoise": ("noise", {}), "autoclip": ("quantile", {}),
    },
)  # fmt: skip

ClipSpec = Annotated[
    Annotated[
        GlobalNorm | Value | TensorNorm | BlockRms | Adaptive | Normalize | Centralize | Noise | Quantile,
        Field(discriminator="name"),
    ],
    BeforeValidator(CLIPS.read),
]
