"""Names and the runs they stand for: create, find, list, delete, create again."""

from __future__ import annotations

import asyncio

import pytest

from gradserve_service.store import RunAbsent, Store
from gradserve_service.store.records import RunGone
from store.chains import ANY_BYTES, Chain, catalogue, kept_objects, record


async def test_a_created_run_is_found_as_it_was_given(store: Store) -> None:
    """The creation bytes are covered by the genesis hash: not one may change."""
    run = catalogue("digits", creation=b'{"a": "\xc3\xa9"}' + ANY_BYTES)
    assert await store.create(run) == run
    assert await store.find("digits") == run
    assert await store.find("other") is None


async def test_creating_again_answers_the_run_that_is_there(store: Store) -> None:
    """Both with the same uid (a lost reply) and with another (a second creator)."""
    first = await store.create(catalogue("digits", "u1"))
    assert await store.create(catalogue("digits", "u1")) == first
    assert await store.create(catalogue("digits", "u2", b"{}")) == first
    with pytest.raises(RunAbsent):
        await store.head("u2")


async def test_of_many_creators_of_one_name_one_wins(store: Store) -> None:
    """All are told the same run."""
    runs = await asyncio.gather(*(store.create(catalogue("digits", f"u{n}")) for n in range(20)))
    assert len({run.uid for run in runs}) == 1


async def test_names_come_in_byte_order_page_by_page(store: Store) -> None:
    """Starting behind the last name of the page before; deleted ones are left out."""
    names = ["b", "a", "B", "ä", "a-1", "a.2", "zz", "日本"]
    for number, name in enumerate(names):
        await store.create(catalogue(name, f"u{number}"))
    await store.delete("zz", "u6")
    expected = sorted(set(names) - {"zz"}, key=str.encode)
    seen: list[str] = []
    while page := await store.names(after=seen[-1] if seen else "", limit=3):
        assert len(page) <= 3
        seen += [run.name for run in page]
    assert seen == expected


async def test_a_deleted_name_answers_that_it_is_deleted(chain: Chain) -> None:
    """Until it is created again: a worker of the deleted run must be told so, and not `not found`."""
    await chain.put(b"a")
    assert await chain.store.delete("digits", "u1")
    found = await chain.store.find("digits")
    assert found is not None
    assert found.deleted
    assert (found.uid, found.creation) == ("u1", chain.run.creation)
    assert await chain.store.names() == []


async def test_a_deleted_run_refuses_everything(chain: Chain) -> None:
    """Append, publish and trim of a server that has not heard of it yet."""
    await chain.put(b"a", b"b")
    snapshot = await chain.image(1)
    await chain.store.delete("digits", "u1")
    assert await chain.store.append("u1", chain.head, [record(chain.head)]) == RunGone(deleted=True)
    assert not await chain.store.publish("u1", None, snapshot)
    assert await chain.store.trim("u1") == 0
    for question in (chain.store.head("u1"), chain.store.read("u1", after=0, limit=1), chain.store.snapshots("u1")):
        with pytest.raises(RunAbsent) as absent:
            await question
        assert absent.value.deleted


async def test_a_delete_removes_every_object(chain: Chain, store_url: str) -> None:
    """Those of entries and of snapshots; also of long journals, which take several steps."""
    for _ in range(6):
        await chain.put(*(b"%d" % n for n in range(100)), await chain.object())
    await chain.publish(5)
    await chain.publish(500)
    assert len(await kept_objects(store_url, "u1")) == 8
    assert await chain.store.delete("digits", "u1")
    assert await kept_objects(store_url, "u1") == set()


async def test_a_delete_names_the_run_it_means(chain: Chain) -> None:
    """A repeated DELETE must not kill the run that was created under the name meanwhile."""
    assert not await chain.store.delete("digits", "another")
    assert await chain.store.delete("digits", "u1")
    assert not await chain.store.delete("digits", "u1")
    await chain.store.create(catalogue("digits", "u2"))
    assert not await chain.store.delete("digits", "u1")
    assert await chain.store.head("u2")


async def test_a_name_can_be_created_again_and_starts_over(chain: Chain) -> None:
    """The new run has its own chain; the old one stays deleted."""
    await chain.put(b"old")
    await chain.store.delete("digits", "u1")
    again = await Chain.create(chain.store, "digits", "u2")
    await again.put(b"new")
    assert await again.read() == again.entries
    assert await chain.store.find("digits") == again.run
    assert await chain.store.append("u1", chain.head, [record(chain.head)]) == RunGone(deleted=True)


async def test_a_create_that_arrives_late_does_not_revive_a_deleted_run(chain: Chain) -> None:
    """It would come back empty, under the uid that workers know."""
    await chain.store.delete("digits", "u1")
    assert (await chain.store.create(catalogue("digits", "u1"))).deleted
    with pytest.raises(RunAbsent):
        await chain.store.head("u1")
