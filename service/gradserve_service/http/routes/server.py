"""The server itself: is it alive, is it ready, what is it."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version

from fastapi import APIRouter, Request, Response

from gradserve.problems import refuse
from gradserve.wire import DTYPES, JSON_ELEMENTS_MAX, MEDIA_TYPE
from gradserve_service.replica import Replicas

from ..documents import Readiness, ServerDescription
from ..json_text import JsonAnswer

__all__ = ["router"]

VERSION = version("gradserve")

router = APIRouter(tags=["server"])


@router.get("/healthz", summary="Is it alive?", responses={200: {"model": Readiness}}, operation_id="health")
async def health() -> Response:
    """200 as long as the server answers at all."""
    return JsonAnswer({"status": "live"})


@router.get("/readyz", summary="Is it ready?", responses={200: {"model": Readiness}}, operation_id="readiness")
async def readiness(request: Request) -> Response:
    """200 when requests are welcome here; else 503 with the reasons: draining, a store out of reach or unfit.

    A run that is set aside does not make the server red for the others: `quarantined` has the reason."""
    replicas: Replicas = request.app.state.replicas
    reasons = await replicas.ready()
    if reasons:
        code = "draining" if replicas.draining else "store-unavailable"
        raise refuse(code, "; ".join(reasons), reasons=reasons)
    quarantined = replicas.quarantined()
    return JsonAnswer({"status": "ready", **({"quarantined": quarantined} if quarantined else {})})


@router.get(
    "/v1/server",
    summary="Describe the server",
    responses={200: {"model": ServerDescription}},
    operation_id="get_server",
)
async def get_server(request: Request) -> Response:
    """Version, limits, codecs, the store and the durability that it gives."""
    replicas: Replicas = request.app.state.replicas
    return JsonAnswer(
        {
            "name": "gradserve",
            "version": VERSION,
            "codecs": list(DTYPES),
            "media_type": MEDIA_TYPE,
            "limits": {**asdict(replicas.limits), "json_elements_max": JSON_ELEMENTS_MAX},
            **replicas.describe_server(),
        }
    )
