"""A siege: workers push, the server is killed and restarted again and again, and in the end everything is audited.

Kills come after a random number of acknowledgements that the parent has heard of, never after a time: some hit a
server that is still restoring, most hit one with eight pushes on their way.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradserve as gs
from faults.audit import Findings, Plan
from faults.crew import Crew, working
from faults.gradients import LR, first_weights, layout_of
from faults.processes import PATIENCE_SECONDS, Server, environment, serving

RUN = "siege"
AUDIT_SECONDS_MAX = 10 * PATIENCE_SECONDS


@dataclass(frozen=True)
class Siege:
    """What is besieged, how hard, and from which seed."""

    store: str
    folder: Path
    workers: int = 8
    parameters: int = 1_003
    seed: int = 0
    run: str = RUN

    @contextmanager
    def under_load(self, **how: Any) -> Iterator[tuple[Server, Crew]]:
        """A server with a run, and workers that begin to push."""
        with serving(self.store, self.folder, **how) as server:
            self.create_run(server.url)
            crew_size = {"workers": self.workers, "parameters": self.parameters, "seed": self.seed}
            with working(server.url, self.run, self.folder, **crew_size) as crew:
                yield server, crew

    def create_run(self, url: str) -> None:
        """The run and its first weights."""
        layout = layout_of(self.parameters)
        with gs.connect(url) as client:
            weights = layout.views(first_weights(layout, self.seed))
            client.run(self.run, init=weights, optimizer=gs.Adam(lr=LR))

    def save_served(self, server: Server) -> None:
        """Keep what the server serves: weights and slots, as safetensors, for the auditor."""
        for name in ("weights", "optimizer-state"):
            answer = server.answer("GET", f"/v1/runs/{self.run}/{name}", Accept="application/vnd.safetensors")
            assert answer.status == 200, answer.body
            (self.folder / f"{name}.safetensors").write_bytes(answer.body)

    def audit(self, *, trimmed: bool = False, rewinds: bool = False) -> Findings:
        """Let a fresh process audit the store; the server does not run (SQLite has one owner)."""
        folder = str(self.folder)
        plan = Plan(self.store, self.run, self.seed, self.workers, self.parameters, folder, folder, trimmed, rewinds)
        words = [sys.executable, "-m", "faults.audit", plan.to_json()]
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment(), check=False, timeout=AUDIT_SECONDS_MAX
        )
        assert done.returncode == 0, done.stderr
        return Findings(**json.loads(done.stdout))

    def last_life(self, server: Server, crew: Crew) -> None:
        """Let the workers finish; then kill the server once more, so that what it serves comes out of the store, keep
        that, and kill it for good."""
        crew.finish()
        server.kill()
        server.start()
        self.save_served(server)
        server.kill()


def besiege(
    siege: Siege,
    kills: int,
    *,
    pushes_between_max: int = 40,
    trimmed: bool = False,
    progress: Callable[[int, int, float], None] = lambda *_: None,
    **how: Any,
) -> Findings:
    """Kill the server `kills` times under load and restart it each time; then audit. `how` is the server's.

    `progress` is told the kills so far, the acknowledged pushes, and the seconds.
    """
    chance = random.Random(siege.seed)
    began = time.monotonic()
    with siege.under_load(**how) as (server, crew):
        for kill in range(1, kills + 1):
            crew.acknowledged(chance.randint(0, pushes_between_max))
            server.kill()
            server.start()
            progress(kill, crew.count, time.monotonic() - began)
        crew.everybody(1)
        siege.last_life(server, crew)
    return siege.audit(trimmed=trimmed)
