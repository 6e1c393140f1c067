"""Connections to Redis: who may use which, how long a reply may take, and what an error means for the caller.

redis-py makes the connections (TLS, passwords, UNIX sockets) and parses the replies. Its own client and pool are not
used: they cost 100 µs a command, and their retries could run a write twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection, parse_url

from .protocols import StoreFull, StoreUnavailable
from .redis_packing import Argument, Command, pack
from .redis_scripts import Script

Reply = Any  # bytes, int, None or a list of replies: what RESP 2 knows

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 20.0  # without any progress: an fsync of a struggling disk takes seconds, a dead peer never answers
READ_BYTES = 256 << 10  # one read from a socket
AHEAD_MAX = 8  # commands of a stream under way before the first reply is read

_FULL = ("OOM command not allowed", "MISCONF")
_REFUSED = (exceptions.AuthenticationError, exceptions.NoPermissionError)


class StoreRefused(StoreUnavailable):
    """Redis answers, but not to us (a password, an ACL): waiting does not cure it."""


class Link:
    """Up to `lanes_max` connections to one Redis. A connection carries one exchange at a time.

    Nothing is sent twice, except a script that Redis said it does not know (and so did not run).
    `connects` counts connections made; `on_loss` is called whenever one breaks.
    """

    def __init__(self, url: str, *, lanes_max: int, on_loss: Callable[[], None]) -> None:
        options: dict[str, Any] = dict(parse_url(url))
        self._kind: type[AbstractConnection] = options.pop("connection_class", Connection)
        # One deadline covers a whole exchange (below), so redis-py sets none of its own.
        fixed = {"protocol": 2, "socket_timeout": None, "socket_connect_timeout": CONNECT_SECONDS}
        self._options = options | fixed | {"socket_read_size": READ_BYTES}
        self._on_loss = on_loss
        self._turns = asyncio.Semaphore(lanes_max)
        self._idle: list[AbstractConnection] = []
        self._all: set[AbstractConnection] = set()

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

    async def stream(self, commands: Iterable[Command], take: Callable[[int, Reply], None]) -> None:
        """Many large commands over one connection, a few under way at once; `take(index, reply)` in order.

        An error reply or an exception of `take` ends it: the connection is closed, the rest is not sent.
        """
        await self._turns.acquire()
        lane = self._lane()
        clean = False
        try:
            async with _Deadline() as deadline:
                await self._ready(lane)
                sent = taken = 0
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
            clean = True
        finally:
            await self._give_back(lane, clean)

    async def close(self) -> None:
        """Close every connection, also those in use."""
        for lane in list(self._all):
            await lane.disconnect()
        self._all.clear()
        self._idle.clear()

    async def _exchange(self, commands: Sequence[Command]) -> list[Reply]:
        await self._turns.acquire()
        lane = self._lane()
        clean = False
        try:
            async with _Deadline():
                await self._ready(lane)
                for command in commands:
                    await self._send(lane, command)
                replies = [await self._read(lane) for _ in commands]
            clean = True
            return replies
        finally:
            if clean:
                self._idle.append(lane)
                self._turns.release()
            else:
                await self._give_back(lane, clean)

    def _lane(self) -> AbstractConnection:
        if self._idle:
            return self._idle.pop()  # the one used last: its buffers are warm, and the others may be closed by Redis
        lane = self._kind(**self._options)
        self._all.add(lane)
        return lane

    async def _ready(self, lane: AbstractConnection) -> None:
        """Connected, and nothing unread on it: a Redis that restarted while we were idle is noticed before we send."""
        if lane.is_connected:
            if not await lane.can_read():
                return
            await lane.disconnect(nowait=True)
            self._on_loss()
        await lane.connect()  # type: ignore[no-untyped-call]

    async def _send(self, lane: AbstractConnection, command: Command) -> None:
        for piece in command:
            await lane.send_packed_command([piece], check_health=False)  # type: ignore[list-item]

    async def _read(self, lane: AbstractConnection) -> Reply:
        try:
            return await lane.read_response()
        except exceptions.ResponseError as error:
            return error

    async def _give_back(self, lane: AbstractConnection, clean: bool) -> None:
        """Back into the pool; a lane with unread replies is closed first."""
        try:
            if not clean:
                with contextlib.suppress(exceptions.RedisError, OSError):
                    await lane.disconnect(nowait=True)
                self._on_loss()
        finally:
            self._idle.append(lane)
            self._turns.release()


class _Deadline:
    """`async with`: a bound on the time without progress, and redis-py's exceptions turned into the store's."""

    async def __aenter__(self) -> _Deadline:
        self._timeout = asyncio.timeout(REPLY_SECONDS)
        await self._timeout.__aenter__()
        return self

    def push_back(self) -> None:
        """There was progress: the time starts again."""
        self._timeout.reschedule(asyncio.get_running_loop().time() + REPLY_SECONDS)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
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
