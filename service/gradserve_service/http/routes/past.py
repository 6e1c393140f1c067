"""What a run has done: its history as columns, its statistics."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.types import Send

from gradserve_service.core.series import WHOLE_NUMBERS, Columns

from ..answers import VARY, send_empty
from ..documents import Statistics
from ..hot import hot_route, open_run
from ..json_text import JsonAnswer, encode_json
from ..media import JSON, answer_type
from ..parameters import Incoming, RunName, parse_count
from ..streams import send_pieces

__all__ = ["CSV", "HISTORY_PATH", "POINTS_MAX", "SERIES_MAX", "router", "routes"]

HISTORY_PATH = "/v1/runs/{run}/history"
CSV = "text/csv"
POINTS_MAX = 1 << 20
SERIES_MAX = 1_000
NUMBERS_A_PIECE = 512  # 0.2 ms of the event loop

router = APIRouter(tags=["history"])


async def get_history(incoming: Incoming, send: Send) -> None:
    """GET: the columns asked for, as JSON or CSV; long ones in pieces, so that others get their turn between them."""
    media_type = answer_type(incoming.header(b"accept"), JSON, (JSON, CSV))
    query = incoming.query("series", "since", "max_points")
    series = query["series"].split(",")[:SERIES_MAX] if query.get("series") else None
    since = parse_count("since", query["since"]) if "since" in query else -1
    max_points = None
    if "max_points" in query:
        max_points = min(parse_count("max_points", query["max_points"], least=1), POINTS_MAX)
    run = await open_run(incoming)
    columns = await run.past.history(series, since, max_points)
    content_type = JSON if media_type == JSON else f"{CSV}; charset=utf-8"
    if incoming.scope["method"] == "HEAD":
        await send_empty(send, status=200, headers=[(b"content-type", content_type.encode()), VARY])
        return
    pieces = _json(columns) if media_type == JSON else _csv(columns)
    await send_pieces(send, _one_at_a_time(pieces), media_type=content_type, headers=[VARY])


routes = [hot_route(HISTORY_PATH, GET=get_history)]


@router.get(
    "/v1/runs/{run}/statistics", summary="Statistics of a run", responses={200: {"model": Statistics}},
    operation_id="get_statistics",
)  # fmt: skip
async def get_statistics(
    request: Request,
    run: RunName,
    tolerance: Annotated[
        float | None, Query(gt=0, allow_inf_nan=False, description="`converged` is: the mean norm is below it.")
    ] = None,
) -> Response:
    """What the last updates did, by tensor, the rates that the optimizer arrives at, and warnings."""
    replica = await open_run(Incoming(request.scope, request.receive))
    return JsonAnswer(await replica.past.statistics(tolerance))


async def _one_at_a_time(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


def _json(columns: Columns) -> Iterator[bytes]:
    opening = b"{"
    for name, column in columns.items():
        yield opening + encode_json(name) + b":["
        for start in range(0, column.size, NUMBERS_A_PIECE):
            values = column[start : start + NUMBERS_A_PIECE].tolist()
            yield (b"," if start else b"") + ",".join(_text(name, value, "null") for value in values).encode()
        yield b"]"
        opening = b","
    yield b"}"


def _csv(columns: Columns) -> Iterator[bytes]:
    names, rows = list(columns), max(1, NUMBERS_A_PIECE // len(columns))
    yield (",".join(map(_quoted, names)) + "\r\n").encode()
    for start in range(0, columns["version"].size, rows):
        parts = [
            [_text(name, value, "") for value in column[start : start + rows].tolist()]
            for name, column in columns.items()
        ]
        yield "".join(",".join(row) + "\r\n" for row in zip(*parts, strict=True)).encode()


def _text(name: str, value: float, absent: str) -> str:
    if not math.isfinite(value):
        return absent
    return str(int(value)) if name in WHOLE_NUMBERS else repr(value)


def _quoted(name: str) -> str:
    """RFC 4180: what holds a comma, a quote or a line break is put in quotes."""
    return '"' + name.replace('"', '""') + '"' if any(character in name for character in ',"\r\n') else name
