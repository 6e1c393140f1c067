"""What a run tells while it happens: server-sent events, read without I/O.

Source of the format: WHATWG HTML, section 9.2 "Server-sent events". The server's `id` is a position of the journal;
who comes again with the last one misses nothing and sees nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .errors import UnexpectedAnswer
from .flows import RunKey, describe_flow
from .messages import Flow, Headers, Request, Sleep, ask

EVENTS_MEDIA_TYPE = "text/event-stream"
AGAIN_SECONDS = 1.0  # before a stream that ended is opened again, unless the server says how long
EVENT_BYTES_MAX = 4 << 20  # a line that does not end is not an event


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `id` is its position in the journal, `fields` what is told of it."""

    id: int
    kind: str  # update, contribution, worker, rejection, checkpoint, configure, load, report, warning
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def closes(self) -> bool:
        """The run takes no more gradients: nothing of interest will follow."""
        return self.kind == "configure" and self.fields.get("state") == "closed"


class EventFeed:
    """Bytes in, events out; and the place to go on from.

    last_id  the position of the last event (of the run, before the first one): None until the run was asked
    """

    def __init__(self, since: int | None = None) -> None:
        self.last_id = since
        self.again_seconds = AGAIN_SECONDS
        self.connections = 0
        self._end: int | None = None  # of a run that was closed before: where its journal ends
        self._rest = b""
        self._lines: list[str] = []
        self._forget()

    def open(self, run: RunKey) -> Flow[Any]:
        """Open the stream, at the place where the last one ended; answers the driver's open body, None where the run is
        closed already and nothing will follow."""
        if not self.connections:
            described = yield from describe_flow(run)  # from now on: asked before listening
            position = int(described["position"])
            self.last_id = position if self.last_id is None else self.last_id
            if described["state"] == "closed":
                self._end = position
                if self.last_id >= position:
                    return None
        else:
            yield Sleep(self.again_seconds, f"the events of run {run.name!r} broke off after position {self.last_id}")
        headers: Headers = (("Accept", EVENTS_MEDIA_TYPE), ("Last-Event-ID", str(self.last_id)), *run.guard)
        response = yield from ask(Request("GET", f"{run.path}/events", headers, streamed=True))
        if response.status != 200:
            raise response.error()
        if not response.headers.get("content-type", "").startswith(EVENTS_MEDIA_TYPE):
            response.stream.close()
            raise UnexpectedAnswer(200, f"content-type {response.headers.get('content-type')!r} instead of events")
        self.connections += 1
        self._forget()  # half an event: it is sent again
        return response.stream

    def ends_with(self, event: Event) -> bool:
        """Will nothing of interest follow this one?"""
        return event.closes or (self._end is not None and event.id >= self._end)

    def read(self, piece: bytes) -> Iterator[Event]:
        """The events that this piece of the stream completes. Raises `UnexpectedAnswer`."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise UnexpectedAnswer(200, f"a line of more than {EVENT_BYTES_MAX} bytes among the events")
        for line in lines:
            event = self._take(line.rstrip(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _forget(self) -> None:
        self._rest, self._kind, self._id = b"", "", self.last_id
        self._lines = []

    def _take(self, line: str) -> Event | None:
        """One line of the stream; the event, if the line ends one."""
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id" and value.isdecimal():
            self._id = int(value)
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._lines.append(value)
        elif name == "retry" and value.isdecimal():
            self.again_seconds = int(value) / 1000
        return None

    def _complete(self) -> Event | None:
        kind, lines = self._kind, self._lines
        self._kind, self._lines, self.last_id = "", [], self._id
        if not lines:
            return None
        try:
            fields = json.loads("\n".join(lines))
        except ValueError as error:
            raise UnexpectedAnswer(200, f"an event that is not JSON: {lines[0]}") from error
        return Event(self.last_id or 0, kind or "message", fields)
