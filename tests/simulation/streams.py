"""Answers that come piece by piece: what a server sends to one reader, and how the connection ends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextvars import Context

from gradserve.errors import ServerUnreachable

from .loop import VirtualLoop

PIECE_SECONDS = 0.01  # on the way, each
SILENCE_SECONDS = 40.0  # a reader's patience: more than two heartbeats


class SimStream:
    """One open connection, seen from both of its ends."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._pieces: deque[bytes | None] = deque()  # None: the server ended the stream
        self._news: asyncio.Future[None] = loop.create_future()
        self._broken: str | None = None
        self.hung_up: asyncio.Future[None] = loop.create_future()  # the reader is gone

    # The server's end

    def send(self, piece: bytes | None) -> None:
        """A piece is on its way."""
        self._loop.call_later(PIECE_SECONDS, self._arrive, piece, context=Context())

    def _arrive(self, piece: bytes | None) -> None:
        self._pieces.append(piece)
        self._wake()

    def break_off(self, why: str) -> None:
        """The connection is gone for both. What had arrived can still be read."""
        if self._broken is None:
            self._broken = why
            self._wake()
            self.close()

    def _wake(self) -> None:
        if not self._news.done():
            self._news.set_result(None)

    # The reader's end

    def close(self) -> None:
        """Hang up."""
        if not self.hung_up.done():
            self.hung_up.set_result(None)

    async def pieces(self) -> AsyncIterator[bytes]:
        """What comes, until the server ends it. Raises `ServerUnreachable`."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                if piece is None:
                    return
                yield piece
            if self._broken is not None:
                raise ServerUnreachable(self._broken)
            self._news = self._loop.create_future()
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._news
            except TimeoutError:
                self.break_off(f"silent for {SILENCE_SECONDS:.0f} s")
