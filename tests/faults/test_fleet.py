"""Several servers on one Redis under real faults: nothing acknowledged is lost in silence, nothing counts twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import pytest

from faults.bad_network import BadNetwork
from faults.campaign import Campaign
from faults.lossy_redis import cut_the_end
from faults.processes import a_free_port
from faults.siege import Siege
from real_redis import RealRedis

KILLS = 6
REWINDS = 4
FAULTS = 60
WHOLE_JOURNAL = {"retain": "all"}


@pytest.fixture
def lasting_redis() -> Iterator[RealRedis]:
    """Synced at every write, on a port that stays its own from life to life."""
    redis = RealRedis(appendonly="yes", appendfsync="always")
    redis.port = a_free_port()
    with redis:
        yield redis


def test_servers_and_redis_are_killed_and_paused_and_nothing_is_lost(lasting_redis, tmp_path):
    """kill -9 of servers and of Redis, SIGSTOP of servers, while four workers push at whichever server answers."""
    siege = Siege(lasting_redis.url, tmp_path, seed=11, workers=4)
    campaign = Campaign(siege, lasting_redis, KILLS, servers=2, redis_share=0.4)
    found = campaign.run(durability="fsync", settings=WHOLE_JOURNAL, module="faults.small_snapshots")
    assert found.complaints == []
    assert (found.lost, found.doubled, found.untold, found.orphans) == (0, 0, 0, 0)
    assert found.acknowledged == found.in_journal > 50
    assert campaign.counts["redis killed"] > 0


def test_what_redis_loses_is_told_to_the_worker_it_hit(lasting_redis, tmp_path):
    """Redis comes back without the end of its file, again and again. Every acknowledged push is in the journal, or its
    worker was told; the servers follow the history that there is."""
    siege = Siege(lasting_redis.url, tmp_path, seed=12, workers=4)
    lose = partial(cut_the_end, lasting_redis, random.Random(12), 40_000)
    campaign = Campaign(
        siege, lasting_redis, REWINDS, servers=2, redis_share=1.0, rewinds=True, prepare_loss=lose, pauses=0.2
    )
    found = campaign.run(settings=WHOLE_JOURNAL, module="faults.small_snapshots")
    assert found.complaints == []
    assert (found.doubled, found.untold, found.orphans) == (0, 0, 0)
    assert found.lost > 0


def test_a_bad_network_loses_and_doubles_nothing(lasting_redis, tmp_path):
    """Resets, black holes, delays, cut replies and duplicates, before the servers and before Redis."""
    siege = Siege(lasting_redis.url, tmp_path, seed=13, workers=4)
    network = BadNetwork(siege, lasting_redis, FAULTS, servers=2)
    found = network.run(durability="fsync", settings=WHOLE_JOURNAL)
    assert found.complaints == []
    assert (found.lost, found.doubled, found.untold) == (0, 0, 0)
    assert any(fault.startswith("redis") for fault in network.counts)
