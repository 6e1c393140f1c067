"""More workers than a server can serve: what becomes of the goodput, of its memory, and of each worker.

    python benchmarks/overload.py [--parameters 10000] [--seconds 5] [--crowds 1 4 16 64 128] [--times 10]

Crowds of asyncio workers (the SDK's own client, one connection a worker) push without a pause and take the new weights.
First the peak is looked for, then `times` as many workers come as it took to reach 95 % of it.

goodput    acknowledged pushes a second, and its ratio to the peak
resident   the server's private memory
cores      used by the server, and by the crowd: its workers are tasks of one process, so that near 1 it is the crowd
           that can do no more
least/most pushes of the worker with the fewest and the most
Jain       (Σx)² / (n Σx²): 1 where all got the same (Jain, Chiu & Hawe 1984)
refused    pushes by code, as the server counted them
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import re
import time
import urllib.request
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import TypeAlias

import numpy as np
from servers import Server, gradserve_server, machine_line, redis_server

import gradserve as gs

PATIENCE_SECONDS = 120.0  # until a crowd is connected
SATURATED = 0.95  # of the peak
Answers: TypeAlias = "Queue[tuple[list[int], float]]"
REFUSED = re.compile(r'gradserve_pushes_total\{code="([^"]+)",outcome="refused"\} (\S+)')


@dataclass(frozen=True)
class Figures:
    """What one crowd got."""

    workers: int
    counts: list[int]  # acknowledged pushes of each
    seconds: float
    server_cores: float
    crowd_cores: float
    resident: int
    refused: dict[str, int]

    @property
    def goodput(self) -> float:
        return sum(self.counts) / self.seconds

    @property
    def jain(self) -> float:
        squares = len(self.counts) * sum(count * count for count in self.counts)
        return sum(self.counts) ** 2 / squares if squares else 0.0

    def line(self, peak: float) -> str:
        """The row of the table."""
        refused = ", ".join(f"{code} {count:,}" for code, count in self.refused.items()) or "none"
        return (
            f"{self.workers:>7} {self.goodput:>9,.0f}/s {self.goodput / peak:>6.0%} {self.server_cores:>7.2f} "
            f"{self.crowd_cores:>6.2f} {self.resident / 2**20:>6.0f} MiB "
            f"{min(self.counts):>6} /{max(self.counts):>6} {self.jain:>6.3f}  {refused}"
        )


async def crowd(url: str, workers: int, parameters: int, seconds: float, answers: Answers) -> None:
    """Says when all are connected; then acknowledged pushes of each in the time, and the processor's seconds of it."""
    gradient = np.full(parameters, 1e-3, np.float32)
    async with gs.connect_async(url) as client:
        run = await client.run("crowd", init={"w": np.zeros(parameters, np.float32)}, optimizer=gs.Adam(lr=1e-3))
        members = await asyncio.gather(*(run.worker(f"w{index}").start() for index in range(workers)))
        await asyncio.gather(*(member.step(gradient) for member in members))  # connected, and known to the server
        counts = [0] * workers

        async def push_on(index: int) -> None:
            while True:
                await members[index].step(gradient)
                counts[index] += 1

        answers.put(([], 0.0))
        began = time.process_time()
        tasks = [asyncio.create_task(push_on(index)) for index in range(workers)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        answers.put((list(counts), time.process_time() - began))
        await asyncio.gather(*tasks, return_exceptions=True)


def crowd_in_process(url: str, workers: int, parameters: int, seconds: float, answers: Answers) -> None:
    """The crowd's process: the server must not share an interpreter with it."""
    asyncio.run(crowd(url, workers, parameters, seconds, answers))


def refusals(server: Server) -> dict[str, int]:
    """Refused pushes by code since the server started."""
    with urllib.request.urlopen(f"{server.url}/metrics") as page:
        return {code: int(float(count)) for code, count in REFUSED.findall(page.read().decode())}


def measure(server: Server, workers: int, parameters: int, seconds: float) -> Figures:
    """One crowd, and the most memory that the server had meanwhile."""
    processes = multiprocessing.get_context("spawn")
    answers: Answers = processes.Queue()
    before, most = refusals(server), 0
    child = processes.Process(target=crowd_in_process, args=(server.url, workers, parameters, seconds, answers))
    child.start()
    answers.get(timeout=PATIENCE_SECONDS)
    began = server.cpu_seconds()
    while answers.empty() and child.is_alive():
        most = max(most, server.resident_bytes())
        time.sleep(0.1)
    counts, crowd_cpu = answers.get(timeout=1.0)
    server_cpu = server.cpu_seconds() - began
    child.join()
    refused = {code: count - before.get(code, 0) for code, count in refusals(server).items()}
    told = {code: count for code, count in refused.items() if count}
    return Figures(workers, counts, seconds, server_cpu / seconds, crowd_cpu / seconds, most, told)


def main() -> None:
    """Find the peak, go beyond it, print the table."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--parameters", type=int, default=10_000)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--crowds", type=int, nargs="+", default=[1, 4, 16, 64, 128])
    options.add_argument("--times", type=int, default=10)
    args = options.parse_args()
    load = os.getloadavg()[0]
    print(f"{args.parameters:,} parameters, Adam, Redis without AOF, {machine_line()}, load {load:.1f}")
    print(
        f"{'workers':>7} {'goodput':>11} {'ratio':>6} {'server':>7} {'crowd':>6} {'resident':>10} {'least/most':>14} "
        f"{'Jain':>6}  refused"
    )
    with redis_server() as store, gradserve_server(store, "--durability", "memory") as server:
        found = [measure(server, workers, args.parameters, args.seconds) for workers in args.crowds]
        peak = max(figures.goodput for figures in found)
        saturating = min(figures.workers for figures in found if figures.goodput >= SATURATED * peak)
        for figures in found:
            print(figures.line(peak))
        print(f"{saturating} workers saturate the server; {args.times} times as many:", flush=True)
        print(measure(server, args.times * saturating, args.parameters, args.seconds).line(peak))


if __name__ == "__main__":
    main()
