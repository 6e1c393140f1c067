"""Workers as their parent sees them: real processes, counted by their acknowledgements, stopped in order."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.processes import PATIENCE_SECONDS, kill, start


@dataclass
class Member:
    """One worker process, and the files with its acknowledgements and its complaints."""

    index: int
    popen: subprocess.Popen[bytes]
    acknowledgements: Path
    errors: Path
    count: int = 0

    def failure(self) -> str:
        """Its last words."""
        lines = self.errors.read_text(encoding="utf-8", errors="replace").splitlines()
        return f"worker {self.index} ended with {self.popen.wait()}; its last words:\n" + "\n".join(lines[-15:])


class Crew:
    """All workers of one run. `count` is the number of acknowledged pushes that the parent has heard of."""

    def __init__(
        self, url: str, run: str, folder: Path, *, workers: int, parameters: int, seed: int, rewinds: bool = False
    ) -> None:
        more = ["rewinds"] if rewinds else []
        self.members = [self._member(url, run, folder, index, parameters, seed, more) for index in range(workers)]
        self._selector = selectors.DefaultSelector()
        for member in self.members:
            assert member.popen.stdout is not None
            self._selector.register(member.popen.stdout, selectors.EVENT_READ, member)

    @staticmethod
    def _member(url: str, run: str, folder: Path, index: int, parameters: int, seed: int, more: list[str]) -> Member:
        kept, errors = folder / f"worker-{index}.jsonl", folder / f"worker-{index}.log"
        words = [url, run, str(index), str(parameters), str(seed), str(kept), *more]
        with errors.open("wb") as stderr:
            popen = start(
                [sys.executable, "-m", "faults.worker", *words],
                stderr.fileno(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return Member(index, popen, kept, errors)

    @property
    def count(self) -> int:
        return sum(member.count for member in self.members)

    def acknowledged(self, more: int) -> None:
        """Return as soon as `more` further pushes are acknowledged."""
        wanted = self.count + more
        while self.count < wanted:
            self._listen()

    def everybody(self, more: int) -> None:
        """Return as soon as each worker has `more` further pushes acknowledged."""
        for member in self.members:
            wanted = member.count + more
            while member.count < wanted:
                self._listen()

    def finish(self) -> None:
        """Tell all to stop, and wait until each has finished its push, left, and ended well."""
        for member in self.members:
            assert member.popen.stdin is not None
            member.popen.stdin.close()
        while self._selector.get_map():
            self._listen(ending=True)
        for member in self.members:
            assert member.popen.wait(PATIENCE_SECONDS) == 0, member.failure()

    def _listen(self, *, ending: bool = False) -> None:
        """Take what came through the pipes, waiting for something."""
        ready = self._selector.select(PATIENCE_SECONDS)
        assert ready, f"no worker was heard of for {PATIENCE_SECONDS:.0f} s"
        for key, _ in ready:
            came = os.read(key.fd, 1 << 12)
            key.data.count += len(came)
            if not came:
                assert ending, key.data.failure()
                self._selector.unregister(key.fileobj)

    def outcomes(self) -> list[dict[str, Any]]:
        """All acknowledgements, worker by worker, each with its worker's index."""
        return [
            {"worker": member.index, **json.loads(line)}
            for member in self.members
            for line in member.acknowledgements.read_text(encoding="utf-8").splitlines()
        ]

    def end(self) -> None:
        """End those that still run, by force."""
        self._selector.close()
        for member in self.members:
            kill(member.popen)


@contextlib.contextmanager
def working(url: str, run: str, folder: Path, **how: Any) -> Iterator[Crew]:
    """A crew at work; ended by force, whatever happens."""
    crew = Crew(url, run, folder, **how)
    try:
        yield crew
    finally:
        crew.end()
