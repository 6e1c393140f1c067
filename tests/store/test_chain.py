"""Compare-and-append: all or none, on top of the head that was seen, and of nothing else."""

from __future__ import annotations

import asyncio
import random

import pytest

from gradserve_service.store import RunAbsent, Store
from gradserve_service.store.records import INLINE_BYTES_MAX, Appended, Head, HeadMoved, Record, RunGone
from store.chains import ANY_BYTES, Chain, end, opened, record, records


async def test_a_new_run_ends_in_its_genesis_hash(chain: Chain) -> None:
    """Position 0 belongs to no entry."""
    assert await chain.store.head("u1") == Head(0, chain.run.genesis)
    assert await chain.store.read("u1", after=0, limit=10) == []


async def test_an_entry_is_read_back_byte_for_byte(chain: Chain) -> None:
    """Headers and payloads hold any bytes, and the empty payload is not the missing one."""
    await chain.put(ANY_BYTES, b"", b"\x00", b"\r\n", bytes(INLINE_BYTES_MAX))
    assert await chain.read() == chain.entries


async def test_a_payload_may_be_a_view_into_a_larger_buffer(chain: Chain) -> None:
    """Payloads come out of the receive buffer without a copy; a float32 view counts in bytes."""
    body = memoryview(bytearray(range(200)))[40:80]
    entry = record(chain.head)
    plain = Record(entry.position, entry.hash, entry.header, body)
    assert await chain.store.append("u1", chain.head, [plain]) == Appended()
    assert (await chain.read())[0].inline == bytes(range(40, 80))


async def test_an_append_moves_the_head_to_its_last_entry(chain: Chain) -> None:
    """The head after a batch is the batch's end."""
    entries = await chain.put(b"a", b"b", b"c")
    assert await chain.store.head("u1") == end(entries)


async def test_an_append_on_an_old_head_writes_nothing(chain: Chain) -> None:
    """The loser of a race is told where the chain ends now. A ghost that runs late meets the same check."""
    old = chain.head
    await chain.put(b"first")
    ghost = records(old, [b"late", b"later"], mark="ghost")
    assert await chain.store.append("u1", old, ghost) == HeadMoved(chain.head)
    assert await chain.read() == chain.entries


async def test_the_same_append_again_is_refused_and_shows_its_own_entry(chain: Chain) -> None:
    """A lost reply and a lost race are the same case: the head says whether the entry is in."""
    old = chain.head
    entries = await chain.put(b"once")
    assert await chain.store.append("u1", old, entries) == HeadMoved(end(entries))
    assert await chain.read() == entries


async def test_the_head_hash_decides_and_not_the_position(chain: Chain) -> None:
    """A store that lost its tail issues positions again: a server that remembers the lost tail must fail here."""
    await chain.put(b"kept")
    lost = Head(1, record(Head(0, chain.run.genesis), mark="lost").hash)
    assert await chain.store.append("u1", lost, [record(lost)]) == HeadMoved(chain.head)


async def test_a_batch_is_written_in_full_or_not_at_all(chain: Chain) -> None:
    """The last of the batch names an object that is not there."""
    gone = await chain.object()
    await chain.store.discard_object("u1", gone)
    result = await chain.store.append("u1", chain.head, records(chain.head, [b"1", b"2", gone]))
    assert result != Appended()
    assert await chain.store.head("u1") == chain.head
    assert await chain.read() == []


async def test_of_twenty_appends_on_one_head_exactly_one_wins(chain: Chain) -> None:
    """Ten rounds; the others all see the winner's head."""
    for number in range(10):
        head = await chain.store.head("u1")
        entries = [record(head, b"payload", mark=f"{number}-{task}") for task in range(20)]
        results = await asyncio.gather(*(chain.store.append("u1", head, [entry]) for entry in entries))
        winners = [entry for entry, result in zip(entries, results, strict=True) if result == Appended()]
        assert len(winners) == 1
        assert set(results) == {Appended(), HeadMoved(end(winners))}
    assert [entry.position for entry in await chain.read()] == list(range(1, 11))


async def test_runs_do_not_see_each_other(store: Store) -> None:
    """Twenty runs grow at once, each in its own order."""
    chains = [await Chain.create(store, f"run-{n}", f"uid-{n}") for n in range(20)]

    async def grow(chain: Chain, seed: int) -> None:
        source = random.Random(seed)
        for _ in range(8):
            await chain.put(*(source.randbytes(source.randrange(3_000)) for _ in range(source.randrange(1, 4))))

    await asyncio.gather(*(grow(chain, seed) for seed, chain in enumerate(chains)))
    for chain in chains:
        assert await chain.read() == chain.entries
        assert await store.head(chain.uid) == chain.head


async def test_reading_starts_behind_a_position_and_stops_at_a_limit(chain: Chain) -> None:
    """Also across the steps in which a store reads."""
    await chain.put(*(b"%d" % n for n in range(150)))
    assert await chain.store.read("u1", after=3, limit=2) == chain.entries[3:5]
    assert await chain.store.read("u1", after=0, limit=140) == chain.entries[:140]
    assert await chain.store.read("u1", after=149, limit=9) == chain.entries[149:]
    assert await chain.store.read("u1", after=150, limit=9) == []


async def test_a_read_is_bounded_in_bytes(chain: Chain) -> None:
    """Catching up must not take the server's memory; whoever reads goes on behind the last entry."""
    for _ in range(6):
        await chain.put(*(bytes(INLINE_BYTES_MAX) for _ in range(60)))
    first = await chain.store.read("u1", after=0, limit=1_000)
    assert 16 << 20 <= sum(len(entry.inline) for entry in first) <= 24 << 20
    assert await chain.read() == chain.entries


async def test_an_unknown_run_is_absent_and_not_empty(store: Store) -> None:
    """A store that lost a run must never look like a new one."""
    head = Head(0, bytes(32))
    assert await store.append("nobody", head, [record(head)]) == RunGone(deleted=False)
    for question in (store.head("nobody"), store.read("nobody", after=0, limit=1), store.snapshots("nobody")):
        with pytest.raises(RunAbsent, match="nobody") as absent:
            await question
        assert not absent.value.deleted


async def test_what_was_appended_is_there_after_opening_again(store: Store, store_url: str) -> None:
    """Head, entries and payloads."""
    chain = await Chain.create(store)
    await chain.put(b"a", await chain.object(b"object"))
    await store.close()
    again = await opened(store_url)
    assert await again.head("u1") == chain.head
    assert await again.read("u1", after=0, limit=9) == chain.entries
    assert await again.get_object("u1", chain.entries[1].object) == b"object"
    await again.close()


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [Record(2, b"h" * 32, b"{}")],
        [Record(1, b"h" * 32, b"{}"), Record(3, b"h" * 32, b"{}")],
        [Record(1, b"h" * 32, b"{}", bytes(INLINE_BYTES_MAX + 1))],
    ],
)
async def test_records_that_do_not_continue_the_head_are_an_error_of_the_caller(
    chain: Chain, wrong: list[Record]
) -> None:
    """Nothing is sent: no store has to judge positions."""
    with pytest.raises(ValueError, match=r"append|position|inline"):
        await chain.store.append("u1", chain.head, wrong)
    assert await chain.read() == []
