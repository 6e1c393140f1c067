"""The scripts hold by themselves: they are sent by servers whose knowledge is old, or run late.

A store asks before it sends, so these arguments do not come from its methods; between the question and the script
another server may delete, publish or append.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from gradserve_service.store import open_store, redis_removal
from gradserve_service.store.records import OBJECT_CHUNK_BYTES, ObjectRef
from gradserve_service.store.redis_keys import (
    CATALOGUE,
    DELETING,
    NAMES,
    chunk_keys,
    journal_key,
    objects_key,
    run_key,
    snapshot_text,
)
from gradserve_service.store.redis_removal import purge, step_end
from gradserve_service.store.redis_scripts import DELETE, PUBLISH, PURGE_END, TRIM
from gradserve_service.store.redis_store import RedisStore
from store.chains import Chain

KEYS = [run_key("u1"), journal_key("u1"), objects_key("u1")]


@pytest.fixture
async def chain(redis_url: str) -> AsyncIterator[Chain]:
    """A run in Redis with five entries, one of them with an object, and two snapshots."""
    store = open_store(redis_url, "memory")
    await store.open()
    chain = await Chain.create(store)
    await chain.put(b"a", await chain.object(), b"c", b"d", b"e")
    await chain.publish(3)
    await chain.publish(4)
    yield chain
    await store.close()


def redis_store(chain: Chain) -> RedisStore:
    """To send scripts through."""
    assert isinstance(chain.store, RedisStore)
    return chain.store


async def mark(chain: Chain) -> None:
    """Delete the run, but remove nothing yet."""
    keys = (CATALOGUE, NAMES, DELETING, run_key("u1"))
    assert await redis_store(chain)._link.run(DELETE, keys, ("digits", "u1")) == 1


async def everything(url: str) -> dict[bytes, object]:
    """All keys of the run with their content and whether they expire."""
    async with Redis.from_url(url) as client:
        read = {
            b"hash": client.hgetall,
            b"stream": client.xrange,
            b"string": client.get,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        }
        keys = await client.keys("gradserve:{u1}:*")
        return {key: (await client.ttl(key) >= 0, await read[await client.type(key)](key)) for key in keys}


async def test_removal_leaves_a_living_run_alone(chain: Chain, redis_url: str) -> None:
    """A removal that was believed to be due, of a run that is not marked."""
    before = await everything(redis_url)
    await purge(redis_store(chain)._link, "u1")
    keys = (run_key("u1"), objects_key("u1"), journal_key("u1"), DELETING)
    assert await redis_store(chain)._link.run(PURGE_END, keys, ("u1", "1")) == 0
    assert await everything(redis_url) == before


async def test_a_publish_that_arrives_after_the_delete_changes_nothing(chain: Chain, redis_url: str) -> None:
    """The snapshotter had looked before."""
    newest, image = (await chain.store.snapshots("u1"))[0], await chain.image(5)
    await mark(chain)
    before = await everything(redis_url)
    arguments = (snapshot_text(newest), snapshot_text(image), "5", image.hash, b"", "1", str(image.object.size))
    keys = [*KEYS, *chunk_keys("u1", image.object)]
    assert await redis_store(chain)._link.run(PUBLISH, keys, arguments) == 0
    assert await everything(redis_url) == before


async def test_a_trim_that_arrives_after_the_delete_changes_nothing(chain: Chain, redis_url: str) -> None:
    """The same for the trimmer."""
    await mark(chain)
    before = await everything(redis_url)
    assert await redis_store(chain)._link.run(TRIM, KEYS, ("3",)) == -1
    assert await everything(redis_url) == before


async def test_a_trim_never_goes_past_the_previous_snapshot(chain: Chain, redis_url: str) -> None:
    """Recovery may have to start from it."""
    before = await everything(redis_url)
    assert await redis_store(chain)._link.run(TRIM, KEYS, ("4",)) == -1
    assert await everything(redis_url) == before


async def test_a_trim_spares_an_object_that_was_named_again_meanwhile(chain: Chain) -> None:
    """By an entry behind the range."""
    payload = chain.entries[1].object
    assert payload is not None
    await chain.put(payload)
    keys = [*KEYS, *chunk_keys("u1", payload)]
    assert await redis_store(chain)._link.run(TRIM, keys, ("3", str(payload), "1")) == 3
    assert await chain.store.get_object("u1", payload) == b"object"


def test_a_step_of_a_trim_is_bounded_in_chunks() -> None:
    """A script's keys are a few hundred; one object alone may have more."""
    big, small = ObjectRef("b", 300 * OBJECT_CHUNK_BYTES), ObjectRef("s", 1)
    assert step_end([(small, 1), (small, 2)], 256) == 256
    assert step_end([(big, 3), (small, 4), (big, 9), (small, 10)], 256) == 4
    assert step_end([(ObjectRef("h", 2_000 * OBJECT_CHUNK_BYTES), 7)], 256) == 256


async def test_a_trim_of_many_chunks_takes_several_steps(
    chain: Chain, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in scripts that Redis ran."""
    monkeypatch.setattr(redis_removal, "STEP_CHUNKS", 1)
    await chain.put(await chain.object(), await chain.object())
    await chain.publish(7)
    await chain.publish(8 - 1 + len(await chain.put(b"last")))
    async with Redis.from_url(redis_url) as client:
        await client.config_resetstat()
        assert await chain.store.trim("u1") == 7
        assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == 3
    assert await chain.read() == chain.entries[7:]


async def test_a_trim_remembers_how_far_it_came(chain: Chain, redis_url: str) -> None:
    """Or its cost would grow with the age of the run."""
    assert await chain.store.trim("u1") == 3
    async with Redis.from_url(redis_url) as client:
        assert await client.hget(run_key("u1"), "trimmed") == b"3"
