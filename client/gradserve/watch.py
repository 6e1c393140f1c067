"""Watching a run: its events one after the other, through broken connections, until it is closed."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import Closed, ServerUnreachable
from .events import Event, EventFeed
from .run_session import RunSession
from .transport import AsyncStream, Stream

if TYPE_CHECKING:
    from .async_client import AsyncClient
    from .client import Client

LOG = logging.getLogger("gradserve")


class Watch:
    """An iterator over events; `close()` ends it from any thread, and so does the end of the run or of the client.

    A connection that breaks is opened again where it broke: no event is missed, none comes twice.
    """

    def __init__(self, client: Client, run: RunSession, since: int | None) -> None:
        self._client = client
        self._run = run
        self._feed = EventFeed(since)
        self._stream: Stream | None = None
        self._waiting: deque[Event] = deque()
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while not self._waiting and not self._ended:
            self._listen()
        if not self._waiting:
            raise StopIteration
        event = self._waiting.popleft()
        if self._feed.ends_with(event):
            self._waiting.clear()
            self.close()
        return event

    def close(self) -> None:
        """Listen no more."""
        self._ended = True
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _listen(self) -> None:
        """Take the next piece of the stream, opening it first if need be."""
        try:
            if self._stream is None:
                self._open()
            if not self._ended:
                self._waiting += self._feed.read(next(self._pieces))
        except (StopIteration, ServerUnreachable) as error:
            if not self._ended:
                LOG.warning("run %s: the events broke off: %s", self._run.key.name, error or "the server ended them")
            stream, self._stream = self._stream, None
            if stream is not None:
                stream.close()
            self._ended = self._ended or self._client.closed
        except Closed:
            self._ended = True

    def _open(self) -> None:
        stream: Stream | None = self._client.drive(self._feed.open(self._run.key))
        self._stream, self._pieces = stream, iter(stream or ())
        if stream is None or self._ended:  # the run is over; or another thread closed this meanwhile
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncWatch:
    """The same for asyncio: `async with run.watch() as events: async for event in events: …`."""

    def __init__(self, client: AsyncClient, run: RunSession, since: int | None) -> None:
        self._client = client
        self._run = run
        self._feed = EventFeed(since)
        self._stream: AsyncStream | None = None
        self._ended = False
        self._events = self._listen()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def aclose(self) -> None:
        """Listen no more, and whoever waits for the next event in another task stops."""
        self._ended = True
        await self._close_stream()
        with contextlib.suppress(RuntimeError):  # running: that other task is inside, and finds the stream closed
            await self._events.aclose()

    async def _listen(self) -> AsyncGenerator[Event, None]:
        while not self._over():
            try:
                stream: AsyncStream | None = await self._client.drive(self._feed.open(self._run.key))
                if stream is None:
                    return
                self._stream = stream
                if self._over():  # closed meanwhile, by another task
                    return
                async for piece in stream:
                    for event in self._feed.read(piece):
                        yield event
                        if self._feed.ends_with(event):
                            return
                raise ServerUnreachable("the server ended them")
            except ServerUnreachable as error:
                if not self._ended:
                    LOG.warning("run %s: the events broke off: %s", self._run.key.name, error)
            except Closed:
                return
            finally:
                await self._close_stream()

    def _over(self) -> bool:
        return self._ended or self._client.closed

    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
