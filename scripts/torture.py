#!/usr/bin/env python3
"""Kill a server again and again while real workers push through the real SDK, then audit every promise it made.

    python3 scripts/torture.py --kills 200 --store sqlite
    python3 scripts/torture.py --kills 200 --store redis            a Redis of its own, as the tests use it
    python3 scripts/torture.py --store redis://127.0.0.1:6379/5     one that runs; only this run's keys are touched
    python3 scripts/torture.py --parameters 70000 --snapshots       payloads as objects, a snapshot every few pushes
    python3 scripts/torture.py --servers 3 --every 1-3 --kills 1000 a fleet on one Redis; servers and Redis are killed,
                                                                    servers are paused
    python3 scripts/torture.py --servers 3 --slow-fsync --kills 100 Redis on a slow disk loses what it acknowledged:
                                                                    each loss must be told to its worker
    python3 scripts/torture.py --servers 3 --network-faults 1000    nobody is killed; the network resets, delays,
                                                                    swallows and duplicates, on both sides of servers

The last line holds the counters. Exit code 0: every acknowledged push is in the journal exactly once, and the weights
and optimizer state that the server serves are bit for bit a replay of it. Else 1, and the folder with all evidence
stays. Runs in the repository's `.venv` (`python3 scripts/dev.py setup` makes it).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faults.audit import Findings
    from faults.bad_network import BadNetwork

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
PROGRESS_SECONDS = 5.0
FLEET_SNAPSHOT_BYTES = str(2 << 20)  # a life lasts seconds: what a new one replays must be a part of that


def main() -> int:
    """Besiege a server as the arguments say; answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how often the server is killed (default 200)")
    parser.add_argument("--store", default="sqlite", help="sqlite, redis, or the URL of a store (default sqlite)")
    parser.add_argument("--workers", type=int, default=8, help="worker processes (default 8)")
    parser.add_argument("--parameters", type=int, default=1_003, help="of the run (default 1003: inline payloads)")
    parser.add_argument("--pushes", type=int, default=40, help="acknowledged pushes between two kills, at most")
    parser.add_argument("--snapshots", action="store_true", help="snapshots and trimming all the time")
    parser.add_argument("--servers", type=int, default=1, help="more than one: a fleet on one Redis of its own")
    parser.add_argument(
        "--every", type=seconds, default=None, metavar="1-3", help="seconds between two kills of a fleet"
    )
    parser.add_argument("--redis-share", type=float, default=None, help="of a fleet's kills that hit Redis")
    parser.add_argument("--slow-fsync", action="store_true", help="every fsync of Redis takes 3 s (needs a C compiler)")
    parser.add_argument("--network-faults", type=int, default=0, metavar="N", help="that many, instead of kills")
    parser.add_argument("--seed", type=int, default=None, help="of gradients and kills (default: a new one)")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        from faults.siege import Siege
    except ModuleNotFoundError as error:
        return in_the_environment(error.name)
    seed = secrets.randbits(31) if asked.seed is None else asked.seed
    folder = Path(tempfile.mkdtemp(prefix="gradserve-torture-"))
    print(f"torture: {asked.kills} kills, {asked.workers} workers, seed {seed}, evidence in {folder}", flush=True)
    if asked.servers > 1:
        return lead(asked, folder, seed)
    with store_url(asked.store, folder) as store:
        siege = Siege(
            store, folder, workers=asked.workers, parameters=asked.parameters, seed=seed,
            run=f"siege-{secrets.token_hex(4)}",
        )  # fmt: skip
        return besiege(siege, asked, folder)


def seconds(text: str) -> tuple[float, float]:
    """`1-3` → (1.0, 3.0)."""
    least, _, most = text.partition("-")
    return float(least), float(most or least)


def lead(asked: argparse.Namespace, folder: Path, seed: int) -> int:
    """A campaign against a fleet, its progress, the line of counters."""
    from faults.bad_network import BadNetwork
    from faults.campaign import Campaign
    from faults.lossy_redis import on_a_slow_disk
    from faults.processes import a_free_port
    from faults.siege import Siege
    from real_redis import RealRedis

    redis = RealRedis(appendonly="yes", appendfsync="everysec" if asked.slow_fsync else "always")
    redis.port = a_free_port()
    if asked.slow_fsync:
        on_a_slow_disk(redis)
    with redis:
        siege = Siege(redis.url, folder, workers=asked.workers, parameters=asked.parameters, seed=seed)
        if asked.network_faults:
            return suffer(BadNetwork(siege, redis, asked.network_faults, servers=asked.servers), folder)
        campaign = Campaign(
            siege, redis, asked.kills, servers=asked.servers, pushes_between_max=asked.pushes,
            every_seconds=asked.every, rewinds=asked.slow_fsync,
            redis_share=asked.redis_share if asked.redis_share is not None else 1.0 if asked.slow_fsync else 0.25,
        )  # fmt: skip
        progress = Progress(lambda: campaign.counts)
        if not asked.snapshots:
            os.environ["SNAPSHOT_BYTES"] = FLEET_SNAPSHOT_BYTES
        how = {"module": "faults.small_snapshots"}
        durability = "journal" if asked.slow_fsync else "fsync"
        began = time.monotonic()
        findings = campaign.run(progress, durability=durability, settings={"retain": "all"}, **how)
        slowest = max(campaign.converged_seconds, default=0.0)
        show_counters(campaign.counts, findings)
        print(f"slowest_convergence_seconds={slowest:.2f} seconds={time.monotonic() - began:.0f} seed={seed}")
    if findings.complaints:
        return 1
    shutil.rmtree(folder)
    return 0


