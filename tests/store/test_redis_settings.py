"""What a Redis says of itself, and what is made of it."""

from __future__ import annotations

import pytest

from gradserve_service.store import StoreUnfit
from gradserve_service.store.redis_settings import Settings, memory_share

INFO = (
    b"# Server\r\nredis_version:7.0.15\r\nrole:master\r\n"
    b"aof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n"
)
ALWAYS = [b"appendfsync", b"always"]


def test_a_redis_of_the_usual_kind_is_fit() -> None:
    """And tells its durability."""
    settings = Settings.parse([INFO, ALWAYS])
    settings.require_fit()
    assert settings.durability == "fsync"


@pytest.mark.parametrize(
    ("line", "instead", "reason"),
    [
        (b"redis_version:7.0.15", b"redis_version:6.0.9", "this is Redis 6.0.9: use Redis 6.2 or newer"),
        (b"role:master", b"role:slave", "replica"),
        (b"aof_enabled:1", b"cluster_enabled:1", "cluster"),
        (b"maxmemory:0\r\nmaxmemory_policy:noeviction", b"maxmemory:9\r\nmaxmemory_policy:allkeys-lfu", "allkeys-lfu"),
    ],
)
def test_an_unfit_redis_is_refused_with_the_reason(line: bytes, instead: bytes, reason: str) -> None:
    """One fault at a time."""
    with pytest.raises(StoreUnfit, match=reason):
        Settings.parse([INFO.replace(line, instead), ALWAYS]).require_fit()


@pytest.mark.parametrize("version", [b"6.2.0", b"6.2.14", b"7.4.1", b"8.0.0", b"10.0.0"])
def test_versions_are_compared_as_numbers(version: bytes) -> None:
    """10 is newer than 6.2."""
    Settings.parse([INFO.replace(b"7.0.15", version), ALWAYS]).require_fit()


def test_an_appendfsync_that_is_not_told_is_taken_to_be_everysec() -> None:
    """CONFIG is forbidden in many managed Redis: the reply is an error, or empty."""
    for reply in (RuntimeError("NOPERM"), []):
        assert Settings.parse([INFO, reply]).durability == "journal"


def test_memory_is_a_share_of_the_limit_and_none_without_one() -> None:
    """Of used_memory."""
    assert memory_share(b"used_memory:750\r\nmaxmemory:1000\r\n") == 0.75
    assert memory_share(b"used_memory:750\r\nmaxmemory:0\r\n") == 0.0
