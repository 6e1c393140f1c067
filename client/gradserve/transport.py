"""Bytes over HTTP/1.1, with threads or with asyncio: the one module that knows httpx.

It uses httpx's transport, not its client: connections, TLS, proxies and timeouts without the cost of redirects,
cookies and header merging (measured: 0.26 ms of CPU a request instead of 0.46). Three facts shape the rest:

- httpcore copies the rest of a body after every partial send, which is quadratic on one large piece: large bodies go
  out as an iterator of small memoryviews under a Content-Length.
- An array can only be a view into the answer if the answer lies in one aligned block: the body is read into a buffer
  of the announced size.
- httpcore's pool compares all its connections with each other at each request: 40 workers of one asyncio client got 234
  pushes a second out of it, and 846 with a pool for each connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from .errors import GradserveError, Misuse, ServerUnreachable, UnexpectedAnswer
from .messages import Request, Response
from .wire import Buffers

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 120.0  # between two pieces of an answer or of an upload; what a long-poll may wait comes on top
STREAM_SILENCE_SECONDS = 50.0  # the server sends a comment every 15 s: after three that did not come the line is dead
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


class _Address:
    """What both transports know of a server: where it is, how a request to it looks, what its failures mean."""

    def __init__(self, url: str, token: str | None, user_agent: str, verify: ssl.SSLContext | bool) -> None:
        parts = _checked(url)
        self.url = url
        self.bytes_sent = self.bytes_received = 0  # of bodies; counted without a lock: for people
        self.buffers = Buffers(spare=1)  # the weights before these: their memory is the next answer's
        socket_path = unquote(parts.path) if parts.scheme == "unix" else None
        base = httpx.URL("http://localhost" if socket_path else url.rstrip("/"))
        self._prefix = base.raw_path.rstrip(b"/")
        self._target = _Target(base.raw_scheme, base.raw_host, base.port, b"")
        self._headers = [(b"Host", b"localhost" if socket_path else parts.netloc.encode())]
        self._headers += [(b"User-Agent", user_agent.encode())]
        self._headers += [(b"Authorization", f"Bearer {token}".encode())] if token else []
        self.options: dict[str, Any] = {
            # one context for all connections: reading the system's certificates takes milliseconds
            "verify": httpx.create_ssl_context(verify if parts.scheme == "https" else False),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS),
            "uds": socket_path,
            "proxy": None if socket_path else _proxy(parts.scheme, parts.hostname or ""),
            "socket_options": None if socket_path else KEEPALIVE_OPTIONS,
        }

    def outgoing(self, request: Request) -> _Outgoing:
        """The request as httpx' transports read it."""
        body = _Body(request.body)
        headers = [*self._headers, *((name.encode(), value.encode()) for name, value in request.headers)]
        if request.body:
            headers.append((b"Content-Length", b"%d" % body.size))
        place = self._target
        target = _Target(place.raw_scheme, place.raw_host, place.port, self._prefix + request.path.encode())
        timeouts = {"connect": CONNECT_SECONDS, "read": _read_seconds(request), "write": SILENCE_SECONDS, "pool": None}
        self.bytes_sent += body.size
        return _Outgoing(request.method, target, _Headers(headers), body, {"timeout": timeouts})

    def received(self, status: int, fields: dict[str, str], content: _Content) -> Response:
        """The whole answer."""
        self.bytes_received += content.bytes
        return Response(status, fields, content.whole())

    def failure(self, request: Request, error: httpx.TransportError) -> GradserveError:
        """What went wrong on the way, as the error to raise: `ServerUnreachable` if another try may go better."""
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            return GradserveError(f"{request.method} {self.url}{request.path} cannot be sent: {error}")
        if _certificate_fault(error):
            return GradserveError(f"{self.url}: {error}")  # it will not get better by trying again
        return ServerUnreachable(f"{self.url}: {_words(error, request)}")


