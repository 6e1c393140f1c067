"""What a run can be made of: the catalogues, and what a schedule will do before anything is trained with it."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from gradserve.problems import refuse
from gradserve.specs import AGGREGATIONS, AVERAGES, CLIPS, SCHEDULES, STALENESS, Family, ScheduleSpec
from gradserve_service.core import schedules
from gradserve_service.replica import optimizer_catalogue

from ..bodies import read_document
from ..catalogue_documents import (
    AggregationCatalogue,
    AverageCatalogue,
    ClipCatalogue,
    OptimizerCatalogue,
    Rates,
    ScheduleCatalogue,
    SchedulePreview,
    StalenessCatalogue,
)
from ..documents import checked, document_body
from ..json_text import JsonAnswer, encode_json
from ..media import JSON
from ..parameters import Incoming

__all__ = ["router"]

RATES_A_TURN = 128  # computed and written without a pause: 0.15 ms of the event loop
FOLLOWS_OTHERS = {
    "client": "each push names its own lr",
    "reduce_on_plateau": "it follows the metrics that will be reported",
}

router = APIRouter(tags=["catalogues"])


@router.get(
    "/v1/optimizers", summary="List the optimizers", responses={200: {"model": OptimizerCatalogue}},
    operation_id="list_optimizers",
)  # fmt: skip
async def list_optimizers() -> Response:
    """Every optimizer: formula, hyperparameters and their defaults in each library, slots, bytes a parameter."""
    return JsonAnswer({"optimizers": optimizer_catalogue()})


@router.get(
    "/v1/schedules", summary="List the schedules", responses={200: {"model": ScheduleCatalogue}},
    operation_id="list_schedules",
)  # fmt: skip
async def list_schedules() -> Response:
    """Every learning-rate schedule: what it does, its formula, its hyperparameters, where it comes from."""
    return _catalogue("schedules", SCHEDULES)


@router.get(
    "/v1/aggregations", summary="List the aggregations", responses={200: {"model": AggregationCatalogue}},
    operation_id="list_aggregations",
)  # fmt: skip
async def list_aggregations() -> Response:
    """Every way in which the gradients of several workers become updates."""
    return _catalogue("aggregations", AGGREGATIONS)


@router.get("/v1/clips", summary="List the clips", responses={200: {"model": ClipCatalogue}}, operation_id="list_clips")
async def list_clips() -> Response:
    """Every way to bound a gradient before the optimizer sees it."""
    return _catalogue("clips", CLIPS)


@router.get(
    "/v1/averages", summary="List the averages", responses={200: {"model": AverageCatalogue}},
    operation_id="list_averages",
)  # fmt: skip
async def list_averages() -> Response:
    """Every average that a run can keep of its weights."""
    return _catalogue("averages", AVERAGES)


@router.get(
    "/v1/staleness", summary="List the staleness rules", responses={200: {"model": StalenessCatalogue}},
    operation_id="list_staleness_rules",
)  # fmt: skip
async def list_staleness_rules() -> Response:
    """Every rule for gradients of older weights."""
    return _catalogue("staleness", STALENESS)


@router.post(
    "/v1/schedules/preview", summary="Preview a schedule", responses={200: {"model": Rates}},
    openapi_extra=document_body(SchedulePreview), operation_id="preview_schedule",
)  # fmt: skip
async def preview_schedule(request: Request) -> Response:
    """The learning rate of the updates 0 … steps - 1. A schedule that follows its workers or reports is refused."""
    asked = checked(SchedulePreview, await read_document(Incoming(request.scope, request.receive)))
    name = "constant" if asked.schedule is None else asked.schedule.name
    if name in FOLLOWS_OTHERS:
        raise refuse("validation-error", f"schedule: {name!r} cannot be told in advance, {FOLLOWS_OTHERS[name]}")
    if asked.schedule is not None and (asked.schedule.needs_dataset_size or asked.schedule.per == "sample"):
        raise refuse(
            "validation-error",
            "schedule: expected per 'update', or per 'epoch' with steps_per_epoch: samples cannot be told in advance",
        )
    numbers = await rates_text(asked.schedule, asked.lr, asked.steps)
    return Response(b'{"lr":[%s]}' % numbers, media_type=JSON)


async def rates_text(schedule: ScheduleSpec | None, lr: float, steps: int) -> bytes:
    """The rates as JSON numbers with commas. Others get their turn between pieces."""
    pieces, each = [], 1 if schedule is None else schedule.steps_per_epoch or 1
    for start in range(0, steps, RATES_A_TURN):
        turn = range(start, min(start + RATES_A_TURN, steps))
        pieces.append(encode_json([schedules.resolve(schedule, lr, k // each)[0] for k in turn])[1:-1])
        await asyncio.sleep(0)
    return b",".join(pieces)


def _catalogue(kind: str, family: Family) -> Response:
    return JsonAnswer({kind: [member.catalogue_entry() for member in family.built.values()]})