def suffer(network: BadNetwork, folder: Path) -> int:
    """A bad network, its progress, the line of counters."""
    began = time.monotonic()
    progress = Progress(network.faults_by_kind)
    findings = network.run(progress, durability="fsync", settings={"retain": "all"})
    show_counters(network.counts, findings)
    print(f"faults={network.counts.total()} seconds={time.monotonic() - began:.0f} seed={network.siege.seed}")
    if findings.complaints:
        return 1
    shutil.rmtree(folder)
    return 0


class Progress:
    """A line every few seconds."""

    def __init__(self, counts: Callable[[], Counter[str]]) -> None:
        self._counts, self._at = counts, time.monotonic()

    def __call__(self, _: object, acknowledged: int, took: float) -> None:
        if time.monotonic() - self._at < PROGRESS_SECONDS:
            return
        self._at = time.monotonic()
        done = "  ".join(f"{number} {what}" for what, number in sorted(self._counts().items()))
        print(f"torture: {done}  {acknowledged} acknowledged  {took:.0f} s", flush=True)


def show_counters(counts: Counter[str], findings: Findings) -> None:
    """What happened and what came of it; what is wrong before it."""
    for complaint in findings.complaints:
        print(f"torture: WRONG: {complaint}", flush=True)
    done = " ".join(f"{what.replace(' ', '_').replace(':', '')}={number}" for what, number in sorted(counts.items()))
    print(
        f"{done} acknowledged={findings.acknowledged} in_journal={findings.in_journal} lost={findings.lost} "
        f"untold={findings.untold} doubled={findings.doubled} orphans={findings.orphans} "
        f"duplicates_answered={findings.duplicates} rewound_told={findings.rewound}",
        end=" ",
    )


def besiege(siege: object, asked: argparse.Namespace, folder: Path) -> int:
    """The siege, its progress, the line of counters."""
    from faults import siege as sieges

    told = {"at": time.monotonic()}

    def progress(kills: int, acknowledged: int, seconds: float) -> None:
        if time.monotonic() - told["at"] >= PROGRESS_SECONDS or kills == asked.kills:
            told["at"] = time.monotonic()
            print(f"torture: {kills:4} kills  {acknowledged:6} acknowledged  {seconds:6.1f} s", flush=True)

    began = time.monotonic()
    how = {"module": "faults.small_snapshots", "trimmed": True} if asked.snapshots else {}
    findings = sieges.besiege(siege, asked.kills, pushes_between_max=asked.pushes, progress=progress, **how)
    for complaint in findings.complaints:
        print(f"torture: WRONG: {complaint}", flush=True)
    print(
        f"kills={asked.kills} acknowledged={findings.acknowledged} in_journal={findings.in_journal} "
        f"trimmed={findings.trimmed_entries} lost={findings.lost} doubled={findings.doubled} "
        f"duplicates_answered={findings.duplicates} rewound_told={findings.rewound} "
        f"seconds={time.monotonic() - began:.0f} seed={siege.seed}"
    )
    if findings.complaints:
        return 1
    shutil.rmtree(folder)
    return 0


@contextlib.contextmanager
def store_url(store: str, folder: Path) -> Iterator[str]:
    """The URL of the store that is asked for; a Redis of our own is started and ended here."""
    if store == "sqlite":
        yield f"sqlite:///{folder}/store.db"
    elif store == "redis":
        from real_redis import RealRedis

        with RealRedis(appendonly="yes", appendfsync="everysec") as redis:
            yield redis.url
    else:
        yield store


def in_the_environment(missing: str | None) -> int:
    """Run this again with the repository's own Python, which has what is missing here."""
    if not PYTHON.exists() or Path(sys.prefix).resolve() == (ROOT / ".venv").resolve():
        print(f"torture: {missing} is not installed: run `python3 scripts/dev.py setup` first", file=sys.stderr)
        return 2
    os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
