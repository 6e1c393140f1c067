"""Watching through broken connections, against a socket that says exactly what the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import gradserve as gs
from gradserve.flows import OpenedRun, RunKey
from gradserve.run import Run
from gradserve.run_session import RunSession

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 10\n\n"
DESCRIBED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    b'{"uid": "uid-1", "position": 0, "state": "running"}'
)
KEY = RunKey("digits", "uid-1")


def event(position: int, kind: str = "update", **fields: object) -> bytes:
    """One event as it stands on the wire."""
    document = json.dumps({"position": position, **fields})
    return f"id: {position}\nevent: {kind}\ndata: {document}\n\n".encode()


class Station:
    """Sends one programme to each who listens, then cuts it; the last one is left open. Who asks how the run is hears
    that it is running, at position 0."""

    def __init__(self, *programmes: bytes) -> None:
        self._programmes = list(programmes)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []  # the Last-Event-ID of each connection
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                self._open.append(line)
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    received = line.recv(1 << 16)
                    if not received:
                        return
                    request += received
                headers = dict(row.split(": ", 1) for row in request.decode().split("\r\n")[1:] if row)
                if not request.split(b" ")[1].endswith(b"/events"):
                    line.sendall(DESCRIBED)
                    line.close()
                    continue
                self.asked.append(headers["Last-Event-ID"])
                line.sendall(HEAD + self._programmes.pop(0))
                if self._programmes:
                    line.close()

    def close(self) -> None:
        """The clients are closed by now, so whatever the thread is at ends by itself."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for line in (self._listener, *self._open):
            line.close()


@pytest.fixture
def station() -> Iterator[Callable[..., Station]]:
    """Makes stations, and closes them."""
    made: list[Station] = []

    def make(*programmes: bytes) -> Station:
        made.append(Station(*programmes))
        return made[-1]

    yield make
    for each in made:
        each.close()


def a_run(client: gs.Client) -> Run:
    """A run that nobody had to open."""
    return Run(client, RunSession(OpenedRun(KEY, {})))


BROKEN = (event(1) + event(2)[:-5], event(2) + event(3), b": nothing yet\n\n", event(4, "configure", state="closed"))


def test_no_event_is_missed_and_none_comes_twice(station):
    """Each connection goes on where the one before broke, in the middle of an event too; the closed run ends it."""
    at = station(*BROKEN)
    with gs.connect(at.url) as client:
        seen = [(each.id, each.kind) for each in a_run(client).watch(since=0)]
    assert seen == [(1, "update"), (2, "update"), (3, "update"), (4, "configure")]
    assert at.asked == ["0", "1", "3", "3"]


async def test_no_event_is_missed_in_a_loop_either(station):
    """The same with asyncio."""
    at = station(*BROKEN)
    async with gs.connect_async(at.url) as client:
        run = gs.AsyncRun(client, RunSession(OpenedRun(KEY, {})))
        async with run.watch(since=0) as events:
            seen = [(each.id, each.kind) async for each in events]
    assert seen == [(1, "update"), (2, "update"), (3, "update"), (4, "configure")]
    assert at.asked == ["0", "1", "3", "3"]


@pytest.mark.parametrize("end", ["watch", "client"])
def test_closing_ends_it_from_another_thread(station, end):
    """The thread that waits for the next event is woken, not left until the next heartbeat."""
    at = station(event(1))
    client = gs.connect(at.url)
    watch = a_run(client).watch(since=0)
    assert next(watch).id == 1
    rest: list[gs.Event] = []
    waiting = threading.Thread(target=lambda: rest.extend(watch))
    waiting.start()
    (watch if end == "watch" else client).close()
    waiting.join(60)
    assert not waiting.is_alive()
    assert rest == []
    client.close()


async def test_cancelling_ends_it_in_a_loop(station):
    """And the connection with it."""
    at = station(event(1))
    async with gs.connect_async(at.url) as client:
        heard = asyncio.Event()

        async def listen() -> None:
            async for _ in gs.AsyncRun(client, RunSession(OpenedRun(KEY, {}))).watch(since=0):
                heard.set()

        listening = asyncio.create_task(listen())
        await asyncio.wait_for(heard.wait(), 60)
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening


async def test_leaving_ends_it_for_another_task(station):
    """The task that waits for the next event stops, without an error on either side."""
    at = station(event(1))
    async with gs.connect_async(at.url) as client:
        heard = asyncio.Event()

        async def listen(events: gs.AsyncWatch) -> list[int]:
            seen = []
            async for each in events:
                seen.append(each.id)
                heard.set()
            return seen

        async with gs.AsyncRun(client, RunSession(OpenedRun(KEY, {}))).watch(since=0) as events:
            listening = asyncio.create_task(listen(events))
            await asyncio.wait_for(heard.wait(), 60)
        assert await asyncio.wait_for(listening, 60) == [1]


async def test_leaving_ends_it_for_another_task_that_is_connecting(station):
    """What is opened then is closed again."""
    at = station(event(1))
    async with gs.connect_async(at.url) as client:
        run, opened, go_on = gs.AsyncRun(client, RunSession(OpenedRun(KEY, {}))), asyncio.Event(), asyncio.Event()
        drive = client.drive

        async def drive_and_wait(flow):
            answer = await drive(flow)
            opened.set()
            await go_on.wait()
            return answer

        client.drive = drive_and_wait
        async with run.watch(since=0) as events:
            listening = asyncio.create_task(anext(events.__aiter__(), None))
            await asyncio.wait_for(opened.wait(), 60)
        go_on.set()
        assert await asyncio.wait_for(listening, 60) is None
