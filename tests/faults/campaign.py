"""A campaign against a fleet: servers and their Redis are killed and paused in turn while workers push; then the audit.

What comes next, whom it hits and how long a pause lasts is drawn from the seed. When it comes depends on the pushes
that were acknowledged, and on the clock only where a pace is asked for.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faults.audit import Findings
from faults.crew import Crew, working
from faults.fleet import Fleet, fleet_serving
from faults.processes import Server
from faults.siege import Siege
from real_redis import RealRedis

PAUSE_SECONDS = (0.2, 4.0)
Progress = Callable[[Counter[str], int, float], None]


@dataclass
class Campaign:
    """What is done, how often, and what was counted."""

    siege: Siege
    redis: RealRedis
    kills: int  # of servers and of Redis, together
    servers: int = 3
    pushes_between_max: int = 40
    redis_share: float = 0.25  # of the kills
    pauses: float = 0.3  # of a server, for each kill
    every_seconds: tuple[float, float] | None = None  # between two kills
    rewinds: bool = False  # a killed Redis may lose what it had acknowledged
    prepare_loss: Callable[[], None] = lambda: None  # called between the death of Redis and its next start
    counts: Counter[str] = field(default_factory=Counter)
    converged_seconds: list[float] = field(default_factory=list)  # after each new life of Redis, until all answer

    def run(self, progress: Progress = lambda *_: None, **how: Any) -> Findings:
        """The whole of it. `how` is the servers'. Raises AssertionError where something stands still."""
        siege, chance = self.siege, random.Random(self.siege.seed)
        crew_size = {"workers": siege.workers, "parameters": siege.parameters, "seed": siege.seed}
        crew_size["rewinds"] = self.rewinds
        with fleet_serving(siege.store, siege.folder, self.servers, **how) as fleet:
            siege.create_run(fleet.urls)
            with working(fleet.urls, siege.run, siege.folder, **crew_size) as crew:
                crew.everybody(1)
                self._attack(fleet, crew, chance, progress)
                crew.everybody(1)
                crew.finish()
                fleet.agree(siege.run)
            fleet.end()
            fleet.start()
            fleet.agree(siege.run)
            for server in fleet.servers:  # the audit looks at the last one's; that all are equal is looked at here
                self._same_as_before(server)
        return siege.audit(rewinds=self.rewinds, trimmed=False)

    def _attack(self, fleet: Fleet, crew: Crew, chance: random.Random, progress: Progress) -> None:
        began = time.monotonic()
        for _ in range(self.kills):
            due = time.monotonic() + chance.uniform(*self.every_seconds) if self.every_seconds else 0.0
            crew.acknowledged(chance.randint(0, self.pushes_between_max))
            time.sleep(max(0.0, due - time.monotonic()))  # only where a pace is asked for
            if chance.random() < self.pauses:
                self._pause(chance.choice(fleet.servers), chance.uniform(*PAUSE_SECONDS))
            if chance.random() < self.redis_share:
                self._kill_redis(fleet)
            else:
                self._kill_server(chance.choice(fleet.servers))
            progress(self.counts, crew.count, time.monotonic() - began)
        for server in fleet.servers:
            server.resume()
            server.await_service()

    def _pause(self, server: Server, seconds: float) -> None:
        """Stop a server in its tracks; it wakes up by itself, maybe into another world."""
        if server.paused or server.popen is None:
            return
        server.pause()
        self.counts["server paused"] += 1
        threading.Timer(seconds, server.resume).start()

    def _kill_server(self, server: Server) -> None:
        """Its next life begins while the others are attacked, and may itself be cut short before it serves."""
        server.kill()
        self.counts["server killed"] += 1
        server.launch()

    def _kill_redis(self, fleet: Fleet) -> None:
        self.redis.kill()
        self.counts["redis killed"] += 1
        self.prepare_loss()
        self.redis.start()
        for server in fleet.servers:
            if not server.paused:
                server.await_service()
        self.converged_seconds.append(fleet.answering(self.siege.run))

    def _same_as_before(self, server: Server) -> None:
        folder = self.siege.folder
        kept = {name: (folder / name).read_bytes() for name in _SERVED if (folder / name).exists()}
        self.siege.save_served(server)
        for name, before in kept.items():
            assert (folder / name).read_bytes() == before, f"{server.url} serves other {name} than the server before it"


_SERVED = ("weights.safetensors", "optimizer-state.safetensors")
