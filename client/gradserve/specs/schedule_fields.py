"""What every schedule's declaration has in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .base import COUNT_MAX, Spec

Steps = Annotated[int, Field(strict=True, ge=1, le=COUNT_MAX)]


class ScheduleFields(Spec):
    """What every schedule reads: what its numbers of steps count. Written only where it is not updates."""

    per: Annotated[
        Literal["update", "epoch", "sample"],
        Field(description="What k counts: updates, epochs that are over, or samples seen."),
    ] = "update"
    steps_per_epoch: Annotated[
        Steps | None, Field(description="Updates of an epoch; null: it is over after dataset_size samples of the run.")
    ] = None

    @model_serializer(mode="wrap")
    def _without_the_usual_unit(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {"per": "update", "steps_per_epoch": None}
        return {name: value for name, value in write(self).items() if name not in usual or value != usual[name]}

    @model_validator(mode="after")
    def _epochs_alone_have_steps(self) -> Self:
        if self.steps_per_epoch is not None and self.per != "epoch":
            raise ValueError(f"expected steps_per_epoch only with per 'epoch', came per {self.per!r}")
        return self

    @property
    def needs_dataset_size(self) -> bool:
        """Whether only samples tell when an epoch is over."""
        return self.per == "epoch" and self.steps_per_epoch is None
