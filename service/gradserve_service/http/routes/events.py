"""A run as it goes on: its events as they come, and its journal for whoever wants to check it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.types import Send

from gradserve.problems import Refused
from gradserve_service.replica import Replica
from gradserve_service.replica.events import Event
from gradserve_service.store.records import Record

from ..answers import send_empty
from ..hot import hot_route, open_run
from ..json_text import encode_json
from ..media import answer_type
from ..parameters import Incoming, parse_count
from ..streams import send_pieces, until_gone
from ..waits import Waits

__all__ = ["EVENTS", "EVENTS_PATH", "JOURNAL_PATH", "NDJSON", "routes"]

EVENTS_PATH = "/v1/runs/{run}/events"
JOURNAL_PATH = "/v1/runs/{run}/journal"
EVENTS = "text/event-stream"
NDJSON = "application/x-ndjson"
_NOT_KEPT = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]  # the second is for nginx


async def watch_run(incoming: Incoming, send: Send) -> None:
    """GET: server-sent events. `Last-Event-ID` goes on behind a position; without it only what is new is told."""
    answer_type(incoming.header(b"accept"), EVENTS, (EVENTS,))
    incoming.query()
    last = incoming.header(b"last-event-id")
    after = None if not last else parse_count("Last-Event-ID", last)
    run = await open_run(incoming)
    if incoming.scope["method"] == "HEAD":
        await send_empty(send, status=200, headers=[(b"content-type", EVENTS.encode()), *_NOT_KEPT])
        return
    waits: Waits = incoming.app.state.waits
    stream = EventStream(run, after)
    try:
        await waits.hold(
            lambda: until_gone(incoming.receive, stream.send_to(send)),
            requests_max=incoming.limits.waiting_requests_max,
        )
    except Refused:
        if not stream.started:
            raise
        await send({"type": "http.response.body", "body": b""})  # the server leaves: a whole stream, and come again


async def read_journal(incoming: Incoming, send: Send) -> None:
    """GET: the kept entries behind `since`, one JSON line each: the header as it was hashed, and `hash` behind it."""
    media_type = answer_type(incoming.header(b"accept"), NDJSON, (NDJSON,))
    query = incoming.query("since", "limit")
    since = parse_count("since", query.get("since", "0"))
    limit = parse_count("limit", query["limit"], least=1) if "limit" in query else None
    run = await open_run(incoming)
    records = await run.past.journal(since, limit)
    if incoming.scope["method"] == "HEAD":
        await send_empty(send, status=200, headers=[(b"content-type", media_type.encode())])
        return
    await send_pieces(send, _lines(records), media_type=media_type, headers=[])


routes = [hot_route(EVENTS_PATH, GET=watch_run), hot_route(JOURNAL_PATH, GET=read_journal)]


class EventStream:
    """One reader's events on their way out. `started`: the headers are sent."""

    def __init__(self, run: Replica, after: int | None) -> None:
        self._run = run
        self._after = after
        self.started = False

    async def send_to(self, send: Send) -> None:
        """Send events until the run or the history that was told is no more."""
        events = await self._run.past.events(self._after)
        head = [(b"content-type", EVENTS.encode()), *_NOT_KEPT]
        self.started = True
        await send({"type": "http.response.start", "status": 200, "headers": head})
        async with contextlib.aclosing(events):
            await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})
            async for event in events:
                await send({"type": "http.response.body", "body": _framed(event), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _framed(event: Event | None) -> bytes:
    """One event in the words of WHATWG HTML, section 9.2; a comment for a heartbeat."""
    if event is None:
        return b": still here\n\n"
    place = b"" if event.position is None else b"id: %d\n" % event.position
    return b"%sevent: %s\ndata: %s\n\n" % (place, event.kind.encode(), encode_json(event.fields))


async def _lines(records: AsyncIterator[Record]) -> AsyncIterator[bytes]:
    """Without its last member a line is the header, byte for byte: SHA-256(hash before ‖ header) is the hash."""
    async for record in records:
        yield b'%s,"hash":"%s"}\n' % (record.header[:-1], record.hash.hex().encode())
