"""Workers that use the SDK's sessions: they come, push, are killed or stopped, and come back where the cursor is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from gradserve.errors import Fenced, RunDeleted, RunPaused, WorkerNotFound
from gradserve.flows import FirstWeights, OpenedRun, open_run_flow
from gradserve.gradients import gradient_layout, gradient_pieces
from gradserve.session import Said, WorkerSession
from gradserve.weights import Weights
from gradserve.wire import Layout, decode_frame

from .ledger import Gradient, Ledger
from .loop import Program, VirtualLoop
from .network import Client

RUN = "digits"
SHAPES = {"bias": (2,), "dense": (2, 3), "head": (2, 2)}
THINK_SECONDS = 0.35  # mean time that a gradient takes
ITEMS_AFTERWARDS = 4  # computed once all faults are over, so that every loss can be told


def first_weights(seed: str) -> FirstWeights:
    """What every worker would start the run with."""
    numbers = np.random.default_rng(Random(f"{seed} weights").getrandbits(63))
    return FirstWeights.of({name: numbers.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()})


class Settlement:
    """When workers may stop: the faults are over, and each has pushed a little more."""

    def __init__(self) -> None:
        self.faults_over = asyncio.Event()
        self.all_done = asyncio.Event()
        self.open: list[str] = []

    def enter(self, name: str) -> None:
        """One more to wait for."""
        self.open.append(name)

    def done(self, name: str) -> None:
        """It has pushed all and left, or is dead."""
        self.open.remove(name)
        if not self.open and self.faults_over.is_set():
            self.all_done.set()


class SessionWorker:
    """A worker of one name, over all its processes."""

    def __init__(self, name: str, rank: int, loop: VirtualLoop, place: Place) -> None:
        self.name = name
        self.rank = rank
        self._loop, self._place = loop, place
        self._lives = 0
        self._sleeping: list[Program] = []  # paused processes that were replaced: zombies, once they wake
        self.start()

    def start(self) -> None:
        """A new process of this worker."""
        self._lives += 1
        instance = f"{self.name}.{self._lives}"
        self.program = Program(instance)
        self._place.settlement.enter(instance)
        self._loop.start(self.program, self._live(instance), instance)

    def stop(self, *, zombie: bool) -> None:
        """The process is killed, or (a zombie) only stopped for a while; its successor is to be started."""
        if zombie:
            self._loop.pause(self.program)
            self._sleeping.append(self.program)
        else:
            self._loop.kill(self.program)
            self._place.settlement.done(self.program.name)

    def wake(self) -> None:
        """Stopped processes go on: they do not know that they were replaced."""
        while self._sleeping:
            self._loop.resume(self._sleeping.pop())

    # One process

    async def _live(self, instance: str) -> None:
        life = Life(self._place, self.name, instance, self.rank)
        ledger = self._place.ledger
        try:
            while not await life.work():
                pass  # the run was deleted: the next attempt makes it anew
            ledger.items_done[self.name] = life.items_done
        except Fenced:
            ledger.notice(self.name, instance, "fenced")
            if self.program.name == instance:
                self.start()  # replaced by a process that started earlier and registered later: come again
        self._place.settlement.done(instance)


@dataclass(slots=True)
class Place:
    """What a worker needs to know of the world."""

    seed: str
    spec: dict[str, Any]
    ledger: Ledger
    settlement: Settlement
    client: Callable[[str, Random], Client]


class Life:
    """One process of a worker, from its start to its end."""

    def __init__(self, place: Place, worker: str, instance: str, rank: int) -> None:
        self._place, self._worker, self._instance, self._rank = place, worker, instance, rank
        self._random = Random(f"{place.seed} {instance}")
        self._numbers = np.random.default_rng(self._random.getrandbits(63))
        self._ledger = place.ledger
        self._client = place.client(worker, self._random)
        self._item = 1
        schedule = place.spec.get("schedule") or {}
        self._names_lr = schedule.get("name") == "client"

    @property
    def items_done(self) -> int:
        """How many of its samples are in the run, as it knows."""
        return self._item - 1

    async def work(self) -> bool:
        """Push one item after the other until the faults are over, and a few more; leave. False: the run is gone."""
        try:
            await self._push_all()
        except RunDeleted:
            return False
        return True

    async def _push_all(self) -> None:
        self._session = await self._begin()
        over = self._place.settlement.faults_over
        told = -1
        while told != len(self._session.notices):  # leaving, too, may tell of a loss: then there is more to do
            left = ITEMS_AFTERWARDS
            while left:
                if self._random.random() < 0.1:
                    await self._run(self._session.heartbeat())
                await self._push_one()
                left -= over.is_set()
            told = len(self._session.notices)
            await self._leave()

    async def visit(self) -> None:
        """Push an item or a few, then leave for good: leaving is the last chance to hear of a loss."""
        with contextlib.suppress(RunDeleted):
            self._session = await self._begin()
            for _ in range(self._random.randint(1, 3)):
                await self._push_one()
            await self._leave()
        self._ledger.gone.append(self._worker)
        self._place.settlement.done(self._instance)

    async def _leave(self) -> None:
        # Not found: it left in an earlier attempt, and the run has forgotten it since.
        with contextlib.suppress(WorkerNotFound):
            await self._run(self._session.leave())

    async def _begin(self) -> WorkerSession:
        rank, first = self._rank, first_weights(self._place.seed)
        flow = open_run_flow(RUN, self._place.spec, first, rank=rank)
        opened: OpenedRun = await self._client.run(flow)
        session = WorkerSession(opened.key, self._worker, self._instance, first=first, rank=rank)
        await self._client.run(session.register())
        self._ledger.notice(self._worker, self._instance, "registered")
        self._item = int(session.cursor or 0) + 1
        return session

    async def _push_one(self) -> None:
        session = self._session
        base = session.weights
        if base is None or self._random.random() < 0.6:
            base = await self._run(session.pull(wait_seconds=self._random.choice((0.0, 0.0, 0.5))))
        await asyncio.sleep(self._random.expovariate(1 / THINK_SECONDS))
        tensors = gradient_of(base.layout, self._numbers, partly=self._random.random() < 0.3)
        digest = digest_of(base.layout, tensors)
        said = Said(samples=float(self._random.randint(1, 64)), loss=self._random.choice((None, self._random.random())))
        if self._names_lr:
            said["lr"] = self._random.uniform(0.001, 0.1)
        self._ledger.gradients[digest] = Gradient(
            digest,
            self._worker,
            self._instance,
            session.next_sequence,
            self._item,
            base.etag,
            base.vector.tobytes(),
            **said,
        )
        await self._deliver(base, tensors, digest, said)

    async def _deliver(self, base: Weights, tensors: dict[str, np.ndarray], digest: str, said: Said) -> None:
        want_weights = self._random.random() < 0.6
        while True:
            flow = self._session.push(tensors, base=base, cursor=str(self._item), want_weights=want_weights, **said)
            try:
                result = await self._run(flow)
            except RunPaused:
                await asyncio.sleep(0.5)  # a refusal leaves no trace: the same push again
                continue
            break
        if result.accepted:
            self._ledger.acknowledged(digest, result.outcome)
            self._item += 1

    async def _run(self, flow: Any) -> Any:
        """A flow of the session; what it survived is written down, and the data goes back to the cursor."""
        noticed = len(self._session.notices)
        result = await self._client.run(flow)
        if len(self._session.notices) > noticed:
            self._ledger.notice(self._worker, self._instance, "rewound")
            self._item = int(self._session.cursor or 0) + 1
        return result


def gradient_of(layout: Layout, numbers: np.random.Generator, *, partly: bool) -> dict[str, np.ndarray]:
    """A gradient like no other; partly: not of all tensors."""
    names = list(layout.names)
    if partly:
        names = [name for name in names if numbers.random() < 0.5] or names[:1]
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    return {name: numbers.standard_normal(shapes[name]).astype(np.float32) for name in names}


def digest_of(layout: Layout, tensors: dict[str, np.ndarray]) -> str:
    """The digest that the service will know the gradient by."""
    part = gradient_layout(layout, tensors)
    return decode_frame(b"".join(bytes(piece) for piece in gradient_pieces(part, tensors, {}))).digest
