"""Reading request bodies: within limits, counted, into a buffer of the right size.

A limit is checked before anything is allocated: first the announced size, then the bytes as they come. The budget of
the server (`Replica.accept_body`) is entered before the first byte is read and held until the request is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from gradserve.problems import refuse
from gradserve.wire import HEADER_BYTES_MAX, Layout, parse_json
from gradserve_service.core.checkpoint import SLOTS_MAX
from gradserve_service.limits import Limits
from gradserve_service.replica import Replica

from .media import Form, body_form
from .parameters import Incoming
from .receiving import SlowSenders

__all__ = [
    "announced_size",
    "as_object",
    "checkpoint_bytes_max",
    "frame_bytes_max",
    "read_body",
    "read_document",
    "read_frame_bytes",
    "read_json_bytes",
]

FIRST_BUFFER_BYTES = 1 << 20  # for a body of unknown size: most are smaller, larger ones double it
LENGTH_FIELD_BYTES = 8  # a safetensors file begins with the length of its header


def frame_bytes_max(layout: Layout | None, limits: Limits) -> int:
    """The largest safetensors body that can be meant for a run: its layout in float32 behind the longest header."""
    if layout is None:
        return limits.body_bytes_max
    return min(limits.body_bytes_max, LENGTH_FIELD_BYTES + HEADER_BYTES_MAX + 4 * layout.parameters)


def checkpoint_bytes_max(layout: Layout | None, limits: Limits) -> int:
    """The largest file that can be meant for a run's checkpoint: weights and as many slots as are read."""
    if layout is None:
        return limits.body_bytes_max
    vectors = 1 + SLOTS_MAX
    return min(limits.body_bytes_max, LENGTH_FIELD_BYTES + HEADER_BYTES_MAX + 4 * vectors * layout.parameters)


def announced_size(incoming: Incoming, limit: int) -> int | None:
    """Content-Length, None for a chunked body. Raises `too-large` before a byte is read."""
    text = incoming.header(b"content-length")
    if text is None:
        # Neither length nor chunks: HTTP/1.1 says that there is no body.
        return None if b"transfer-encoding" in incoming.headers else 0
    if not (text.isascii() and text.isdigit()):
        raise refuse("validation-error", f"Content-Length: expected a number of bytes; came {text[:40]!r}")
    size = int(text[:20])
    if size > limit:
        raise too_large(limit, f"{size} bytes were announced")
    return size


async def read_body(incoming: Incoming, run: Replica, form: Form, budget: ExitStack) -> bytes | memoryview:
    """The body of a request that brings tensors to `run`, as bytes of its form.

    `budget` takes the reservations: the caller holds them until the tensors are no longer needed. Raises `too-large`,
    `backpressure`, `malformed-tensors` (fewer bytes than announced) and `Disconnected`.
    """
    if form == "safetensors":
        return await read_frame_bytes(incoming, run, frame_bytes_max(run.layout, incoming.limits), budget)
    limit = incoming.limits.json_bytes_max
    size = announced_size(incoming, limit)
    budget.enter_context(run.accept_body(limit if size is None else size))
    return await read_json_bytes(incoming)


async def read_frame_bytes(incoming: Incoming, run: Replica, limit: int, budget: ExitStack) -> memoryview:
    """A safetensors body, in a buffer from the replica's pool."""
    size = announced_size(incoming, limit)
    body = Growing(run, limit, budget) if size is None else Announced(run, size, budget)
    await receive_body(incoming, body.take)
    return body.finished()


class Announced:
    """A body of a known size. One that comes in one piece, as small ones do, stays where it is."""

    def __init__(self, run: Replica, size: int, budget: ExitStack) -> None:
        budget.enter_context(run.accept_body(size))
        self._run, self._size = run, size
        self._buffer: memoryview | None = None
        self._received = 0

    def take(self, chunk: bytes) -> None:
        """The next bytes. Raises `too-large`."""
        if not chunk:
            return
        end = self._received + len(chunk)
        if end > self._size:
            raise too_large(self._size, "more bytes than announced came")
        if self._buffer is None:
            if len(chunk) == self._size:
                self._buffer, self._received = memoryview(chunk), end
                return
            self._buffer = self._run.receive_buffer(self._size)
        self._buffer[self._received : end] = chunk
        self._received = end

    def finished(self) -> memoryview:
        """The whole body. Raises `malformed-tensors` when bytes are missing."""
        if self._received < self._size:
            raise refuse(
                "malformed-tensors", f"{self._size} bytes were announced, {self._received} came: send the whole file"
            )
        return self._buffer or memoryview(b"")


class Growing:
    """A body of unknown size: its buffer doubles up to the limit, each byte reserved before it is allocated."""

    def __init__(self, run: Replica, limit: int, budget: ExitStack) -> None:
        self._run, self._limit, self._budget = run, limit, budget
        self._buffer = self._reserved(min(limit, FIRST_BUFFER_BYTES))
        self._received = 0

    def take(self, chunk: bytes) -> None:
        """The next bytes. Raises `too-large` and `backpressure`."""
        end = self._received + len(chunk)
        if end > self._limit:
            raise too_large(self._limit, "more came")
        while end > len(self._buffer):
            size = len(self._buffer)
            larger = self._reserved(min(size, self._limit - size), beside=size)
            larger[: self._received] = self._buffer[: self._received]
            self._buffer = larger
        self._buffer[self._received : end] = chunk
        self._received = end

    def finished(self) -> memoryview:
        """The whole body."""
        return self._buffer[: self._received]

    def _reserved(self, more: int, beside: int = 0) -> memoryview:
        self._budget.enter_context(self._run.accept_body(more))
        return self._run.receive_buffer(beside + more)


async def read_json_bytes(incoming: Incoming) -> bytes:
    """A JSON body. Raises `too-large` naming the limit, and `Disconnected`."""
    limit = incoming.limits.json_bytes_max
    announced_size(incoming, limit)
    body = bytearray()

    def take(chunk: bytes) -> None:
        if len(body) + len(chunk) > limit:
            raise too_large(limit, "more came")
        body.extend(chunk)

    await receive_body(incoming, take)
    return bytes(body)


async def read_document(incoming: Incoming) -> dict[str, Any]:
    """A JSON object, strictly read. Raises `unsupported-media-type`, `malformed-json`, `validation-error`."""
    form, media_type = body_form(incoming)
    if form != "json":
        raise refuse("unsupported-media-type", f"this route reads application/json; came {media_type!r}")
    return as_object(parse_json(await read_json_bytes(incoming)))


def as_object(document: object) -> dict[str, Any]:
    """The document if it is a JSON object. Raises `validation-error`."""
    if not isinstance(document, dict):
        raise refuse("validation-error", f"body: expected a JSON object; came {type(document).__name__}")
    return document


async def receive_body(incoming: Incoming, take: Callable[[bytes], None]) -> None:
    """Hand each chunk to `take` as it comes, and keep the sender to a minimum rate."""
    slow_senders: SlowSenders = incoming.app.state.slow_senders
    await slow_senders.receive(incoming.receive, take, incoming.limits)


def too_large(limit: int, came: str) -> Exception:
    """The refusal of a body over `limit` bytes."""
    return refuse("too-large", f"the limit here is {limit} bytes; {came}", limit=limit)
