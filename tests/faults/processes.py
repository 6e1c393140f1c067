"""Real processes for the tests: each in a group of its own, ended by whoever started it, killed without a warning.

`Server` is `gradserve serve` on a port that stays the same from life to life, as a supervisor would restart it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

TESTS = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 120.0  # for anything that should come: past it the test is stuck, not slow
# Below the ports that the kernel gives to outgoing connections: a worker that calls a dead server's port again and
# again would else, once in a while, be connected with itself, and the server could not come back.
PORTS = range(20_000, 32_000)
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment(**more: str) -> dict[str, str]:
    """Ours without another server's settings and without proxies; `python -m faults.…` is found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GRADSERVE_", "PYTEST_"))}
    places = [str(TESTS), *([kept["PYTHONPATH"]] if "PYTHONPATH" in kept else [])]
    own = {"PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1", "NO_PROXY": "*", "no_proxy": "*"}
    return {**kept, **dict.fromkeys(ONE_THREAD, "1"), **own, **more}


def a_free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for port in random.sample(PORTS, 200):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port between 20000 and 32000")


def start(words: Sequence[str], log: IO[bytes] | int, **pipes: int) -> subprocess.Popen[bytes]:
    """A program in a process group of its own, so that what it starts goes with it. Where the system knows how, it is
    killed when we are: a test run that is killed itself leaves nothing behind."""
    bound = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
    return subprocess.Popen([*bound, *words], stderr=log, env=environment(), start_new_session=True, **pipes)


def kill(popen: subprocess.Popen[bytes]) -> None:
    """kill -9 of the whole group; returns when the process is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


class Log:
    """The standard error of a program: kept in a file, read as it comes, so that a line can be awaited."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = ""
        self._more = threading.Condition()

    def follow(self, stream: IO[bytes]) -> None:
        """Read the stream to its end, in a thread."""
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError), self.path.open("ab") as kept:  # `kill` may close it while we read
            for line in stream:
                kept.write(line)
                kept.flush()
                with self._more:
                    self._text += line.decode("utf-8", "replace")
                    self._more.notify_all()

    def wait_for(self, words: str) -> None:
        """Return once the log holds these words."""
        with self._more:
            came = self._more.wait_for(lambda: words in self._text, PATIENCE_SECONDS)
        assert came, f"{words!r} did not come in {PATIENCE_SECONDS:.0f} s; the log ends:\n{self.end()}"

    def end(self) -> str:
        """Its last lines, for a failed test."""
        return "\n".join(self._text.splitlines()[-25:])


@dataclass
class Server:
    """`gradserve serve` on one store and one port, life after life."""

    store: str
    folder: Path
    durability: str = "journal"
    module: str = "gradserve_service"  # or one that serves with other limits
    settings: Mapping[str, str] = field(default_factory=dict)  # further flags
    port: int = field(default_factory=a_free_port)
    lives: int = 0
    popen: subprocess.Popen[bytes] | None = None
    paused: bool = False
    _announced: int = 0  # the life that has said that it serves
    _lock: threading.RLock = field(default_factory=threading.RLock)  # a pause ends in a thread of its own

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Server:
        """Start it, and return when it says that it serves."""
        return self.launch().await_service()

    def launch(self) -> Server:
        """Start it, without waiting. (From the main thread: a child dies with the thread that started it.)"""
        assert self.popen is None
        self.lives += 1
        flags = {"port": str(self.port), "store": self.store, "durability": self.durability, **self.settings}
        words = [f"--{name}={value}" for name, value in flags.items()]
        self.log = Log(self.folder / "server.log")
        program = [sys.executable, "-m", self.module, "serve", "--json", *words]
        self.popen = start(program, subprocess.PIPE, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self.popen.stderr is not None
        assert self.popen.stdout is not None
        self.log.follow(self.popen.stderr)
        return self

    def await_service(self) -> Server:
        """Return when it says that it serves, in this life."""
        assert self.popen is not None
        assert self.popen.stdout is not None
        if self._announced == self.lives:
            return self
        line = self.popen.stdout.readline()
        assert line, f"the server ended with {self.popen.wait()} before it served:\n{self.log.end()}"
        assert json.loads(line)["url"] == self.url
        self._announced = self.lives
        return self

    def kill(self) -> None:
        """kill -9, in the middle of whatever it does."""
        with self._lock:
            assert self.popen is not None
            code = self.popen.poll()
            assert code is None, f"the server ended by itself with {code}:\n{self.log.end()}"
            kill(self.popen)
            self.popen, self.paused = None, False

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers, and what it was about to do waits."""
        with self._lock:
            assert self.popen is not None
            os.killpg(self.popen.pid, signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """SIGCONT, unless it was killed meanwhile."""
        with self._lock:
            if self.popen is not None and self.paused:
                os.killpg(self.popen.pid, signal.SIGCONT)
            self.paused = False

    def terminate(self) -> int:
        """SIGTERM to the server, as a supervisor sends it; its exit code."""
        self.terminating()
        return self.ended()

    def terminating(self) -> None:
        """SIGTERM, without waiting for the end."""
        assert self.popen is not None
        self.popen.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        assert self.popen is not None
        code = self.popen.wait(PATIENCE_SECONDS)
        kill(self.popen)  # only what it may have left behind, and the pipes
        self.popen = None
        return code

    def answer(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request, never repeated; underscores in header names stand for hyphens."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, given, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE_SECONDS) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def end(self) -> None:
        """End it if it runs."""
        with self._lock:
            if self.popen is not None:
                kill(self.popen)
                self.popen, self.paused = None, False


@dataclass(frozen=True)
class Answer:
    """What a server said: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", {name.lower(): value for name, value in self.headers.items()})

    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def serving(store: str, folder: Path, **how: Any) -> Iterator[Server]:
    """A server that answers; ended by force, whatever happens."""
    server = Server(store, folder, **how)
    try:
        yield server.start()
    finally:
        server.end()
