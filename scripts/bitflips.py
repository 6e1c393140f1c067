#!/usr/bin/env python3
"""Flip one random bit in what a store holds, again and again, and see what a fresh server serves of it.

    .venv/bin/python scripts/bitflips.py --flips 1000 --store sqlite --seed 1
    .venv/bin/python scripts/bitflips.py --flips 1000 --store redis           a Redis of its own, as the tests use it

Each flip is made in a copy of the same store. A fresh server then answers every question about every run; what it
answers has to be equal to the bit to what it answered before the flip, or a refusal. What it answers from the previous
image counts as recovered; what no start reads has to be found by `gradserve inspect --verify`. Ends with the table of
outcomes by what was hit, and with 1 if anything else was served.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import tempfile
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from faults.bit_flips import Counts, run
from faults.media import RedisMedium, SqliteMedium
from real_redis import RealRedis

OUTCOMES = ("refused", "recovered", "verify only", "harmless", "served wrong")
PROGRESS_SECONDS = 5.0


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--seed", type=int, default=None, help="of the places (default: a new one)")
    asked = parser.parse_args()
    seed = secrets.randbits(31) if asked.seed is None else asked.seed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)  # each flip is complained of, as it should be
    began, told = time.monotonic(), [time.monotonic()]

    def progress(done: int) -> None:
        if time.monotonic() - told[0] >= PROGRESS_SECONDS:
            told[0] = time.monotonic()
            print(f"bitflips: {done} of {asked.flips}  {time.monotonic() - began:.0f} s", flush=True)

    with tempfile.TemporaryDirectory(prefix="gradserve-bitflips-") as folder:
        if asked.store == "sqlite":
            counts = run(SqliteMedium(Path(folder)), asked.flips, seed, progress)
        else:
            with RealRedis() as redis:
                counts = run(RedisMedium(redis.url), asked.flips, seed, progress)
    show(counts)
    sums = " ".join(f"{name.replace(' ', '_')}={counts.total[name]}" for name in OUTCOMES)
    print(f"flips={asked.flips} {sums} store={asked.store} seconds={time.monotonic() - began:.0f} seed={seed}")
    return 1 if counts.wrong else 0


def show(counts: Counts) -> None:
    """The table, why the harmless ones are, and everything that is wrong."""
    print(f"{'hit':18}" + "".join(f"{name:>14}" for name in OUTCOMES))
    for kind, outcomes in sorted(counts.outcomes.items()):
        print(f"{kind:18}" + "".join(f"{outcomes[name]:14}" for name in OUTCOMES))
    for reason, number in counts.reasons.most_common():
        print(f"harmless: {number} x {reason}")
    for text in counts.wrong:
        print(f"WRONG: {text}")


if __name__ == "__main__":
    sys.exit(main())
