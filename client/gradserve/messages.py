"""What a flow and its driver say to each other.

A *flow* is a generator that holds one conversation with the server and does no I/O: it yields a `Request` and is sent
the `Response`, or yields a `Sleep` and is sent None. A driver (the sync client, the async client, a simulator) does the
I/O; when no answer came it throws `ServerUnreachable` into the flow.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias, TypeVar

from .errors import GradserveError, UnexpectedAnswer, from_answer

T = TypeVar("T")
Headers: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. The body is in pieces that can be sent again: a retry sends the same bytes."""

    method: str
    path: str  # from /v1, query included
    headers: Headers = ()
    body: tuple[bytes | memoryview, ...] = ()
    wait_seconds: float = 0.0  # how long the server was asked to hold the answer: added to the read timeout
    into: BinaryIO | None = None  # write the body of a 200 there (from its beginning: a retry starts over)
    server: int = 0  # which of the client's servers: `retry` chooses
    streamed: bool = False  # leave the body of a 200 open: it is `Response.stream`, and the asker's to close


@dataclass(frozen=True, slots=True)
class Response:
    """One answer: status, headers under lower-case names, and the whole body (64-byte aligned when it is large)."""

    status: int
    headers: Mapping[str, str]
    body: bytes | memoryview = b""
    stream: Any = None  # of a streamed request: the driver's open body, handed through to whoever reads it

    def json(self) -> Any:
        """The body as JSON. Raises `UnexpectedAnswer`."""
        try:
            return json.loads(bytes(self.body))
        except ValueError as error:
            raise UnexpectedAnswer(self.status, bytes(self.body).decode("utf-8", "replace")) from error

    def header(self, name: str) -> str:
        """A header that this API always sends. Raises `UnexpectedAnswer`."""
        try:
            return self.headers[name]
        except KeyError as error:
            raise UnexpectedAnswer(self.status, f"no header {name!r}") from error

    def error(self) -> GradserveError:
        """The exception that this refusing answer stands for."""
        return from_answer(self.status, self.body)


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause before the next request; `reason` is for the log."""

    seconds: float
    reason: str


Flow: TypeAlias = Generator[Request | Sleep, Response | None, T]


def ask(request: Request) -> Flow[Response]:
    """One request and its answer."""
    response = yield request
    assert response is not None, "a driver answers a request with a response"
    return response
