"""Bytes over HTTP/1.1, synchronously: the one module that knows httpx.

It uses httpx's transport, not its client: connection pool, TLS, proxies and timeouts without the cost of redirects,
cookies and header merging (measured: 0.26 ms of CPU a request instead of 0.46). Two facts shape the rest:

- httpcore copies the rest of a body after every partial send, which is quadratic on one large piece: large bodies go
  out as an iterator of small memoryviews under a Content-Length.
- An array can only be a view into the answer if the answer lies in one aligned block: the body is read into a buffer
  of the announced size.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from .errors import GradserveError, ServerUnreachable, UnexpectedAnswer
from .messages import Request, Response
from .wire import Buffers

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 120.0  # between two pieces of an answer or of an upload; what a long-poll may wait comes on top
CHUNK_BYTES = 256 << 10  # measured on 100 MB: 64 KiB takes 9 % longer, 1 MiB 5 % less, one piece four times as long
IDLE_SECONDS = 600.0  # a connection between two gradients; servers keep them a little longer
BODILESS = frozenset({204, 304})

# A middlebox that forgets an idle connection would be noticed only after SILENCE_SECONDS: probe it meanwhile.
KEEPALIVE_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), seconds)
        for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


class HttpTransport:
    """Sends a `Request`, answers its `Response`; safe to share between threads.

    url     `http://host:port[/prefix]`, `https://…`, or `unix:///path/to/socket` (twice as fast on the same host)
    token   sent as a bearer token
    verify  for https: False, or a context with the certificates to trust
    """

    def __init__(self, url: str, token: str | None, *, user_agent: str, verify: ssl.SSLContext | bool = True) -> None:
        self.url = url
        self.bytes_sent = self.bytes_received = 0  # of bodies; counted without a lock: for people
        parts = urlsplit(url)
        socket_path = unquote(parts.path) if parts.scheme == "unix" else None
        if parts.scheme not in ("http", "https", "unix") or not (socket_path or parts.hostname):
            raise ValueError(f"expected a URL like http://host:8970, https://host or unix:///path, came {url!r}")
        base = httpx.URL("http://localhost" if socket_path else url.rstrip("/"))
        self._prefix = base.raw_path.rstrip(b"/")
        self._target = _Target(base.raw_scheme, base.raw_host, base.port, b"")
        self._headers = [(b"Host", b"localhost" if socket_path else parts.netloc.rpartition("@")[2].encode())]
        self._headers += [(b"User-Agent", user_agent.encode())]
        self._headers += [(b"Authorization", f"Bearer {token}".encode())] if token else []
        self._buffers = Buffers(spare=1)  # the weights before these: their memory is the next answer's
        self._transport = httpx.HTTPTransport(
            verify=verify if parts.scheme == "https" else False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS),
            uds=socket_path,
            proxy=None if socket_path else _proxy(parts.scheme, parts.hostname or ""),
            socket_options=None if socket_path else KEEPALIVE_OPTIONS,
        )

    def send(self, request: Request) -> Response:
        """One attempt. Raises `ServerUnreachable` when no whole answer came; trying again is the caller's."""
        try:
            return self._send(request)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise GradserveError(f"{request.method} {self.url}{request.path} cannot be sent: {error}") from error
        except httpx.TransportError as error:
            if _certificate_fault(error):
                raise GradserveError(f"{self.url}: {error}") from error  # it will not get better by trying again
            raise ServerUnreachable(f"{self.url}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _send(self, request: Request) -> Response:
        body = _Body(request.body)
        read_seconds = SILENCE_SECONDS + request.wait_seconds
        timeouts = {"connect": CONNECT_SECONDS, "read": read_seconds, "write": SILENCE_SECONDS, "pool": None}
        headers = [*self._headers, *((name.encode(), value.encode()) for name, value in request.headers)]
        if request.body:
            headers.append((b"Content-Length", b"%d" % body.size))
        place = self._target
        target = _Target(place.raw_scheme, place.raw_host, place.port, self._prefix + request.path.encode())
        outgoing = _Outgoing(request.method, target, _Headers(headers), body, {"timeout": timeouts})
        self.bytes_sent += body.size
        answer = self._transport.handle_request(outgoing)  # type: ignore[arg-type]
        try:
            fields = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in answer.headers.raw}
            content = _read(answer, fields, self._buffers)
            self.bytes_received += len(content)
            return Response(answer.status_code, fields, content)
        finally:
            answer.close()


@dataclass(frozen=True, slots=True)
class _Target:
    """What a transport reads of an `httpx.URL`."""

    raw_scheme: bytes
    raw_host: bytes
    port: int | None
    raw_path: bytes


@dataclass(frozen=True, slots=True)
class _Headers:
    """What a transport reads of `httpx.Headers`."""

    raw: list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """What a transport reads of an `httpx.Request`; making one parses URL and headers again, 80 µs of every push."""

    method: str
    url: _Target
    headers: _Headers
    stream: _Body
    extensions: dict[str, Any]


class _Body(httpx.SyncByteStream):
    """A request's pieces, cut or joined to chunks of a good size. Can be iterated again."""

    def __init__(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        self._pieces = pieces
        self.size = sum(len(piece) for piece in pieces)  # pieces are bytes: one item, one byte

    def __iter__(self) -> Iterator[bytes]:
        if self.size <= CHUNK_BYTES:
            yield b"".join(self._pieces)
            return
        waiting: list[bytes | memoryview] = []  # small pieces, to go out together
        waiting_bytes = 0
        for piece in self._pieces:
            if waiting_bytes + len(piece) <= CHUNK_BYTES:
                waiting.append(piece)
                waiting_bytes += len(piece)
                continue
            yield b"".join(waiting)
            waiting, waiting_bytes = [], 0
            view = memoryview(piece)
            for start in range(0, len(view), CHUNK_BYTES):
                yield view[start : start + CHUNK_BYTES]  # type: ignore[misc]  # httpcore writes any buffer
        yield b"".join(waiting)


def _read(answer: httpx.Response, fields: dict[str, str], buffers: Buffers) -> bytes | memoryview:
    """The whole body; of announced length, in one 64-byte aligned block."""
    if fields.get("content-encoding", "identity") != "identity":
        raise UnexpectedAnswer(
            answer.status_code, f"content-encoding {fields['content-encoding']!r}, none was asked for"
        )
    assert isinstance(answer.stream, httpx.SyncByteStream)
    if answer.status_code in BODILESS or "content-length" not in fields:
        return b"".join(answer.stream)
    size = int(fields["content-length"])
    buffer = buffers.lend(-(-size // 4)).data.cast("B")[:size]
    filled = 0
    for chunk in answer.stream:
        buffer[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    return buffer.toreadonly()


def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for this host, as every HTTP client of the system would choose it."""
    proxies = getproxies()
    if not proxies or proxy_bypass(host):
        return None
    return proxies.get(scheme) or proxies.get("all")


def _certificate_fault(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
