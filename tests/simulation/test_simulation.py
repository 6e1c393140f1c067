"""A short form of the simulation: some seeds of each mix, equal runs for equal seeds, every protection missed.

The long form is `python scripts/simulate.py --seeds 2000`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.faults import MIXES
from simulation.protections import PROTECTIONS, Protection
from simulation.world import simulate

SEEDS_EACH = 4
TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("mix", MIXES)
def test_no_invariant_is_violated(mix: str) -> None:
    """Whatever goes wrong: each gradient once, nothing lost in silence, every answer true, servers equal in bits."""
    for seed in range(SEEDS_EACH):
        report = simulate(seed, mix)
        again = f"python scripts/simulate.py --mix {mix} --start {seed} --seeds 1 --trace"
        assert not report.violations, "\n".join([*report.violations, f"repeat: {again}"])
        assert report.counters["acknowledged"] > 0


def test_a_seed_decides_everything() -> None:
    """The same run here, and in a process whose dictionaries of strings are hashed differently: to the last event."""
    program = "from simulation.world import simulate; print(simulate(1, 'everything').trace)"
    paths = os.pathsep.join([str(TESTS), *sys.path])  # the other sees the same code, wherever this one found it
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert simulate(1, "everything").trace == simulate(1, "everything").trace == other.stdout.strip()


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda protection: protection.name)
def test_without_the_protection_some_run_fails(protection: Protection) -> None:
    """A protection that nobody misses is not needed, or not tested."""
    assert protection.first_failure(start=protection.seed) is not None
