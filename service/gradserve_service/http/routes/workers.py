"""Workers: register, heartbeat, list, leave."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ..bodies import read_document
from ..documents import Registration, WorkerList, WorkerRow, checked, document_body
from ..hot import open_run
from ..json_text import JsonAnswer
from ..parameters import SEQUENCE_MAX, Incoming, RunName, WorkerName

__all__ = ["router"]

router = APIRouter(tags=["workers"])

Count = Annotated[int | None, Query(ge=1, le=SEQUENCE_MAX)]


@router.get(
    "/v1/runs/{run}/workers",
    summary="List workers",
    responses={200: {"model": WorkerList}},
    operation_id="list_workers",
)
async def list_workers(request: Request, run: RunName) -> Response:
    """All workers that the run knows, in name order, departed ones included."""
    replica = await open_run(Incoming(request.scope, request.receive))
    return JsonAnswer({"workers": await replica.workers()})


@router.put(
    "/v1/runs/{run}/workers/{worker}", summary="Register a worker", responses={200: {"model": WorkerRow}},
    openapi_extra=document_body(Registration), operation_id="register_worker",
)  # fmt: skip
async def register_worker(request: Request, run: RunName, worker: WorkerName) -> Response:
    """Register a new instance of the worker; the same instance again, with its generation, is a heartbeat."""
    incoming = Incoming(request.scope, request.receive)
    asked = checked(Registration, await read_document(incoming))
    replica = await open_run(incoming)
    return JsonAnswer(await replica.register(worker, asked.instance, asked.generation, asked.metadata))


@router.delete("/v1/runs/{run}/workers/{worker}", summary="Leave a run", status_code=204, operation_id="leave_run")
async def leave_run(
    request: Request,
    run: RunName,
    worker: WorkerName,
    generation: Count = None,
    next_sequence: Count = None,
    after: Annotated[str | None, Query(max_length=64, description="The worker's last receipt.")] = None,
) -> Response:
    """Leave the run. Checked as a push is, so that a lost acknowledgement is told even now."""
    replica = await open_run(Incoming(request.scope, request.receive))
    await replica.leave(worker, generation, next_sequence, after)
    return Response(status_code=204)
