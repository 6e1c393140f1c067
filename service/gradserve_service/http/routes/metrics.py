"""Values that are measured outside: validation losses and the like."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ..bodies import read_document
from ..documents import ReportBody, checked, document_body
from ..hot import open_run
from ..parameters import Incoming, RunName, idempotency_key

__all__ = ["router"]

router = APIRouter(tags=["metrics"])


@router.post(
    "/v1/runs/{run}/metrics", summary="Report measured values", status_code=204, operation_id="report_metrics",
    openapi_extra=document_body(ReportBody),
)  # fmt: skip
async def report_metrics(request: Request, run: RunName) -> Response:
    """Put values into the order of the run; the schedule `reduce_on_plateau` follows the one that it monitors."""
    incoming = Incoming(request.scope, request.receive)
    key = idempotency_key(incoming)
    report = checked(ReportBody, await read_document(incoming))
    replica = await open_run(incoming)
    await replica.report(report.values, report.version, key)
    return Response(status_code=204)
