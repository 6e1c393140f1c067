"""JSON documents of the catalogues and of the preview of a schedule. See `documents`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gradserve.specs import ScheduleSpec

from .documents import Answer

__all__ = [
    "PREVIEW_STEPS_MAX",
    "AggregationCatalogue",
    "AverageCatalogue",
    "CatalogueItem",
    "ClipCatalogue",
    "OptimizerCatalogue",
    "Rates",
    "ScheduleCatalogue",
    "SchedulePreview",
    "StalenessCatalogue",
]

PREVIEW_STEPS_MAX = 100_000  # 2 MB of numbers, more than any plot shows


class CatalogueItem(Answer):
    """One thing that a run can be made of."""

    name: str
    summary: str
    formula: str
    hyperparameters: dict[str, Any] = Field(description="JSON schema of its fields.")
    source: str = Field(description="Where it comes from: a paper, a library.")
    use_when: str


class SlotItem(Answer):
    """A vector that an optimizer keeps beside the weights, mostly one float32 a parameter."""

    name: str
    meaning: str
    initial: float
    with_: str | None = Field(alias="with", description="The field that brings it; null: always there.")


class OptimizerAlias(Answer):
    """Another name, and the fields that it stands for."""

    fields_: dict[str, Any] = Field(alias="fields")
    bytes_per_parameter: int


class OptimizerItem(CatalogueItem):
    """An optimizer, with what it costs and keeps."""

    presets: dict[str, dict[str, Any]] = Field(description="All fields as each library's constructor has them.")
    aliases: dict[str, OptimizerAlias]
    slots: list[SlotItem]
    numbers: list[str] = Field(description="Doubles that it keeps once a run.")
    bytes_per_parameter: int = Field(
        description="4 for the weight and 4 for each slot, in a large matrix, with the defaults. Gradients and answers "
        "are not counted."
    )
    sparse: dict[str, Literal["exact", "lazy", "own", "no"]] = Field(
        description="What gradients of some rows of a tensor are to it, with the defaults and with each field that "
        "changes it. exact: untouched rows would not have changed; lazy: they would, and do not "
        "(needs sparse_semantics); own: that is the rule itself; no: it needs the whole gradient."
    )
    determinism: str


class OptimizerCatalogue(Answer):
    """All optimizers."""

    optimizers: list[OptimizerItem]


class ScheduleCatalogue(Answer):
    """All schedules of learning rates."""

    schedules: list[CatalogueItem]


class AggregationCatalogue(Answer):
    """All aggregations."""

    aggregations: list[CatalogueItem]


class ClipCatalogue(Answer):
    """All clips."""

    clips: list[CatalogueItem]


class AverageCatalogue(Answer):
    """All averages of weights."""

    averages: list[CatalogueItem]


class StalenessCatalogue(Answer):
    """All staleness rules."""

    staleness: list[CatalogueItem]


class SchedulePreview(BaseModel):
    """A schedule to look at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: ScheduleSpec | None = Field(description="As in a run; null is constant.")
    steps: int = Field(ge=1, le=PREVIEW_STEPS_MAX, strict=True, description="How many updates.")
    lr: float = Field(1.0, ge=0, allow_inf_nan=False, strict=True, description="The optimizer's own rate.")


class Rates(Answer):
    """What a schedule gives."""

    lr: list[float] = Field(description="One rate an update, before staleness.")
