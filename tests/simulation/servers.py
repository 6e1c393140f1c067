"""Servers: the real `Replicas` behind the real app, called in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from random import Random
from typing import Any
from urllib.parse import unquote

import numpy as np
from fastapi import FastAPI

from gradserve.errors import ServerUnreachable
from gradserve.messages import Request, Response
from gradserve.wire import Frame
from gradserve_service.core.arrays import Arrays
from gradserve_service.core.blocks import in_turn
from gradserve_service.core.entries import Entry
from gradserve_service.core.gradient import Gradient
from gradserve_service.core.image import METADATA_KEY
from gradserve_service.http.app import create_app
from gradserve_service.limits import Limits
from gradserve_service.replica import Replicas
from gradserve_service.replica.recovery import Workshop
from gradserve_service.replica.threads import Threads
from gradserve_service.settings import Settings
from gradserve_service.store.protocols import StoreUnavailable
from gradserve_service.store.records import SnapshotRecord

from .disk import Disk
from .faults import Faults
from .loop import Program, VirtualLoop
from .store import SimStore
from .streams import SimStream

THREAD_SECONDS = 0.005  # mean that work waits for its thread, and its answer for the loop
EPOCH_SECONDS = 1_700_000_000.0


class Inline(Threads):
    """No threads, but their time: the work is done at one moment of it, and others get their turns before and after."""

    def __init__(self, random: Random) -> None:
        self.count = 1
        self._random = random

    async def run(self, function: Callable[[], Any]) -> Any:
        """Do it in a while, also when the caller is cancelled meanwhile."""
        return await asyncio.shield(asyncio.create_task(self._done(function), name="thread"))

    async def _done(self, function: Callable[[], Any]) -> Any:
        await asyncio.sleep(self._random.expovariate(1 / THREAD_SECONDS))
        result = function()
        await asyncio.sleep(self._random.expovariate(1 / THREAD_SECONDS))
        return result

    def run_all(self, tasks: Sequence[Callable[[], None]]) -> None:
        """One after the other."""
        in_turn(tasks)

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True)
class Slippery(Workshop):
    """Arithmetic that goes wrong where `wrong` says so."""

    wrong: Callable[[Entry], bool] = lambda _: False

    async def apply(self, arrays: Arrays, entry: Entry, frame: Frame | None, gradient: Gradient | None) -> None:
        """`Workshop.apply`, then maybe another lowest bit in the first weight."""
        await super().apply(arrays, entry, frame, gradient)
        if arrays.weights is not None and self.wrong(entry):
            arrays.weights = arrays.weights.copy()
            arrays.weights.view(np.uint32)[0] ^= 1


@cache
def app_of(index: int) -> FastAPI:
    """The app of server number `index`: making one takes longer than a whole run, so it is used again."""
    return create_app(None, Settings(token=None))


class Server:
    """One place where a server runs. It can be killed, restarted, drained and paused."""

    def __init__(
        self, index: int, loop: VirtualLoop, disk: Disk, faults: Faults, limits: Limits, seed: str, trace: Any
    ) -> None:
        self.name = f"server{index}"
        self.lives = 0
        self._index, self._loop, self._disk, self._faults, self._limits = index, loop, disk, faults, limits
        self._seed, self._trace = seed, trace
        self._open: dict[int, asyncio.Future[Response]] = {}  # requests under way
        self._streams: list[SimStream] = []  # that somebody reads, or has read
        self._asked = 0
        self.faults_of_its_own: list[str] = []  # exceptions that came out of the app
        self.start()

    def start(self) -> None:
        """A new life, with nothing in memory."""
        self.lives += 1
        self.going = False
        self.program = Program(self.name)
        random = Random(f"{self._seed} {self.name} {self.lives}")
        store = SimStore(self._disk, self._loop, self.program, self._faults, random)
        self.replicas = Replicas(
            store,
            limits=self._limits,
            clock=lambda: EPOCH_SECONDS + self._loop.time(),
            new_uid=lambda: f"{random.getrandbits(128):032x}",
            threads=Inline(random),
        )
        shop = self.replicas._shop
        self.replicas._shop = Slippery(
            shop.threads, shop.buffers, shop.inline_parameters_max, lambda entry: self._gets_wrong(entry, random)
        )
        app_of(self._index).state.replicas = self.replicas
        self._loop.start(self.program, self.replicas.start(), f"{self.name} starts")

    def _gets_wrong(self, entry: Entry, random: Random) -> bool:
        """Only where a snapshot was due and another server has published it: nobody knows better than the first."""
        return any(
            snapshot.hash == entry.hash
            and snapshot.object.id in run.objects  # it may have been damaged until nothing is left
            and _was_due(snapshot, run.objects[snapshot.object.id].content)
            for run in self._disk.contents.runs.values()
            for snapshot in run.snapshots
        ) and self._faults.of_arithmetic(random)

    @property
    def alive(self) -> bool:
        """Whether it takes connections (a paused one does)."""
        return not self.program.dead

    def kill(self) -> None:
        """kill -9. Whoever waits for an answer sees the connection break."""
        self._loop.kill(self.program)
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(ServerUnreachable(f"{self.name} was killed"))
        self._open.clear()
        for stream in self._streams:
            stream.break_off(f"{self.name} was killed")
        self._streams.clear()

    async def drain(self) -> None:
        """SIGTERM, as far as the replicas see it; the rest is a kill."""
        self.going = True  # until it is dead
        replicas = self.replicas
        task = self._loop.start(self.program, replicas.drain(), f"{self.name} drains")
        await asyncio.wait([task], timeout=10.0)
        if self.replicas is replicas and self.alive:
            self.kill()

    def receive(self, request: Request, answer: asyncio.Future[Response]) -> None:
        """A request has arrived. The answer, once there is one, is set on the future: it leaves at that moment."""
        if not self.alive:
            if not answer.done():
                answer.set_exception(ServerUnreachable(f"{self.name} refuses connections"))
            return
        self._asked += 1
        number = self._asked
        self._open[number] = answer
        stream = SimStream(self._loop) if request.streamed else None
        if stream is not None:
            self._streams.append(stream)
        self._loop.start(self.program, self._serve(number, request, answer, stream), f"{self.name} {request.method}")

    async def _serve(
        self, number: int, request: Request, answer: asyncio.Future[Response], stream: SimStream | None
    ) -> None:
        try:
            response = await call_app(app_of(self._index), request, stream, answer)
        except StoreUnavailable:  # half an answer is out: the connection breaks, and the reader sees that it is short
            if not answer.done():
                answer.set_exception(ServerUnreachable(f"{self.name} broke off"))
            return
        except Exception as error:  # noqa: BLE001 - the edge lets nothing through: if it does, that is a finding
            self.faults_of_its_own.append(f"{request.method} {request.path}: {error!r}")
            return
        finally:
            if not self.program.dead:
                self._open.pop(number, None)
        self._trace("answers", self.name, request.method, request.path, response.status)
        if not answer.done():
            answer.set_result(response)


def _was_due(snapshot: SnapshotRecord, image: bytes) -> bool:
    """Not one that a server left when it went, or made up for."""
    header = json.loads(image[8 : 8 + int.from_bytes(image[:8], "little")])
    state = json.loads(header["__metadata__"][METADATA_KEY])
    return bool(state["control"]["snapshot_position"] == snapshot.position)


async def call_app(
    app: FastAPI, request: Request, stream: SimStream | None = None, begun: asyncio.Future[Response] | None = None
) -> Response:
    """One request through the whole app. With a stream, a 200 is there with its headers (`begun`); its body comes
    through the stream."""
    path, _, query = request.path.partition("?")
    body = b"".join(bytes(piece) for piece in request.body)
    headers = [(name.lower().encode(), value.encode()) for name, value in request.headers]
    if request.body:
        headers.append((b"content-length", str(len(body)).encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("simulation", 1),
        "server": ("simulation", 80),
    }
    sent: list[dict[str, Any]] = []
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        # A client that reads no stream stays until it is answered.
        await (asyncio.get_running_loop().create_future() if stream is None else stream.hung_up)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if stream is None or sent[0]["status"] != 200:
            return
        if message["type"] == "http.response.start":
            if begun is not None and not begun.done():
                begun.set_result(dataclasses.replace(_response(sent), stream=stream))
        elif message.get("more_body"):
            stream.send(bytes(message["body"]))
        else:
            stream.send(None)

    await app(scope, receive, partial(send))
    return _response(sent)


def _response(sent: list[dict[str, Any]]) -> Response:
    """What was sent, as its client sees it."""
    fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Response(sent[0]["status"], fields, b"".join(bytes(message.get("body", b"")) for message in sent[1:]))
