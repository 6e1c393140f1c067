"""The worker processes as the parent sees them: start, ready, go, what they report, done.

Workers speak lines of JSON on stdout: {"ready": true} when they have pulled their first weights, {"rows": […]} with
`trace.COLUMNS` while they train, {"done": {…}} with their counters. The parent says one line to all when everybody is
ready: the second, on the clock that all processes of a machine share, from which they count.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .plan import Plan
from .programs import Program, Programs
from .trace import Trace

__all__ = ["Crew", "DemoFailed", "Member", "ended"]

READY_SECONDS_MAX = 120.0  # imports on a cold and busy machine take a while
SILENCE_SECONDS_MAX = 120.0  # a gradient takes a millisecond: this is a standstill
LOOK_SECONDS = 0.1


class DemoFailed(Exception):
    """The demo cannot go on; the text is the reason, with the last words of the program that failed."""


@dataclass(slots=True)
class Member:
    """One worker: its process, how far it is, what it counted."""

    program: Program
    updates: int  # that it will push
    rest: bytes = b""  # the beginning of a line that has not ended
    ready: bool = False
    trace: Trace = field(default_factory=Trace)
    done: dict[str, Any] | None = None

    def read(self, chunk: bytes) -> None:
        """Take what came through the pipe."""
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self.ready = self.ready or "ready" in message
            self.trace.extend(message.get("rows", ()))
            self.done = message.get("done", self.done)


class Crew:
    """All workers of one demo."""

    def __init__(self, programs: Programs, server: Program, url: str, plan: Plan) -> None:
        self.server = server
        began = [
            (programs.start(f"worker-{rank}", "gradserve_service.demo.worker", url, str(rank), plan.to_json()), rank)
            for rank in range(plan.workers)
        ]
        self.members = [Member(program, plan.updates(rank)) for program, rank in began]

    def get_ready(self) -> None:
        """Wait until every worker has pulled its first weights. Raises `DemoFailed`."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        self._listen(lambda: all(member.ready for member in self.members), lambda: deadline, lambda: None)

    def train(self, on_progress: Callable[[list[Member]], None]) -> None:
        """Say go, and read until every worker is done. Raises `DemoFailed`."""
        went = time.monotonic()
        for member in self.members:
            with contextlib.suppress(BrokenPipeError):  # it just ended: reading from it tells how
                member.program.stdin.write(f"{went!r}\n".encode())
                member.program.stdin.flush()
        heard = {"rows": -1, "at": went}

        def deadline() -> float:
            rows = sum(len(member.trace) for member in self.members)
            if rows != heard["rows"]:
                heard.update(rows=rows, at=time.monotonic())
            return heard["at"] + SILENCE_SECONDS_MAX

        self._listen(
            lambda: all(member.done is not None for member in self.members), deadline, lambda: on_progress(self.members)
        )
        on_progress(self.members)

    def _listen(self, finished: Callable[[], bool], deadline: Callable[[], float], look: Callable[[], None]) -> None:
        """Read from all workers until `finished`, calling `look` a few times a second."""
        with selectors.DefaultSelector() as selector:
            for member in self.members:
                selector.register(member.program.stdout, selectors.EVENT_READ, member)
            looked = time.monotonic()
            while not finished():
                for key, _ in selector.select(LOOK_SECONDS):
                    chunk = os.read(key.fd, 1 << 16)
                    key.data.read(chunk)
                    if not chunk:
                        selector.unregister(key.fileobj)
                        if key.data.done is None:
                            raise ended(key.data.program)
                if self.server.popen.poll() is not None:
                    raise ended(self.server)
                now = time.monotonic()
                if now >= deadline():
                    slow = [m.program.name for m in self.members if m.done is None]
                    raise DemoFailed(f"nothing came from {', '.join(slow)} for {SILENCE_SECONDS_MAX:.0f} s")
                if now - looked >= LOOK_SECONDS:
                    look()
                    looked = now


def ended(program: Program) -> DemoFailed:
    """The failure of a program that has ended, or is about to, before its time."""
    code = program.popen.wait()
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return DemoFailed(f"{program.name} {how}. Its last words ({program.log}):\n{program.last_words() or '    (none)'}")