Pool = TypeVar("Pool", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


class _Pools(Generic[Pool]):
    """Pools of one connection each, as many as there are requests at a time; the last that came back goes first.

    `deque` takes and gives at its ends without a lock, so threads share it. Raises `Misuse` for a proxy of the
    environment that cannot be used.
    """

    def __init__(self, make: type[Pool], options: dict[str, Any]) -> None:
        self._make: type[Pool] = make
        self._options = options
        self.all: list[Pool] = []
        self._idle: deque[tuple[Pool, float]] = deque()
        self.give_back(self._another())

    def take(self) -> Pool:
        try:
            return self._idle.pop()[0]
        except IndexError:
            return self._another()

    def give_back(self, pool: Pool) -> None:
        self._idle.append((pool, time.monotonic()))

    def superfluous(self) -> Pool | None:
        """One that nobody has needed for long, to be closed: its connection, dead by now, would stay for ever."""
        try:
            pool, since = self._idle.popleft()
        except IndexError:
            return None
        if time.monotonic() - since < IDLE_SECONDS:
            self._idle.appendleft((pool, since))
            return None
        self.all.remove(pool)
        return pool

    def _another(self) -> Pool:
        try:
            pool = self._make(**self._options)
        except (ValueError, ImportError) as error:
            raise Misuse(f"the proxy that the environment names cannot be used: {error}") from error
        self.all.append(pool)
        return pool


class HttpTransport:
    """Sends a `Request`, answers its `Response`; safe to share between threads, and by a forked child.

    url     `http://host:port[/prefix]`, `https://…`, or `unix:///path/to/socket` (twice as fast on the same host)
    token   sent as a bearer token
    verify  for https: False, or a context with the certificates to trust
    """

    def __init__(self, url: str, token: str | None, *, user_agent: str, verify: ssl.SSLContext | bool = True) -> None:
        self.address = _Address(url, token, user_agent, verify)
        self._streams: set[Stream] = set()
        self._abandoned: list[_Pools[httpx.HTTPTransport]] = []
        self._fresh()

    def send(self, request: Request) -> Response:
        """One attempt. Raises `ServerUnreachable` when no whole answer came; trying again is the caller's."""
        if os.getpid() != self._process:
            self._fork()
        pools = self._pools
        pool = pools.take()
        try:
            if (old := pools.superfluous()) is not None:
                old.close()
            return self._send(pool, request)
        except httpx.TransportError as error:
            raise self.address.failure(request, error) from error
        finally:
            pools.give_back(pool)  # under a stream it is busy: whoever takes it next opens another connection

    def close(self) -> None:
        """Close all connections, those on which somebody listens included."""
        for stream in tuple(self._streams):
            stream.close()
        for pool in tuple(self._pools.all):  # requests under way may add to it, or take from it
            pool.close()

    def _fresh(self) -> None:
        self._pools = _Pools(httpx.HTTPTransport, self.address.options)
        self._process = os.getpid()  # last: another thread of a forked child must not take the parent's connections

    def _fork(self) -> None:
        """This is a forked child: the connections are its parent's. Not even closed: a lock may be held for ever."""
        self._abandoned.append(self._pools)
        self._streams = set()
        self.address.buffers = Buffers(spare=1)
        self._fresh()

    def _send(self, pool: httpx.HTTPTransport, request: Request) -> Response:
        answer = pool.handle_request(self.address.outgoing(request))  # type: ignore[arg-type]
        fields = _fields(answer)
        if request.streamed and answer.status_code == 200:
            stream = Stream(answer, self.address, request, self._streams)
            return Response(answer.status_code, fields, stream=stream)
        try:
            assert isinstance(answer.stream, httpx.SyncByteStream)
            content = _Content(request, answer.status_code, fields, self.address.buffers)
            for chunk in answer.stream:
                content.take(chunk)
            return self.address.received(answer.status_code, fields, content)
        finally:
            answer.close()


class AsyncHttpTransport:
    """The same for asyncio. Belongs to the event loop that uses it first."""

    def __init__(self, url: str, token: str | None, *, user_agent: str, verify: ssl.SSLContext | bool = True) -> None:
        self.address = _Address(url, token, user_agent, verify)
        self._pools = _Pools(httpx.AsyncHTTPTransport, self.address.options)

    async def send(self, request: Request) -> Response:
        """One attempt. Raises `ServerUnreachable`; cancelling it closes the connection."""
        pool = self._pools.take()
        try:
            if (old := self._pools.superfluous()) is not None:
                await old.aclose()
            return await self._send(pool, request)
        except httpx.TransportError as error:
            raise self.address.failure(request, error) from error
        finally:
            self._pools.give_back(pool)

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in tuple(self._pools.all):  # requests under way may add to it, or take from it
            await pool.aclose()

    async def _send(self, pool: httpx.AsyncHTTPTransport, request: Request) -> Response:
        answer = await pool.handle_async_request(self.address.outgoing(request))  # type: ignore[arg-type]
        fields = _fields(answer)
        if request.streamed and answer.status_code == 200:
            return Response(answer.status_code, fields, stream=AsyncStream(answer, self.address, request))
        try:
            assert isinstance(answer.stream, httpx.AsyncByteStream)
            content = _Content(request, answer.status_code, fields, self.address.buffers)
            async for chunk in answer.stream:
                content.take(chunk)
            return self.address.received(answer.status_code, fields, content)
        finally:
            await answer.aclose()


class Stream:
    """A body that is read while it comes. Raises `ServerUnreachable` where it breaks off."""

    def __init__(self, answer: httpx.Response, address: _Address, request: Request, others: set[Stream]) -> None:
        self._answer, self._address, self._request, self._others = answer, address, request, others
        others.add(self)

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._answer.stream, httpx.SyncByteStream)
        try:
            yield from self._answer.stream
        except (httpx.TransportError, httpx.StreamError, OSError) as error:
            raise ServerUnreachable(f"{self._address.url}: {_words(error, self._request)}") from error

    def close(self) -> None:
        """End it, from any thread: whoever is reading stops."""
        self._others.discard(self)
        network = self._answer.extensions.get("network_stream")
        wire = network.get_extra_info("socket") if network is not None else None
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
        self._answer.close()


