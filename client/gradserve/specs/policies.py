"""Clipping, aggregation and staleness: what happens to a gradient before the optimizer sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from .base import Count, Family, NotNegative, Positive, Spec

# ------------------------------------------------------------------------------------------------------ clipping


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


CLIPS = Family(
    kind="clip",
    built={"global_norm": GlobalNorm, "value": Value},
    aliases={"globalclipnorm": ("global_norm", {"eps": 0.0}), "clipvalue": ("value", {})},
    planned=("tensor_norm", "block_rms", "adaptive", "normalize", "centralize", "quantile"),
    planned_aliases={"clipnorm": "tensor_norm", "agc": "adaptive"},
)

ClipSpec = Annotated[
    Annotated[GlobalNorm | Value, Field(discriminator="name")],
    BeforeValidator(CLIPS.read),
]

# --------------------------------------------------------------------------------------------------- aggregation


class Async(Spec):
    """Each gradient is an update of its own, in the order of arrival."""

    summary: ClassVar[str] = "Every gradient is applied when it arrives."
    formula: ClassVar[str] = "one push, one update"
    source: ClassVar[str] = "Dean et al. 2012 (Downpour SGD)."
    use_when: ClassVar[str] = "Workers of different speeds; nobody waits for anybody."

    mode: Literal["async"] = "async"


AGGREGATIONS = Family(
    kind="aggregation",
    built={"async": Async},
    planned=("sync", "ssp"),
    tag="mode",
    cure=": this server runs async, leave 'aggregation' out",
)

AggregationSpec = Annotated[Async, BeforeValidator(AGGREGATIONS.read)]

# ----------------------------------------------------------------------------------------------------- staleness

MaxStaleness = Annotated[
    Count | None,
    Field(description="An older gradient is refused (stale-gradient); null is unlimited."),
]


class NoStaleness(Spec):
    """Every gradient counts in full, however old the weights were that it was computed at."""

    summary: ClassVar[str] = "Stale gradients count in full."
    formula: ClassVar[str] = "1"
    use_when: ClassVar[str] = "One worker, or few of equal speed."

    name: Literal["none"] = "none"
    max_staleness: MaxStaleness = None


class Inverse(Spec):
    """lr of the update times 1 / (1 + staleness)."""

    summary: ClassVar[str] = "The older the gradient, the smaller its step."
    formula: ClassVar[str] = "1 / (1 + staleness)"
    source: ClassVar[str] = "After Zhang et al. 2016 (arXiv:1511.05950), who use 1 / staleness."
    use_when: ClassVar[str] = "Many workers, or workers of very different speeds."

    name: Literal["inverse"] = "inverse"
    max_staleness: MaxStaleness = None


STALENESS = Family(
    kind="staleness rule",
    built={"none": NoStaleness, "inverse": Inverse},
    planned=("divide", "polynomial", "hinge", "exponential", "gap"),
    planned_aliases={"sqrt": "polynomial"},
)

StalenessSpec = Annotated[
    Annotated[NoStaleness | Inverse, Field(discriminator="name")],
    BeforeValidator(STALENESS.read),
]
