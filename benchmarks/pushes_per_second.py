"""Pushes a second of 1 and of 8 worker processes on a small run, with the weights in every answer.

    python benchmarks/pushes_per_second.py [--parameters 10000] [--seconds 5] [--store redis|sqlite] [--aof everysec]

Wall clock, and pushes per second of the server's CPU beside it: workers and server share the machine here.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np
from servers import folder_store, gradserve_server, machine_line, redis_server

import gradserve as gs


def push_for(url: str, name: str, parameters: int, seconds: float, start: Barrier, counts: Queue[int]) -> None:
    """One worker process: step until the time is over."""
    with gs.connect(url) as client:
        run = client.run("bench", init={"w": np.zeros(parameters, np.float32)}, optimizer=gs.Adam(lr=1e-3))
        with run.worker(name) as worker:
            worker.pull()
            gradient = np.full(parameters, 1e-3, np.float32)
            worker.step(gradient)
            start.wait()
            end, count = time.perf_counter() + seconds, 0
            while time.perf_counter() < end:
                worker.step(gradient)
                count += 1
            counts.put(count)


def main() -> None:
    """Measure and print a line for each number of workers."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--parameters", type=int, default=10_000)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--store", choices=("redis", "sqlite"), default="redis")
    options.add_argument("--aof", choices=("no", "everysec", "always"), default="no")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    args = options.parse_args()
    processes = multiprocessing.get_context("spawn")
    aof = () if args.aof == "no" else ("--appendonly", "yes", "--appendfsync", args.aof)
    print(f"{args.parameters:,} parameters, Adam, {args.store}, AOF {args.aof}, {machine_line()}")
    for count in args.workers:
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(redis_server(*aof) if args.store == "redis" else folder_store())
            server = stack.enter_context(gradserve_server(store, "--durability", "memory"))
            start, counts = processes.Barrier(count + 1), processes.Queue()
            workers = [
                processes.Process(
                    target=push_for, args=(server.url, f"w{i}", args.parameters, args.seconds, start, counts)
                )
                for i in range(count)
            ]
            for worker in workers:
                worker.start()
            start.wait()
            began, cpu = time.perf_counter(), server.cpu_seconds()
            pushes = sum(counts.get() for _ in workers)
            wall, cpu = time.perf_counter() - began, server.cpu_seconds() - cpu
            for worker in workers:
                worker.join()
        print(f"{count} workers: {pushes / wall:,.0f} pushes/s; {pushes / cpu:,.0f} per second of server CPU")


if __name__ == "__main__":
    main()
