"""Waiting for another server's entries: woken by the entry, not by asking again and again."""

from __future__ import annotations

import asyncio

import pytest

from gradserve_service.store import Store, StoreUnavailable
from real_redis import RealRedis
from store.chains import Chain, opened

LONG = 60.0  # a test that waits this long has failed


async def test_a_wait_ends_when_the_entry_comes(chain: Chain) -> None:
    """It began before."""
    waiting = asyncio.create_task(chain.store.wait("u1", after=0, seconds=LONG))
    await asyncio.sleep(0)
    await chain.put(b"a")
    assert await waiting


async def test_a_wait_for_what_is_there_ends_at_once(chain: Chain) -> None:
    """Also where a range before it was trimmed."""
    await chain.put(*(b"%d" % n for n in range(4)))
    assert await chain.store.wait("u1", after=3, seconds=LONG)
    await chain.publish(2)
    await chain.publish(3)
    await chain.store.trim("u1")
    assert await chain.store.wait("u1", after=0, seconds=LONG)


async def test_a_wait_ends_without_an_entry_when_its_time_is_over(chain: Chain) -> None:
    """And leaves nothing behind that the next one would trip over."""
    assert not await chain.store.wait("u1", after=0, seconds=0.01)
    await chain.put(b"a")
    assert await chain.store.wait("u1", after=0, seconds=LONG)
    assert not await chain.store.wait("u1", after=1, seconds=0.01)


async def test_many_waits_on_many_runs_end_each_with_its_own_entry(store: Store) -> None:
    """Also those that begin while others wait, and several on one run behind different positions."""
    chains = [await Chain.create(store, f"run-{n}", f"u{n}") for n in range(12)]
    waits = {
        (chain.uid, after): asyncio.create_task(store.wait(chain.uid, after=after, seconds=LONG))
        for chain in chains
        for after in (0, 1, 2)
    }
    for chain in reversed(chains):
        await chain.put(b"1")
        assert await waits.pop((chain.uid, 0))
        assert not any(task.done() for task in waits.values())
    for chain in chains:
        await chain.put(b"2", b"3")
    assert all(await asyncio.gather(*waits.values()))


async def test_a_cancelled_wait_disturbs_nobody(chain: Chain) -> None:
    """A client hung up."""
    gone, stays = [asyncio.create_task(chain.store.wait("u1", after=0, seconds=LONG)) for _ in range(2)]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await chain.put(b"a")
    assert await stays


async def test_a_wait_hears_of_an_entry_of_another_server(redis_url: str) -> None:
    """Which is what it is for."""
    first, second = await opened(redis_url), await opened(redis_url)
    chain = await Chain.create(first)
    waiting = asyncio.create_task(second.wait("u1", after=0, seconds=LONG))
    await asyncio.sleep(0)
    await chain.put(b"a")
    assert await waiting
    await first.close()
    await second.close()


async def test_a_delete_ends_the_waits_of_its_server(store_url: str) -> None:
    """In one process at once; over Redis at the end of the time."""
    store = await opened(store_url)
    await Chain.create(store)
    seconds = 2 * LONG if store.kind == "sqlite" else 0.05
    waiting = asyncio.create_task(store.wait("u1", after=0, seconds=seconds))
    await asyncio.sleep(0)
    await store.delete("digits", "u1")
    async with asyncio.timeout(LONG):
        assert not await waiting
    await store.close()


async def test_waits_are_told_when_redis_goes_away_and_work_again_afterwards() -> None:
    """All of them, not only the one that holds the connection."""
    with RealRedis(appendonly="yes", appendfsync="always") as server:
        store = await opened(server.url)
        chain = await Chain.create(store)
        await chain.put(b"a")
        waits = [asyncio.create_task(store.wait("u1", after=1, seconds=LONG)) for _ in range(3)]
        assert await store.wait("u1", after=0, seconds=LONG)  # they are under way
        server.kill()
        for waiting in waits:
            with pytest.raises(StoreUnavailable):
                await waiting
        server.start()
        assert await store.wait("u1", after=0, seconds=LONG)
        last = asyncio.create_task(store.wait("u1", after=1, seconds=LONG))
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await last
