"""Checkpoints: named states of a run, to read, to bring, to go back to."""

from __future__ import annotations

from contextlib import ExitStack

from fastapi import APIRouter, Request, Response
from starlette.types import Send

from gradserve.problems import refuse
from gradserve.wire import MEDIA_TYPE, MEDIA_TYPES

from ..answers import VARY, send_bytes, send_empty, send_json
from ..bodies import announced_size, checkpoint_bytes_max, read_document, read_frame_bytes
from ..documents import CheckpointList, RestoreBody, Restored, checked, document_body
from ..hot import hot_route, open_run
from ..json_text import JsonAnswer
from ..media import answer_type, body_form
from ..parameters import Incoming, RunName, idempotency_key

__all__ = ["CHECKPOINT_PATH", "router", "routes"]

CHECKPOINT_PATH = "/v1/runs/{run}/checkpoints/{checkpoint}"

router = APIRouter(tags=["checkpoints"])


@router.get(
    "/v1/runs/{run}/checkpoints", summary="List checkpoints", responses={200: {"model": CheckpointList}},
    operation_id="list_checkpoints",
)  # fmt: skip
async def list_checkpoints(request: Request, run: RunName) -> Response:
    """All checkpoints of the run, in name order."""
    replica = await open_run(Incoming(request.scope, request.receive))
    return JsonAnswer({"checkpoints": await replica.checkpoints.listed()})


@router.post(
    "/v1/runs/{run}/restore", summary="Go back", responses={200: {"model": Restored}}, operation_id="restore_run",
    openapi_extra=document_body(RestoreBody),
)  # fmt: skip
async def restore_run(request: Request, run: RunName) -> Response:
    """Set weights, slots, step and the schedule's state back to those of a checkpoint or of a version that is still
    kept. Workers, settings and the rising version stay; gradients that were computed before are stale."""
    incoming = Incoming(request.scope, request.receive)
    key = idempotency_key(incoming)
    asked = checked(RestoreBody, await read_document(incoming))
    replica = await open_run(incoming)
    if asked.checkpoint is not None:
        return JsonAnswer(await replica.restores.from_checkpoint(replica.checkpoints, asked.checkpoint, key))
    return JsonAnswer(await replica.restores.from_version(asked.version or 0, key))


async def save_checkpoint(incoming: Incoming, send: Send) -> None:
    """PUT: of the present state (no body), or of this file. A name that is taken is answered as it is."""
    name = incoming.name("checkpoint")
    idempotency_key(incoming)
    incoming.query()
    run = await open_run(incoming)
    limit = checkpoint_bytes_max(run.layout, incoming.limits)
    size = announced_size(incoming, limit)
    if size == 0 and not _says_tensors(incoming):
        document, created = await run.checkpoints.create(name)
    else:
        form, came = body_form(incoming)
        if form != "safetensors":
            raise refuse("unsupported-media-type", f"a checkpoint is a file of type {MEDIA_TYPE}; came {came}")
        if size == 0:
            detail = "expected a file, no bytes came; for a checkpoint of the present state leave out Content-Type too"
            raise refuse("malformed-tensors", detail)
        with ExitStack() as budget:
            body = await read_frame_bytes(incoming, run, limit, budget)
            document, created = await run.checkpoints.upload(name, body)
    await send_json(send, document, status=201 if created else 200)


def _says_tensors(incoming: Incoming) -> bool:
    """Whether a body of tensors is announced: of no bytes it is a file that went missing, not a wish for the present
    state. (Some clients name a type of theirs also where they send nothing.)"""
    media_type = (incoming.header(b"content-type") or "").partition(";")[0].strip().lower()
    return media_type in MEDIA_TYPES


async def get_checkpoint(incoming: Incoming, send: Send) -> None:
    """GET and HEAD: the file."""
    name = incoming.name("checkpoint")
    media_type = answer_type(incoming.header(b"accept"), MEDIA_TYPE, MEDIA_TYPES)
    incoming.query()
    run = await open_run(incoming)
    async with run.checkpoints.file(name) as (item, file):
        etag = [] if item["etag"] is None else [(b"etag", item["etag"].encode())]
        head_only = incoming.scope["method"] == "HEAD"
        await send_bytes(send, file, media_type=media_type, headers=[*etag, VARY], head_only=head_only)


async def delete_checkpoint(incoming: Incoming, send: Send) -> None:
    """DELETE: the name and its object."""
    name = incoming.name("checkpoint")
    incoming.query()
    run = await open_run(incoming)
    await run.checkpoints.delete(name)
    await send_empty(send, status=204, headers=[])


routes = [hot_route(CHECKPOINT_PATH, GET=get_checkpoint, PUT=save_checkpoint, DELETE=delete_checkpoint)]
