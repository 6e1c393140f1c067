#!/usr/bin/env python3
"""Run the seeded simulation: real servers and SDK flows against a store, a network and people that misbehave.

    .venv/bin/python scripts/simulate.py --seeds 2000                       all mixes in turn
    .venv/bin/python scripts/simulate.py --mix everything --start 42 --seeds 1 --trace
    .venv/bin/python scripts/simulate.py --protections                      switch each protection off

Ends with 1 if an invariant was violated, or if a protection can be switched off unnoticed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from simulation.faults import MIXES
from simulation.protections import PROTECTIONS, Protection
from simulation.world import Report, simulate

PROGRESS_EVERY = 100  # seeds


def main(arguments: list[str]) -> int:
    """Answers the exit code."""
    options = _options(arguments)
    with get_context("fork").Pool(options.processes) as pool:
        if options.protections:
            return _show_protections(pool.imap(_switch_off, range(len(PROTECTIONS))))
        mixes = [options.mix] if options.mix else list(MIXES)
        seeds = range(options.start, options.start + options.seeds)
        runs = [(mixes[index % len(mixes)], seed) for index, seed in enumerate(seeds)]
        return _show_runs(pool.imap_unordered(_run, runs), len(runs), trace=options.trace)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--mix", choices=list(MIXES), help="one mix of faults instead of all in turn")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--trace", action="store_true", help="print the last events of each run that violates something"
    )
    parser.add_argument("--protections", action="store_true", help="the table of protections instead")
    return parser.parse_args(arguments)


def _run(task: tuple[str, int]) -> Report:
    return simulate(task[1], task[0])


def _show_runs(reports: Iterator[Report], total: int, *, trace: bool) -> int:
    """Progress, every violation with the line that repeats it, and the sums."""
    began, counters, violating = time.perf_counter(), Counter[str](), 0
    for done, report in enumerate(reports, 1):
        counters.update(report.counters)
        if report.violations:
            violating += 1
            print("\n".join(report.lines) if trace else "", *report.violations, sep="\n  ")
            print(f"  repeat: python scripts/simulate.py --mix {report.mix} --start {report.seed} --seeds 1 --trace")
        if done % PROGRESS_EVERY == 0 or done == total:
            seconds = time.perf_counter() - began
            print(f"{done} of {total} runs, {violating} violate an invariant, {seconds:.0f} s", flush=True)
    width = max(map(len, counters), default=0)
    print(*(f"{name:{width}} {count:>10,}" for name, count in counters.items()), sep="\n")
    return 1 if violating else 0


def _switch_off(index: int) -> tuple[Protection, Report | None]:
    protection = PROTECTIONS[index]
    return protection, protection.first_failure(start=protection.seed)


def _show_protections(results: Iterator[tuple[Protection, Report | None]]) -> int:
    """One row a protection: a seed of its mix that fails without it (the one that is known, or the next), and by which
    invariant."""
    unnoticed = 0
    for protection, report in results:
        unnoticed += report is None
        what = "nobody misses it" if report is None else f"{report.seed:4}  {report.violations[0].splitlines()[0]}"
        print(f"{protection.name:46} {protection.mix:11} {what[:150]}", flush=True)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
