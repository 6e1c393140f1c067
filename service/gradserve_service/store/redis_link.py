"""Connections to Redis: who may use which, how long a reply may take, and what an error means for the caller.

redis-py makes the connections (TLS, passwords, UNIX sockets) and parses the replies. Its own client and pool are not
used: they cost 100 µs a command, and their retries could run a write twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, parse_url

from .protocols import StoreFull, StoreUnavailable, StoreUnfit
from .redis_packing import Argument, Command, pack
from .redis_scripts import Script
from .redis_settings import QUESTIONS

Reply = Any  # bytes, int, None or a list of replies: what RESP 2 knows

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 20.0  # without any progress: an fsync of a struggling disk takes seconds, a dead peer never answers
READ_BYTES = 256 << 10  # one read from a socket
AHEAD_MAX = 8  # commands of a stream under way before the first reply is read

_FULL = ("OOM command not allowed", "MISCONF")
_REFUSED = (exceptions.AuthenticationError, exceptions.NoPermissionError)


class StoreRefused(StoreUnavailable):
    """Redis answers, but may not be used (a password, an ACL, its settings): waiting does not cure it."""


class Link:
    """Up to `lanes_max` connections to one Redis. A connection carries one exchange at a time.

    Nothing is sent twice, except a script that Redis said it does not know (and so did not run). `accept` sees the
    settings of every new connection before its first use: what answers after a reconnect may be another Redis.
    """

    def __init__(self, url: str, *, lanes_max: int, accept: Callable[[list[Reply]], None]) -> None:
        options: dict[str, Any] = dict(parse_url(url))
        self._kind: type[AbstractConnection] = options.pop("connection_class", Connection)
        # One deadline covers a whole exchange (below), so redis-py sets none of its own.
        limits = {"socket_timeout": None, "socket_connect_timeout": CONNECT_SECONDS, "socket_read_size": READ_BYTES}
        self._options = options | limits | {"protocol": 2, "decode_responses": False}
        self._accept = accept
        self._turns = asyncio.Semaphore(lanes_max)
        self._all: list[AbstractConnection] = [self._kind(**self._options)]  # now: an unknown option is told early
        self._idle = self._all.copy()

    async def call(self, *arguments: Argument) -> Reply:
        """One command, one reply. Raises StoreFull, StoreUnavailable."""
        return _checked((await self._exchange([pack(*arguments)]))[0])

    async def calls(self, *commands: Sequence[Argument]) -> list[Reply]:
        """Several commands in one round trip (not a transaction). Raises on the first error among the replies."""
        replies = await self._exchange([pack(*arguments) for arguments in commands])
        return [_checked(reply) for reply in replies]

    async def run(self, script: Script, keys: Sequence[str | bytes], arguments: Sequence[Argument]) -> Reply:
        """Run a script. Raises as `call` does; after StoreUnavailable it may have run, or may still run."""
        command = pack(b"EVALSHA", script.sha, b"%d" % len(keys), *keys, *arguments)
        reply = (await self._exchange([command]))[0]
        if isinstance(reply, exceptions.NoScriptError):
            await self.call("SCRIPT", "LOAD", script.source)
            reply = (await self._exchange([command]))[0]
        return _checked(reply)

    async def settings(self) -> None:
        """Show the settings to `accept` again."""
        replies = await self._exchange([pack(*question) for question in QUESTIONS])
        self._show(replies)

    async def stream(self, commands: Iterable[Command], take: Callable[[int, Reply], None]) -> None:
        """Many large commands over one connection, a few under way at once; `take(index, reply)` in order.

        An error reply or an exception of `take` ends it: the connection is closed, the rest is not sent. After
        StoreFull nothing of it runs any more, so that the caller can remove what was written.
        """
        async with self._lane() as (lane, deadline):
            sent = taken = 0
            try:
                for command in commands:
                    await self._send(lane, command)
                    sent += 1
                    if sent - taken >= AHEAD_MAX:
                        take(taken, _checked(await self._read(lane)))
                        taken += 1
                    deadline.push_back()
                while taken < sent:
                    take(taken, _checked(await self._read(lane)))
                    taken += 1
                    deadline.push_back()
            except StoreFull:
                for _ in range(taken + 1, sent):
                    await self._read(lane)
                    deadline.push_back()
                raise

    async def close(self) -> None:
        """Close every connection, also those in use."""
        for lane in self._all:
            with contextlib.suppress(exceptions.RedisError, OSError):
                await lane.disconnect()
        self._all.clear()
        self._idle.clear()

    async def _exchange(self, commands: Sequence[Command]) -> list[Reply]:
        async with self._lane() as (lane, _):
            for command in commands:
                await self._send(lane, command)
            return [await self._read(lane) for _ in commands]

    @contextlib.asynccontextmanager
    async def _lane(self) -> AsyncIterator[tuple[AbstractConnection, _Deadline]]:
        """A connection for one exchange. If that does not end as it should, the connection is closed."""
        await self._turns.acquire()
        try:
            # The one used last: its buffers are warm, and the others may be closed by now.
            if self._idle:
                lane = self._idle.pop()
            else:
                lane = self._kind(**self._options)
                self._all.append(lane)
            try:
                async with _Deadline() as deadline:
                    await self._ready(lane)
                    yield lane, deadline
            except BaseException:
                with contextlib.suppress(exceptions.RedisError, OSError):
                    await lane.disconnect(nowait=True)
                raise
            finally:
                self._idle.append(lane)
        finally:
            self._turns.release()

    async def _ready(self, lane: AbstractConnection) -> None:
        """Connected, accepted, nothing unread: a Redis that restarted meanwhile is noticed before we send."""
        if lane.is_connected:
            if not await lane.can_read():
                return
            await lane.disconnect(nowait=True)
        await lane.connect()  # type: ignore[no-untyped-call]
        for question in QUESTIONS:
            await self._send(lane, pack(*question))
        self._show([await self._read(lane) for _ in QUESTIONS])

    def _show(self, replies: list[Reply]) -> None:
        _checked(replies[0])
        try:
            self._accept(replies)
        except StoreUnfit as unfit:
            raise StoreRefused(str(unfit)) from unfit

    async def _send(self, lane: AbstractConnection, command: Command) -> None:
        for piece in command:
            await lane.send_packed_command([piece], check_health=False)  # type: ignore[list-item]

    async def _read(self, lane: AbstractConnection) -> Reply:
        try:
            return await lane.read_response()
        except exceptions.ResponseError as error:
            # A primary that was demoted: the next connection finds the new one. (In 6.2 a script says it as text.)
            if isinstance(error, exceptions.ReadOnlyError) or "READONLY" in str(error):
                raise
            return error


class _Deadline:
    """`async with`: a bound on the time without progress, and redis-py's exceptions turned into the store's."""

    __slots__ = ("_timeout",)

    async def __aenter__(self) -> _Deadline:
        self._timeout = asyncio.timeout(REPLY_SECONDS)
        await self._timeout.__aenter__()
        return self

    def push_back(self) -> None:
        """There was progress: the time starts again."""
        self._timeout.reschedule(asyncio.get_running_loop().time() + REPLY_SECONDS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise StoreUnavailable(f"Redis did not answer for {REPLY_SECONDS:.0f} s") from error
        if isinstance(error, _REFUSED):
            raise StoreRefused(f"Redis refuses us: {error}") from error
        if isinstance(error, exceptions.RedisError | OSError):
            raise StoreUnavailable(f"Redis cannot be reached: {error}") from error


def _checked(reply: Reply) -> Reply:
    """The reply, or the exception that an error reply stands for."""
    if not isinstance(reply, exceptions.RedisError):
        return reply
    text = str(reply)
    if isinstance(reply, exceptions.OutOfMemoryError) or any(sign in text for sign in _FULL):
        raise StoreFull(f"Redis refuses writes: {text}") from reply
    if isinstance(reply, _REFUSED):
        raise StoreRefused(f"Redis refuses us: {text}") from reply
    raise StoreUnavailable(f"Redis answered: {text}") from reply
