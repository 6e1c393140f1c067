"""Several servers on one Redis, and what may happen to each of them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.processes import PATIENCE_SECONDS, Server

LOOK_SECONDS = 0.02  # between two looks at a server that does not answer yet


@dataclass
class Fleet:
    """The servers, in the order of their URLs. Any of them serves any run."""

    servers: list[Server]

    @property
    def urls(self) -> str:
        """All of them, as `gradserve.connect` takes them."""
        return ",".join(server.url for server in self.servers)

    def start(self) -> None:
        """Start those that do not run, side by side."""
        for server in [server.launch() for server in self.servers if server.popen is None]:
            server.await_service()

    def end(self) -> None:
        """End those that run."""
        for server in self.servers:
            server.end()

    def heads(self, run: str) -> list[str | None]:
        """The head that each server shows of the run; None for one that has no answer now."""
        return [_head(server, run) for server in self.servers]

    def agree(self, run: str, seconds: float = PATIENCE_SECONDS) -> float:
        """Seconds until every server shows the same head. Only without load does it stay the same."""
        began = time.monotonic()
        while True:
            heads = self.heads(run)
            took = time.monotonic() - began
            if None not in heads and len(set(heads)) == 1:
                return took
            assert took < seconds, f"after {took:.1f} s the servers show {heads}"
            time.sleep(LOOK_SECONDS)

    def answering(self, run: str, seconds: float = PATIENCE_SECONDS) -> float:
        """Seconds until every server that runs has shown the run once: by then each holds the store's history, because
        a description is given on the store's head or not at all."""
        began = time.monotonic()
        for server in self.servers:
            while server.popen is not None and not server.paused and _head(server, run) is None:
                took = time.monotonic() - began
                assert took < seconds, f"{server.url} had no answer for {took:.1f} s:\n{server.log.end()}"
                time.sleep(LOOK_SECONDS)
        return time.monotonic() - began


def _head(server: Server, run: str) -> str | None:
    try:
        answer = server.answer("GET", f"/v1/runs/{run}")
    except OSError:
        return None
    return str(json.loads(answer.body)["head"]) if answer.status == 200 else None


@contextlib.contextmanager
def fleet_serving(store: str, folder: Path, count: int, **how: Any) -> Iterator[Fleet]:
    """That many servers, all of them answering; ended by force, whatever happens."""
    fleet = Fleet([Server(store, made(folder / f"server-{index}"), **how) for index in range(count)])
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.end()


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
