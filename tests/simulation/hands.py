"""The hands that do the faults: each sleeps, does its one thing, and sleeps again, until the time of faults is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import TYPE_CHECKING, Any

from .readers import Reader, Watcher
from .workers import Life, SessionWorker

if TYPE_CHECKING:
    from .world import World

LOOK_SECONDS = 0.6  # mean between two looks of a reader
STUCK_SECONDS = 20.0  # a hand may wait for a server that another one has left dead


class Hands:
    """All hands of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._mix, self._faults, self._random, self._trace = world.mix, world.faults, world.random, world.trace
        self._guests = self._made = 0

    async def work(self, seconds: float) -> None:
        """Let all hands work for so long. One that fails is a complaint: its faults would be missing."""
        hands = [asyncio.create_task(hand, name="fault") for hand in self._all()]
        await asyncio.sleep(seconds)
        self._faults.over = True
        for hand in hands:
            hand.cancel()
        await asyncio.wait(hands, timeout=STUCK_SECONDS)
        self._mend()
        for ended in await asyncio.gather(*hands, return_exceptions=True):
            if isinstance(ended, Exception):
                self._world.loop.complaints.append(f"a hand failed: {ended!r}")

    def _mend(self) -> None:
        """What is down comes up, what is paused goes on, what is cut off is connected again."""
        self._faults.unreachable.clear()
        for server in self._world.servers:
            self._world.loop.resume(server.program)
            if server.going and server.alive:
                server.kill()
            if not server.alive:
                server.start()
        for worker in self._world.sessions:
            worker.wake()

    def _all(self) -> list[Coroutine[Any, Any, None]]:
        mix = self._mix
        readers = [self._reader(number) for number in range(mix.readers)]
        return [
            self._now_and_then(mix.kill_seconds, self._restart_a_server),
            self._now_and_then(mix.pause_seconds, self._pause_a_server),
            self._now_and_then(mix.tail_seconds, self._lose_a_tail),
            self._now_and_then(mix.damage_seconds, self._damage_a_snapshot),
            self._now_and_then(mix.rot_seconds, self._rot_a_payload),
            self._now_and_then(mix.outage_seconds, self._break_a_connection),
            self._now_and_then(mix.worker_kill_seconds, self._restart_a_worker),
            *(self._now_and_then(mix.operator_seconds, self._world.operator.change) for _ in range(mix.people)),
            self._now_and_then(mix.delete_seconds, self._world.operator.delete),
            self._now_and_then(mix.guest_seconds, self._visit),
            self._now_and_then(mix.script_guest_seconds, self._visit_with_curl),
            *(self._now_and_then(LOOK_SECONDS, reader.look) for reader in readers),
        ]

    def watch(self) -> list[asyncio.Task[None]]:
        """Let the watchers begin; they end by themselves."""
        world = self._world
        watchers = [
            Watcher(name, world.client(name, Random(f"{world.name} {name}")), world.ledger)
            for name in (f"watcher{number}" for number in range(world.shape.watchers))
        ]
        return [asyncio.create_task(watcher.watch(), name=watcher.watched.name) for watcher in watchers]

    def _reader(self, number: int) -> Reader:
        seed = f"{self._world.name} reader {number}"
        return Reader(self._world.client(f"reader{number}", Random(seed)), Random(f"{seed} looks"))

    async def _now_and_then(self, mean_seconds: float, do: Callable[[], Awaitable[None]]) -> None:
        self._made += 1
        random = Random(f"{self._world.name} {do.__name__} {self._made}")
        while mean_seconds:
            await asyncio.sleep(random.expovariate(1 / mean_seconds))
            await do()

    async def _restart_a_server(self) -> None:
        server = self._random.choice(self._world.servers)
        if not server.alive:
            return
        drained = self._random.random() < self._mix.drained
        self._faults.count("drain" if drained else "kill")
        self._trace("drains" if drained else "kills", server.name)
        if drained:
            await server.drain()
        else:
            server.kill()
        await asyncio.sleep(self._random.uniform(0.0, 1.0))
        server.start()

    async def _pause_a_server(self) -> None:
        server = self._random.choice(self._world.servers)
        program = server.program
        self._faults.count("pause")
        self._trace("pauses", server.name)
        self._world.loop.pause(program)
        await asyncio.sleep(self._random.uniform(0.2, 5.0))
        self._trace("resumes", server.name)
        self._world.loop.resume(program)

    async def _lose_a_tail(self) -> None:
        self._lose(self._random.randint(1, self._mix.tail_writes))

    def _lose(self, writes: int) -> None:
        lost = self._world.disk.lose_tail(writes)
        if lost:
            self._faults.count("lost_tail")
            self._world.lost_entries += lost
            self._trace("the store lost", lost, "entries, head", self._world.archive.head.position)

    async def _damage_a_snapshot(self) -> None:
        whole, byte = self._random.random() < 0.3, self._random.getrandbits(16)
        if self._world.disk.damage_newest_snapshot(whole=whole, byte=byte):
            self._faults.count("damaged_image")
            self._trace("an image is damaged")

    async def _rot_a_payload(self) -> None:
        if self._world.disk.rot(self._random.getrandbits(16)):
            self._faults.count("rotten_payload")
            self._trace("a payload is damaged")

    async def _break_a_connection(self) -> None:
        names = [server.name for server in self._world.servers]
        broken = names if self._random.random() < 0.3 else [self._random.choice(names)]
        self._faults.count("outage")
        for name in broken:
            self._faults.unreachable[name] = self._faults.unreachable.get(name, 0) + 1
        await asyncio.sleep(self._random.uniform(0.2, 3.0))
        for name in broken:
            self._faults.unreachable[name] -= 1

    async def _restart_a_worker(self) -> None:
        worker = self._random.choice(self._world.sessions[: self._world.shape.restarting])
        zombie = self._random.random() < self._mix.zombies
        self._faults.count("zombie" if zombie else "worker_kill")
        self._trace("stops" if zombie else "kills", worker.program.name)
        together = self._random.random() < self._mix.tails_with_zombies
        worker.stop(zombie=zombie)
        if zombie and together:
            self._lose(self._random.randint(1, 4))  # what the old process was told last; its successor begins behind
        worker.start()
        if zombie:
            asyncio.create_task(self._wake_later(worker), name="wakes")  # noqa: RUF006 - the loop keeps its tasks

    async def _visit(self) -> None:
        self._guests += 1
        name = f"guest{self._guests}"
        self._world.settlement.enter(name)
        # Not awaited: hands are let go when the faults are over, guests are not.
        asyncio.create_task(Life(self._world.place, name, name, rank=9).visit(), name=name)  # noqa: RUF006

    async def _visit_with_curl(self) -> None:
        self._guests += 1
        await asyncio.shield(self._world.script(f"guest{self._guests}", "visiting").visit())

    async def _wake_later(self, worker: SessionWorker) -> None:
        await asyncio.sleep(self._random.choice((0.5, 2.0, 6.0)) * self._random.random())
        self._trace("wakes a process of", worker.name)
        worker.wake()
