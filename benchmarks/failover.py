"""A run's home server is killed under load (kill -9): seconds until the next acknowledged push, through the other one.

    python benchmarks/failover.py [--parameters 10000 25000000] [--rounds 5] [--workers 2] [--aof no|everysec|always]

warm  the other server has the run in memory: it was asked for it right before
cold  the other server was started anew: it restores the newest snapshot and replays the journal behind it

Two servers and a Redis of their own, workers in processes of their own, all on this machine; medians.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event

import numpy as np
from servers import Server, free_port, gradserve_server, machine_line, redis_server

import gradserve as gs
from gradserve.servers import Servers

RUN = "failover"
PUSHES_BEFORE = 3  # of each worker, before anything happens: the load is there
QUIET_SECONDS_MAX = 600.0


def push_on(urls: list[str], name: str, parameters: int, stop: Event, acknowledged: Queue[float]) -> None:
    """One worker process: step until told to stop, and tell when each step was acknowledged."""
    gradient = np.full(parameters, 1e-3, np.float32)
    with gs.connect(urls) as client, client.run(RUN).worker(name) as worker:
        worker.pull()
        while not stop.is_set():
            worker.step(gradient)
            acknowledged.put(time.monotonic())


class Two:
    """Two servers on one store, each on a port that stays its own from life to life."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._ports = [free_port(), free_port()]
        self.urls = [f"http://127.0.0.1:{port}" for port in self._ports]
        self.home = Servers(self.urls, time.monotonic).order(f"/v1/runs/{RUN}")[0]
        self._lives: list[contextlib.ExitStack] = [contextlib.ExitStack(), contextlib.ExitStack()]
        self._running: list[Server | None] = [None, None]

    def start(self) -> None:
        """Start those that do not run."""
        for index, port in enumerate(self._ports):
            if self._running[index] is None:
                server = gradserve_server(self._store, "--durability", "memory", "--port", str(port))
                self._running[index] = self._lives[index].enter_context(server)

    def kill(self, index: int) -> float:
        """kill -9; the moment at which the process was gone."""
        server = self._running[index]
        assert server is not None
        server.process.kill()
        server.process.wait()
        gone = time.monotonic()
        self._running[index] = None
        self._lives[index].close()
        return gone

    def end(self) -> None:
        """End those that run."""
        for life in self._lives:
            life.close()


@contextlib.contextmanager
def working(urls: list[str], workers: int, parameters: int) -> Iterator[Queue[float]]:
    """Workers that push; yields the moments of their acknowledgements, once all of them are at work."""
    processes = multiprocessing.get_context("spawn")
    stop, acknowledged = processes.Event(), processes.Queue()
    crew = [
        processes.Process(target=push_on, args=(urls, f"w{index}", parameters, stop, acknowledged))
        for index in range(workers)
    ]
    for member in crew:
        member.start()
    try:
        for _ in range(PUSHES_BEFORE * workers):
            acknowledged.get(timeout=QUIET_SECONDS_MAX)
        yield acknowledged
    finally:
        stop.set()
        while any(member.is_alive() for member in crew):  # a child ends only when its queue was read
            with contextlib.suppress(Exception):
                acknowledged.get(timeout=0.05)


def fail_over(two: Two, *, cold: bool, workers: int, parameters: int) -> float:
    """Seconds from the death of the home to the next acknowledgement."""
    two.start()
    with working(two.urls, workers, parameters) as acknowledged:
        if cold:
            two.kill(1 - two.home)
            two.start()
            acknowledged.get(timeout=QUIET_SECONDS_MAX)
        else:
            with gs.connect(two.urls[1 - two.home]) as client:
                client.run(RUN).pull()
        gone = two.kill(two.home)
        while True:
            moment = acknowledged.get(timeout=QUIET_SECONDS_MAX)
            if moment > gone:
                return moment - gone


def measure(store: str, parameters: int, rounds: int, workers: int) -> dict[str, list[float]]:
    """Seconds by temperature, in turn."""
    two = Two(store)
    seconds: dict[str, list[float]] = {"warm": [], "cold": []}
    try:
        two.start()
        with gs.connect(two.urls) as client:
            client.run(RUN, init={"w": np.zeros(parameters, np.float32)}, optimizer=gs.Adam(lr=1e-3))
        for _ in range(rounds):
            for temperature in seconds:
                cold = temperature == "cold"
                seconds[temperature].append(fail_over(two, cold=cold, workers=workers, parameters=parameters))
    finally:
        two.end()
    return seconds


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--parameters", type=int, nargs="+", default=[10_000, 25_000_000])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--aof", choices=("no", "everysec", "always"), default="no")
    args = options.parse_args()
    aof = () if args.aof == "no" else ("--appendonly", "yes", "--appendfsync", args.aof)
    load = os.getloadavg()[0]
    print(f"Adam, {args.workers} workers, Redis, AOF {args.aof}, {machine_line()}, load {load:.1f}")
    print(f"{'parameters':>12}  {'other server':12} {'median':>9} {'least':>9} {'most':>9}  rounds")
    for parameters in args.parameters:
        with redis_server(*aof) as store:
            found = measure(store, parameters, args.rounds, args.workers)
        for temperature, seconds in found.items():
            print(
                f"{parameters:>12,}  {temperature:12} {statistics.median(seconds):>7.2f} s "
                f"{min(seconds):>7.2f} s {max(seconds):>7.2f} s  {len(seconds)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
