"""What a connection may do before there is a request: bounds on the head, in bytes and in time.

uvicorn refuses what is no HTTP in plain text, keeps headers of any size in memory, and waits for the end of a head
without end; the app behind it never hears of any of this. Here such a connection gets a problem document like every
refusal, and one that stays silent half-way is closed.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gradserve.problems import Rejection
from gradserve_service.http.problems import problem_document, problem_headers
from gradserve_service.limits import Limits

__all__ = ["Connection", "connection_within"]

MALFORMED = Rejection("malformed-request", "these bytes are no HTTP/1.1 request; use an HTTP client")


class HeadTooLarge(Exception):
    """Stops the parser in the middle of its work."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, within bounds."""

    limits: ClassVar[Limits]

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._head_bytes = 0
        self._head_since: float | None = None  # a head is on its way since then; None: a body or an answer is
        self._watch: asyncio.TimerHandle | None = None
        self._too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """From now on a head is expected."""
        super().connection_made(transport)
        self._head_since = self.loop.time()
        self._look_again(self.limits.request_head_seconds_max)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before a head is complete. One that is complete was looked at in `on_headers_complete`."""
        if self._head_since is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_since is not None and self._head_bytes > self.limits.request_head_bytes_max:
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """The first byte of a request came."""
        super().on_message_begin()
        if self._head_since is None:
            self._head_since, self._head_bytes = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        """The head is whole: the app may see it unless it is too large."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.request_head_bytes_max:
            self._too_large = True
            raise HeadTooLarge
        self._head_since = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """The refusal of a request that no app will see, and the end of the connection."""
        if self.transport.is_closing():
            return
        rejection = MALFORMED
        if self._too_large:
            limit = self.limits.request_head_bytes_max
            rejection = Rejection(
                "head-too-large", f"expected at most {limit} bytes of path and headers: send less", {"limit": limit}
            )
        request_id = os.urandom(8).hex()
        body = problem_document(rejection, scope={}, request_id=request_id)
        headers = problem_headers(rejection, length=len(body))
        headers += [(b"request-id", request_id.encode()), (b"connection", b"close")]
        head = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[rejection.problem.status] + head + b"\r\n" + body)
        self.transport.close()

    def _look(self) -> None:
        """Close the connection if its head is late. One timer a connection, not one a request."""
        seconds = self.limits.request_head_seconds_max
        if self._head_since is not None:
            left = self._head_since + seconds - self.loop.time()
            if left <= 0:
                self.transport.close()
                return
            seconds = left
        self._look_again(seconds)

    def _look_again(self, seconds: float) -> None:
        self._watch = self.loop.call_later(seconds, self._look)


def connection_within(limits: Limits) -> type[Connection]:
    """The connections of a server with these limits; uvicorn makes them itself."""
    return type("BoundedConnection", (Connection,), {"limits": limits})
