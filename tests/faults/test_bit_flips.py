"""One flipped bit in anything stored: refused, recovered to the last bit, or found by the scrub. Never served."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.bit_flips import run
from faults.media import Medium, RedisMedium, SqliteMedium
from real_redis import RealRedis

FLIPS = 60


@pytest.fixture(params=["sqlite", "redis"])
def medium(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RealRedis) -> Medium:
    """Of each kind of store, to be filled."""
    if request.param == "sqlite":
        return SqliteMedium(tmp_path)
    redis_server.command("FLUSHALL")
    return RedisMedium(redis_server.url)


def test_no_flipped_bit_is_served(medium: Medium) -> None:
    """Sixty flips, of every kind some; `scripts/bitflips.py --flips 1000` is the long form."""
    counts = run(medium, FLIPS, seed=1)
    assert counts.wrong == []
    assert counts.total.total() == FLIPS
    assert counts.total["refused"] > FLIPS / 4
    assert counts.total["recovered"] > 0
    assert counts.total["verify only"] > 0