class AsyncStream:
    """The same for asyncio."""

    def __init__(self, answer: httpx.Response, address: _Address, request: Request) -> None:
        self._answer, self._address, self._request = answer, address, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._answer.stream, httpx.AsyncByteStream)
        try:
            async for chunk in self._answer.stream:
                yield chunk
        except (httpx.TransportError, httpx.StreamError, OSError) as error:
            raise ServerUnreachable(f"{self._address.url}: {_words(error, self._request)}") from error

    async def aclose(self) -> None:
        """End it."""
        await self._answer.aclose()


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


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
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

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


class _Content:
    """The body of an answer as it comes: into one 64-byte aligned block if its length is announced, or into a file."""

    def __init__(self, request: Request, status: int, fields: dict[str, str], buffers: Buffers) -> None:
        if fields.get("content-encoding", "identity") != "identity":
            raise UnexpectedAnswer(status, f"content-encoding {fields['content-encoding']!r}, none was asked for")
        self.bytes = 0
        self._pieces: list[bytes] = []
        self._file = request.into if status == 200 else None
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()  # an attempt before this one may have left its part
        self._block: memoryview | None = None
        if self._file is None and status not in BODILESS and "content-length" in fields:
            size = int(fields["content-length"])
            self._block = buffers.lend(-(-size // 4)).data.cast("B")[:size]

    def take(self, chunk: bytes) -> None:
        if self._block is not None:
            self._block[self.bytes : self.bytes + len(chunk)] = chunk
        elif self._file is not None:
            self._file.write(chunk)
        else:
            self._pieces.append(chunk)
        self.bytes += len(chunk)

    def whole(self) -> bytes | memoryview:
        return b"".join(self._pieces) if self._block is None else self._block.toreadonly()


def _fields(answer: httpx.Response) -> dict[str, str]:
    return {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in answer.headers.raw}


def _read_seconds(request: Request) -> float:
    return STREAM_SILENCE_SECONDS if request.streamed else SILENCE_SECONDS + request.wait_seconds


def _words(error: Exception, request: Request) -> str:
    """What broke, by name; of a limit also how long it is."""
    limits: dict[type[Exception], tuple[str, float]] = {
        httpx.ConnectTimeout: ("no connection", CONNECT_SECONDS),
        httpx.ReadTimeout: ("no answer", _read_seconds(request)),
        httpx.WriteTimeout: ("nothing taken", SILENCE_SECONDS),
    }
    name = type(error).__name__
    if type(error) in limits:
        what, seconds = limits[type(error)]
        return f"{name}: {what} within {seconds:g} s"
    return f"{name}: {error}"


def _checked(url: str) -> SplitResult:
    """The parts of a URL that a server can be found by. Raises `Misuse`."""
    try:
        parts = urlsplit(url)
        where = unquote(parts.path) if parts.scheme == "unix" else parts.hostname
        _ = parts.port
    except (AttributeError, TypeError, ValueError):
        parts, where = urlsplit(""), None
    if parts.username is not None or parts.password is not None:
        raise Misuse("expected a URL without a name and a password: give the token as token=, or in $GRADSERVE_TOKEN")
    if parts.scheme not in ("http", "https", "unix") or not where:
        raise Misuse(f"expected a URL like http://host:8970, https://host or unix:///path, came {url!r}")
    return parts


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
