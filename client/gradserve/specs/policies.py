"""Aggregation and staleness: which gradients become an update, and how much they count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from .base import Count, Family, NotNegative, Spec

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


class DivideStaleness(Spec):
    """lr of the update over its staleness; a gradient that is one version late still counts in full."""

    summary: ClassVar[str] = "Half for what is two versions late, a third for three."
    formula: ClassVar[str] = "1 / max(1, staleness)"
    source: ClassVar[str] = "Zhang et al. 2016 (arXiv:1511.05950)."
    use_when: ClassVar[str] = "As inverse, where being one version late is normal."

    name: Literal["divide"] = "divide"
    max_staleness: MaxStaleness = None


class PolynomialStaleness(Spec):
    """lr of the update times a power of its age."""

    summary: ClassVar[str] = "Fades as slowly as the power says."
    formula: ClassVar[str] = "(1 + staleness)^-a"
    source: ClassVar[str] = "Xie et al. 2019 (arXiv:1903.03934); a = 1/2: Nguyen et al. 2022 (arXiv:2106.06639)."
    use_when: ClassVar[str] = "Federated training, where all are late and inverse would leave too little."
    field_aliases: ClassVar[Mapping[str, str]] = {"exponent": "a", "power": "a"}

    name: Literal["polynomial"] = "polynomial"
    a: Annotated[NotNegative, Field(description="The power; 1 is inverse.")] = 0.5
    max_staleness: MaxStaleness = None


class HingeStaleness(Spec):
    """lr of the update unchanged up to a staleness, and falling fast from there on."""

    summary: ClassVar[str] = "Full weight for what is late as usual, little for the rest."
    formula: ClassVar[str] = "1 where staleness <= b, else 1 / (a (staleness - b) + 1)"
    source: ClassVar[str] = "Xie et al. 2019, FedAsync (arXiv:1903.03934)."
    use_when: ClassVar[str] = "A known number of workers: b is about that number."

    name: Literal["hinge"] = "hinge"
    a: Annotated[NotNegative, Field(description="How fast it falls behind b.")] = 10.0
    b: Annotated[Count, Field(description="The staleness that counts in full.")] = 4
    max_staleness: MaxStaleness = None


class ExponentialStaleness(Spec):
    """lr of the update times a constant factor for each version that it is late."""

    summary: ClassVar[str] = "Each version of delay takes the same share."
    formula: ClassVar[str] = "e^(-a staleness)"
    use_when: ClassVar[str] = "Stragglers whose old gradients should hardly count."
    field_aliases: ClassVar[Mapping[str, str]] = {"rate": "a"}

    name: Literal["exponential"] = "exponential"
    a: Annotated[NotNegative, Field(description="The share, as a rate.")] = 0.1
    max_staleness: MaxStaleness = None


STALENESS = Family(
    kind="staleness rule",
    built={
        "none": NoStaleness, "inverse": Inverse, "divide": DivideStaleness, "polynomial": PolynomialStaleness,
        "hinge": HingeStaleness, "exponential": ExponentialStaleness,
    },
    aliases={"sqrt": ("polynomial", {"a": 0.5})},
    planned=("gap",),
)  # fmt: skip

StalenessSpec = Annotated[
    Annotated[
        NoStaleness | Inverse | DivideStaleness | PolynomialStaleness | HingeStaleness | ExponentialStaleness,
        Field(discriminator="name"),
    ],
    BeforeValidator(STALENESS.read),
]
