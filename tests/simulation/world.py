"""One seed, one run: servers, workers, people and faults are put together, run to the end, and looked at."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any
from unittest import mock

import structlog

from gradserve.errors import GradserveError
from gradserve.messages import Request, Response
from gradserve_service.core import machine, numerics
from gradserve_service.core.control import WORKERS_KEPT
from gradserve_service.limits import Limits

from .archive import Archive
from .disk import Disk
from .evidence import Evidence, pushes
from .faults import MIXES, Faults, Mix
from .hands import Hands
from .invariants import untold, violations_of
from .ledger import Ledger
from .loop import Deadlock, Endless, VirtualLoop
from .network import Client, Network
from .operators import MONITORED, Operator
from .scripts import ScriptWorker
from .servers import Server, app_of, call_app
from .store import GHOST_SECONDS_MAX
from .workers import RUN, Place, SessionWorker, Settlement

FAULT_SECONDS = 14.0  # how long faults go on
FINISH_SECONDS = 240.0  # how long the work may take afterwards: the SDK's longest pause is 20 s
ECHO_SECONDS = 2 * GHOST_SECONDS_MAX  # how long a fault may have effects after its time
LINES_KEPT = 400  # of the trace
PLATEAU = {"name": "reduce_on_plateau", "monitor": MONITORED, "patience": 1, "factor": 0.5}
BATCHES = ({"pushes": 3}, {"samples": 100}, {"pushes": 2, "clip_each": True})
CLIPS = [{"name": "global_norm", "max_norm": 1.0}]
GUESTS_KEPT = 2  # rows for guests, where the run keeps few


@dataclass(slots=True)
class Shape:
    """What a seed draws before it starts."""

    servers: int
    sessions: int
    restarting: int  # of the sessions
    rank_zero: bool  # each of them thinks that it is the one to bring the first weights
    scripts: tuple[str, ...]
    spec: dict[str, Any]
    limits: Limits
    watchers: int
    homes: bool  # clients know all servers and keep to the run's home; else something between spreads them

    @classmethod
    def drawn(cls, random: Random) -> Shape:
        """From 1 server and 2 workers to 3 and 4; runs so small that snapshots and objects come often."""
        sessions = random.choice((1, 2, 3, 3))
        scripts = random.choice(((), ("plain",), ("recomputing",), ("plain", "recomputing")))
        optimizer = random.choice(({"name": "sgd", "lr": 0.05, "momentum": 0.9}, {"name": "adam", "lr": 0.01}))
        staleness = random.choice(
            ({"name": "none"}, {"name": "inverse"}, {"name": "inverse", "max_staleness": 4}, {"name": "none"})
        )
        schedule = random.choice((None, {"name": "client"}, PLATEAU, PLATEAU))
        groups = random.choice(([], [{"name": "slow", "match": ["head"], "lr_scale": 0.25}]))
        limits = Limits(
            inline_parameters_max=random.choice((0, 65_536, 65_536)),
            inline_payload_bytes_max=random.choice((0, 200, 65_536)),
            snapshot_journal_bytes_min=random.choice((700, 1_500, 6_000)),
            snapshot_state_factor=1,
            catch_up_entries=random.choice((3, 256)),
            batch_entries_max=random.choice((2, 64)),
        )
        return cls(
            servers=random.choice((1, 2, 3, 3)),
            sessions=sessions,
            restarting=random.randint(1, sessions),
            rank_zero=random.random() < 0.5,
            scripts=scripts if sessions + len(scripts) > 1 else ("plain",),
            spec={"optimizer": optimizer, "staleness": staleness, "schedule": schedule, "groups": groups},
            limits=limits,
            homes=random.random() < 0.5,
            watchers=random.choice((0, 1)),
        )


@dataclass(slots=True)
class Report:
    """What came out of one run."""

    seed: int
    mix: str
    violations: list[str]
    counters: dict[str, int]
    trace: str  # a digest of every event: equal for equal runs
    lines: list[str] = field(default_factory=list)  # the last events


class World:
    """Everything of one run."""

    def __init__(self, seed: int, mix: str) -> None:
        self.seed, self.mix_name = seed, mix
        self.mix: Mix = MIXES[mix]
        self.loop = VirtualLoop()
        self.ticks = 0
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.digest = hashlib.sha256()
        name = self.name = f"{mix} {seed}"
        self.random = Random(name)
        self.shape = Shape.drawn(Random(f"{name} shape"))
        if self.mix.batches:  # by numbers of its own: the other mixes' runs are what they were
            self.shape.spec |= {"accumulate": Random(f"{name} batches").choice(BATCHES), "clip": CLIPS}
        self.faults = Faults(self.mix)
        self.archive = Archive(self.tick)
        self.ledger = Ledger(self.tick)
        self.disk = Disk(self.loop.time, self.archive, self.mix.object_ttl_seconds)
        self.lost_entries = 0
        self.quiet_from = 1 << 62  # tick
        self.final: list[dict[str, Any]] = []  # what each server shows at the end
        self.logged: list[Any] = []

    def tick(self) -> int:
        """The order of what happens."""
        self.ticks += 1
        return self.ticks

    def trace(self, *what: object) -> None:
        """One event, for the digest and for whoever has to find out what happened."""
        line = f"{self.loop.time():9.4f} {self.ticks} {' '.join(str(word) for word in what)}"
        self.digest.update(line.encode())
        self.lines.append(line)

    def evidence(self) -> Evidence:
        """What there is to look at."""
        return Evidence(self.archive, self.disk, self.ledger, self.final, self.quiet_from, self.lost_entries)

    def run(self) -> None:
        """Run to the end; what cannot be brought to an end raises `Deadlock` or `Endless`."""
        with structlog.testing.capture_logs() as self.logged:
            self.loop.run(self._main())

    async def _main(self) -> None:
        self._populate()
        hands = Hands(self)
        watching = [] if self.mix.delete_seconds else hands.watch()
        await hands.work(FAULT_SECONDS)
        self.trace("faults are over")
        await asyncio.sleep(ECHO_SECONDS)
        if self.mix.rot_seconds:
            return  # a run whose journal is damaged may stand still
        try:
            await self.operator.settle()  # a late copy may have paused the run again
        except GradserveError as error:
            raise Endless(f"nobody answers the operator: {error}") from error
        self.quiet_from = self.tick()
        self.settlement.faults_over.set()
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self.settlement.all_done.wait()
        except TimeoutError:
            raise Endless(f"{', '.join(self.settlement.open)} did not finish") from None
        try:
            await self.operator.close()
        except GradserveError as error:
            raise Endless(f"nobody lets the operator close the run: {error}") from error
        if watching:
            _, deaf = await asyncio.wait(watching, timeout=FINISH_SECONDS)
            for watcher in deaf:
                watcher.cancel()  # before the questions below make a server hear of the end
        rest_seconds = self.mix.object_ttl_seconds + ECHO_SECONDS
        await asyncio.sleep(rest_seconds)  # objects that nobody named vanish
        for index, server in enumerate(self.servers):
            self.final.append(await _shown(index, server))
        await asyncio.sleep(rest_seconds)  # a snapshot that was due, and that these questions started, is written

    def _populate(self) -> None:
        shape = self.shape
        self.servers = [
            Server(index, self.loop, self.disk, self.faults, shape.limits, self.name, self.trace)
            for index in range(shape.servers)
        ]
        self.network = Network(
            self.loop, self.servers, self.faults, self.ledger, Random(f"{self.name} network"), self.trace
        )
        self.settlement = Settlement()
        self.place = Place(self.name, shape.spec, self.ledger, self.settlement, self.client)
        self.sessions = [
            SessionWorker(f"worker{index}", 0 if shape.rank_zero else index, self.loop, self.place)
            for index in range(shape.sessions)
        ]
        for habit in shape.scripts:
            name = f"curl-{habit}"
            asyncio.create_task(self.script(name, habit).work(), name=name)  # noqa: RUF006 - the loop keeps its tasks
        person = self.client("operator", Random(f"{self.name} o"))
        no_copies = not (self.mix.copied or self.mix.request_lost)
        batches = BATCHES if self.mix.batches else ()
        self.operator = Operator(person, self.ledger, self.random, no_copies=no_copies, batches=batches)

    def script(self, name: str, habit: str) -> ScriptWorker:
        """A worker in curl."""
        client = self.client(name, Random(f"{self.name} {name} client"))
        return ScriptWorker(name, habit, self.name, self.ledger, self.settlement, client)  # type: ignore[arg-type]

    def client(self, name: str, random: Random) -> Client:
        """Somebody who sends requests."""
        return Client(name, self.network, self.loop, self.faults, random, homes=self.shape.homes)


async def _shown(index: int, server: Server) -> dict[str, Any]:
    """What a server shows of the run, once nothing changes any more."""
    app = app_of(index)

    async def get(path: str) -> Response:
        task = server._loop.start(server.program, call_app(app, Request("GET", f"/v1/runs/{RUN}{path}")))
        return await task

    await get("")  # a server that has not heard that its run was deleted says so once, though there is a new one
    return {"server": server.name, "run": await get(""), "weights": await get("/weights"),
            "slots": await get("/optimizer-state")}  # fmt: skip


def simulate(seed: int, mix: str) -> Report:
    """One run, what is wrong with it, and what happened in numbers."""
    world = World(seed, mix)
    violations: list[str] = []
    with bounds_of(world):
        try:
            world.run()
        except (Deadlock, Endless) as error:
            violations.append(f"all workers finish: {error}")
        violations = violations_of(world) + violations
    return Report(seed, mix, violations, counters_of(world), world.digest.hexdigest(), list(world.lines))


@contextmanager
def bounds_of(world: World) -> Iterator[None]:
    """The rules with a bound that is met here: 10,000 rows of workers are too many. And all servers are one machine,
    whose arithmetic is tried out once."""
    steady = world.shape.sessions + len(world.shape.scripts)
    kept = steady + GUESTS_KEPT if world.mix.script_guest_seconds else WORKERS_KEPT
    with (
        mock.patch.object(machine, "WORKERS_KEPT", kept),
        mock.patch.object(numerics, "complaints", return_value=_complaints()),
    ):
        yield


_complaints = cache(numerics.complaints)


def _kinds(world: World) -> dict[str, int]:
    """Entries that people made, on every chain that ever was."""
    headers = [node.header for node in world.archive.nodes.values()]
    return {
        "restores": sum("source" in header for header in headers),
        "settings": sum(header.get("kind") == "configure" for header in headers),
        "reports": sum(header.get("kind") == "report" for header in headers),
        "contributions": sum(header.get("outcome") == "contributed" for header in headers),
    }


def counters_of(world: World) -> dict[str, int]:
    """Faults by kind, and what became of the gradients."""
    evidence = world.evidence()
    kept = [node.header["digest"] for node in pushes(evidence.final)]
    acknowledged = {key for key, gradient in world.ledger.gradients.items() if gradient.acknowledged is not None}
    lost = acknowledged - set(kept)
    silent = {digest for digest, _ in untold(evidence)}
    return {
        **dict(sorted(world.faults.counts.items())),
        "requests": len(world.ledger.exchanges),
        "gradients": len(world.ledger.gradients),
        "snapshots": len(world.archive.images),
        "checkpoints": len(world.archive.checkpoints),
        **_kinds(world),
        "branches": len(world.ledger.branched),
        "events_told": sum(len(watched.told) for watched in world.ledger.watched),
        "streams": sum(watched.told[-1].connection for watched in world.ledger.watched if watched.told),
        "acknowledged": len(acknowledged),
        "lost_and_told": len(lost - silent),
        "untold": len(silent),
        "doubled": len(kept) - len(set(kept)),
    }
