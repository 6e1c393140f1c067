"""Child programs of the demo: each in a process group of its own, and none left behind.

A group of its own means two things: Ctrl-C in the terminal reaches the demo alone, which then ends its children in
order, workers before the server; and whatever a child started goes with it. A demo that is killed ends nothing in
order: its children are on a leash (`leashed`), a pipe that ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

__all__ = ["Program", "Programs"]

END_SECONDS_MAX = 15.0  # a draining server writes a snapshot first
LOG_LINES_SHOWN = 15
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

OF_OTHERS = ("GRADSERVE_", "RANK", "JOB_COMPLETION_INDEX")  # settings of another server, identity in another job
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(slots=True)
class Program:
    """One child: its name, the process, the file with what it wrote to stderr."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe to it."""
        assert self.popen.stdin is not None
        return self.popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe from it."""
        assert self.popen.stdout is not None
        return self.popen.stdout

    def last_words(self) -> str:
        """The end of its log, to show when it failed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LOG_LINES_SHOWN:])

    def signal_group(self, number: int) -> None:
        """Send a signal to the child and to all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, number)


@dataclass(slots=True)
class Programs:
    """All children. Leaving the `with` block ends them, the last started first, whatever the reason for leaving."""

    logs: Path
    started: list[Program] = field(default_factory=list)
    _leash: tuple[int, int] = field(default_factory=os.pipe)  # the end to inherit, and ours: no child has it

    def start(self, name: str, module: str, *words: str) -> Program:
        """`python -m module words…` with pipes for stdin and stdout, and stderr in `<logs>/<name>.log`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("wb") as stderr, _signals_held(forget=False):  # an interrupt in between would lose a child
            popen = subprocess.Popen(
                [sys.executable, "-m", "gradserve_service.demo.leashed", str(self._leash[0]), module, *words],
                pass_fds=[self._leash[0]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=_environment(),
                start_new_session=True,
            )
            program = Program(name, popen, log)
            self.started.append(program)
        return program

    def end(self, programs: Sequence[Program]) -> None:
        """Ask all of them to end, wait, and end by force what is still there then."""
        for program in programs:
            if program.popen.poll() is None:
                program.signal_group(signal.SIGTERM)
        deadline = time.monotonic() + END_SECONDS_MAX
        for program in programs:
            try:
                program.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                program.signal_group(signal.SIGKILL)
                program.popen.wait()
            for pipe in (program.popen.stdin, program.popen.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what stdin still holds has nobody to read it
                        pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _signals_held(forget=True):  # an impatient second Ctrl-C must not leave a child behind
            self.end(self.started[1:])
            self.end(self.started[:1])  # the server is the first: the workers end while it still answers
            for end in self._leash:
                os.close(end)


@contextlib.contextmanager
def _signals_held(*, forget: bool) -> Iterator[None]:
    """Signals that end the demo wait until the block is over; then they are raised again, or forgotten."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
        if came and not forget:
            signal.raise_signal(came[0])


def _environment() -> dict[str, str]:
    """Ours, with one arithmetic thread (the processes are the parallelism) and without the settings of others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHERS)}
    return {**kept, **dict.fromkeys(ONE_THREAD, "1"), "PYTHONUNBUFFERED": "1"}
