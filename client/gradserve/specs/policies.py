"""Aggregation and staleness: which gradients become an update, and how much they count."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from .base import Count, Family, Spec

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
