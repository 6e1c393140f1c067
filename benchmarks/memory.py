"""Memory of a server with one large run, as a multiple of its state (weights + slots).

    python benchmarks/memory.py [--parameters 25000000] [--store redis|sqlite]

The idle process is subtracted. At rest: after pushes, nothing under way. In a snapshot: the peak while images are
written under pushes.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time

import numpy as np
from servers import Server, folder_store, gradserve_server, machine_line, redis_server

import gradserve as gs

SAMPLE_SECONDS = 0.005


class Peak:
    """The largest resident size seen while the block ran."""

    def __init__(self, server: Server) -> None:
        self._server, self._over, self.bytes = server, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.is_set():
            self.bytes = max(self.bytes, self._server.resident_bytes())
            time.sleep(SAMPLE_SECONDS)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--parameters", type=int, default=25_000_000)
    options.add_argument("--store", choices=("redis", "sqlite"), default="redis")
    args = options.parse_args()
    n = args.parameters
    state = 3 * 4 * n
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(redis_server() if args.store == "redis" else folder_store())
        server = stack.enter_context(gradserve_server(store, "--durability", "memory"))
        client = stack.enter_context(gs.connect(server.url))
        idle = server.resident_bytes()
        run = client.run("bench", init={"w": np.zeros(n, np.float32)}, optimizer=gs.Adam(lr=1e-3))
        worker = stack.enter_context(run.worker("w0"))
        worker.pull()
        gradient = np.full(n, 1e-3, np.float32)
        for _ in range(4):
            worker.step(gradient)
        time.sleep(1.0)
        rest = server.resident_bytes()
        with Peak(server) as peak:
            for _ in range(16):  # the journal passes four times the state: a snapshot is due among them
                worker.step(gradient)
            time.sleep(3.0)
        after = server.resident_bytes()
    print(f"{n:,} parameters, Adam, {args.store}, {machine_line()}")
    print(f"state {state / 1e6:.0f} MB, idle process {idle / 1e6:.0f} MB")
    for name, size in (("at rest", rest), ("peak with a snapshot under pushes", peak.bytes), ("afterwards", after)):
        print(f"{name}: {(size - idle) / 1e6:.0f} MB = {(size - idle) / state:.2f}× state")


if __name__ == "__main__":
    main()
