"""Named states: bound once, kept until they are dropped, each the only owner of its object."""

from __future__ import annotations

import os

import pytest
from redis.asyncio import Redis

from gradserve_service.store import RunAbsent, Store
from gradserve_service.store.records import CheckpointRecord, ObjectRef
from store.chains import ANY_BYTES, Chain, connected, kept_objects, lose_object


async def checkpoint(chain: Chain, name: str = "best", content: bytes = b"state") -> CheckpointRecord:
    """Not kept yet."""
    return CheckpointRecord(name, await chain.object(content), 1_700_000_000_000, b'{"version": 1} ' + ANY_BYTES)


async def test_what_is_kept_is_listed_as_it_was_given(chain: Chain) -> None:
    """In the order of the names; the store does not read what is said about them."""
    kept = [await checkpoint(chain, name) for name in ("b", "a", "c.1")]
    for each in kept:
        assert await chain.store.keep_checkpoint("u1", each) == each
    assert await chain.store.checkpoints("u1") == sorted(kept, key=lambda each: each.name)


async def test_a_name_is_bound_once(chain: Chain) -> None:
    """The second one hears what the name stands for, and that stays."""
    first = await checkpoint(chain)
    await chain.store.keep_checkpoint("u1", first)
    second = await checkpoint(chain, content=b"another")
    assert await chain.store.keep_checkpoint("u1", second) == first
    assert await chain.store.checkpoints("u1") == [first]


async def test_an_object_with_a_missing_part_is_not_kept(chain: Chain, store_url: str) -> None:
    """A chunk ran out, or a file is gone: the caller writes it again."""
    broken = await checkpoint(chain, content=os.urandom(5 << 20))
    await lose_object(store_url, "u1", broken.object)
    assert await chain.store.keep_checkpoint("u1", broken) is None
    assert await chain.store.checkpoints("u1") == []


async def test_a_dropped_checkpoint_takes_its_object_along(chain: Chain, store_url: str) -> None:
    """Nothing else can name it. Dropping twice says that there is none."""
    kept = await checkpoint(chain, content=os.urandom(5 << 20))
    await chain.store.keep_checkpoint("u1", kept)
    assert await chain.store.drop_checkpoint("u1", "best")
    assert not await chain.store.drop_checkpoint("u1", "best")
    assert await kept_objects(store_url, "u1") == set()
    assert await chain.store.checkpoints("u1") == []


async def test_trims_and_snapshots_leave_checkpoints_alone(chain: Chain, store_url: str) -> None:
    """Three snapshots and a trim later it can still be read."""
    kept = await checkpoint(chain)
    await chain.put(b"one")
    await chain.store.keep_checkpoint("u1", kept)
    for position in (1, 2, 3):
        await chain.put(await chain.object(b"payload"))
        await chain.publish(position)
        await chain.store.trim("u1")
    assert bytes(await chain.store.get_object("u1", kept.object)) == b"state"


async def test_a_restart_keeps_checkpoints_and_sweeps_what_never_became_one(tmp_path) -> None:
    """Only a finished one has a name when the database is opened again."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with connected(url) as store:
        chain = await Chain.create(store)
        kept = await checkpoint(chain)
        await store.keep_checkpoint("u1", kept)
        await checkpoint(chain, "never")
    async with connected(url) as store:
        assert await kept_objects(url, "u1") == {kept.object.id}
        assert await store.checkpoints("u1") == [kept]


async def test_a_kept_object_does_not_run_out(redis_url: str) -> None:
    """What was uploaded with a time to live has none any more."""
    async with connected(redis_url) as store, Redis.from_url(redis_url) as client:
        chain = await Chain.create(store)
        kept = await checkpoint(chain, content=os.urandom(5 << 20))
        keys = [f"gradserve:{{u1}}:object:{kept.object.id}:{number}" for number in range(2)]
        assert all([await client.ttl(key) > 0 for key in keys])
        await store.keep_checkpoint("u1", kept)
        assert [await client.ttl(key) for key in keys] == [-1, -1]


async def test_a_deleted_run_leaves_no_checkpoint(chain: Chain, store_url: str) -> None:
    """Neither object nor name, and none can be added; other runs keep theirs."""
    other = await Chain.create(chain.store, "other", "u2")
    theirs = await checkpoint(other)
    await chain.store.keep_checkpoint("u2", theirs)
    for name in ("a", "b"):
        await chain.store.keep_checkpoint("u1", await checkpoint(chain, name))
    late = await checkpoint(chain, "late")
    await chain.store.delete("digits", "u1")
    assert await kept_objects(store_url, "u1") - {late.object.id} == set()
    with pytest.raises(RunAbsent):
        await chain.store.checkpoints("u1")
    with pytest.raises(RunAbsent):
        await chain.store.keep_checkpoint("u1", late)
    assert await chain.store.checkpoints("u2") == [theirs]


async def test_a_run_that_never_was_has_no_checkpoints(store: Store) -> None:
    """Lost is not empty."""
    with pytest.raises(RunAbsent):
        await store.checkpoints("u9")
    with pytest.raises(RunAbsent):
        await store.keep_checkpoint("u9", CheckpointRecord("a", ObjectRef("0" * 32, 1), 0, b""))
