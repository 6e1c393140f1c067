"""A TCP proxy that misbehaves: resets, delays, swallows requests or replies, and sends requests a second time.

It knows no protocol. What a client has sent since it last heard from the server is its *request*; when one begins, the
seed draws whether something happens to it. That fits HTTP/1.1 and RESP alike, where a connection carries one exchange
at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from faults.processes import a_free_port

PIECE_BYTES = 256 << 10
COPY_BYTES_MAX = 4 << 20  # a longer request is not sent twice
SILENCE_SECONDS = (0.2, 3.0)  # of a black hole, before the connection is reset
DELAY_SECONDS = (0.01, 1.5)
COPY_SECONDS = (0.0, 2.0)  # how much later a copy goes out
FAULTS = ("reset", "cut before the reply", "black hole up", "black hole down", "delay", "duplicate")
LINGER_RESET = struct.pack("ii", 1, 0)


@dataclass
class FaultProxy:
    """One port of 127.0.0.1 in front of another. Runs in a thread of its own; `share` of the requests get a fault."""

    target: int
    chance: random.Random
    share: float
    port: int = field(default_factory=a_free_port)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listens when it returns."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def end(self) -> None:
        """Close everything."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=PIECE_BYTES)

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(_Connection(self, reader, writer).serve())

    def _keep(self, work: object) -> None:
        task = self._loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def draw(self) -> str | None:
        """What happens to the request that begins now."""
        if self.chance.random() >= self.share:
            return None
        fault = self.chance.choice(FAULTS)
        self.counts[fault] += 1
        return fault

    def repeat(self, request: bytes) -> None:
        """Send these bytes once more, over a connection of their own, a little later."""
        self._keep(self._repeated(request))

    async def _repeated(self, request: bytes) -> None:
        await asyncio.sleep(self.chance.uniform(*COPY_SECONDS))
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
            writer.write(request)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COPY_SECONDS[1]):
                    await reader.read(PIECE_BYTES)  # the beginning of a reply that nobody wants
            writer.close()


class _Connection:
    """A client's connection and the one behind it."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self._request = b""  # sent since the last reply; empty: a new one begins with the next byte
        self._fault: str | None = None

    async def serve(self) -> None:
        """Until either side is done, or a fault ends it."""
        back: asyncio.StreamWriter | None = None
        try:
            reader, back = await asyncio.open_connection("127.0.0.1", self._proxy.target, limit=PIECE_BYTES)
            ways = [asyncio.ensure_future(self._up(back)), asyncio.ensure_future(self._down(reader))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # nobody listens there now: the client finds its connection closed
        finally:
            for writer in (self._writer, back):
                if writer is not None:
                    _reset(writer)

    async def _up(self, back: asyncio.StreamWriter) -> None:
        """Requests, from the client to the server."""
        while piece := await self._reader.read(PIECE_BYTES):
            if not self._request:
                self._fault = self._proxy.draw()
                if self._fault == "reset":
                    return
                if self._fault == "delay":
                    await asyncio.sleep(self._proxy.chance.uniform(*DELAY_SECONDS))
            self._request = (self._request + piece)[: COPY_BYTES_MAX + 1]
            if self._fault == "black hole up":
                await asyncio.sleep(self._proxy.chance.uniform(*SILENCE_SECONDS))
                return
            back.write(piece)
            await back.drain()

    async def _down(self, reader: asyncio.StreamReader) -> None:
        """Replies, from the server to the client."""
        while piece := await reader.read(PIECE_BYTES):
            fault, request = self._fault, self._request
            self._fault, self._request = None, b""
            if fault == "cut before the reply":
                return
            if fault == "black hole down":
                await asyncio.sleep(self._proxy.chance.uniform(*SILENCE_SECONDS))
                return
            if fault == "duplicate" and len(request) <= COPY_BYTES_MAX:
                self._proxy.repeat(request)
            self._writer.write(piece)
            await self._writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN: the other side learns of it in whatever it does."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    writer.transport.abort()


@contextlib.contextmanager
def proxies_before(ports: list[int], seed: str, share: float) -> Iterator[list[FaultProxy]]:
    """One proxy before each port; closed whatever happens."""
    with contextlib.ExitStack() as open_ones:
        made = [FaultProxy(port, random.Random(f"{seed} {index}"), share) for index, port in enumerate(ports)]
        for proxy in made:
            proxy.start()
            open_ones.callback(proxy.end)
        yield made
