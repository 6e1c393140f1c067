"""The past of a run on several servers: the same columns everywhere, and events of what others do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gradserve.specs import PushFields, RunSpec
from gradserve_service.replica import events as told
from gradserve_service.replica.events import Event, Feed
from gradserve_service.store.protocols import StoreUnavailable
from gradserve_service.store.records import Head, Record
from replica.runs import a_run, gradient, push, refusal, server

CLIPPED = RunSpec.model_validate(
    {"optimizer": {"name": "adam", "lr": 0.1}, "clip": [{"name": "global_norm", "max_norm": 1.0}]}
)


async def columns(run: Any) -> dict[str, bytes]:
    """Every column of the history and the norms of the tensor, as bytes."""
    all_of_it = await run.past.history(None, -1, None)
    norms = await run.past.history(["gradient_norm/w"], -1, None)
    return {name: column.tobytes() for name, column in [*all_of_it.items(), ("norms", norms["gradient_norm/w"])]}


async def some(events: AsyncIterator[Event | None], count: int) -> list[Event]:
    """The next events, without heartbeats."""
    found: list[Event] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            event = await anext(events)
            if event is not None:
                found.append(event)
    return found


@pytest.mark.parametrize("size", [4, 70_000])
async def test_the_history_is_the_same_after_a_kill_and_a_snapshot(store_url: str, size: int) -> None:
    """By replay of the journal, and from an image and what came after it: bit for bit."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, size, CLIPPED)
        for sequence in range(1, 13):
            await push(run, sequence, size=size, loss=1 / sequence, samples=sequence)
        await run.report({"accuracy": 0.5}, 7)
        before = await columns(run)
    async with server(store_url) as replicas:
        again = await replicas.open("run")
        assert await columns(again) == before
        await replicas.drain()
    async with server(store_url) as replicas:
        again = await replicas.open("run")
        assert await columns(again) == before
        await push(again, 13, size=size)
        assert (await columns(again)).keys() == before.keys()
        assert (await again.past.statistics(None))["updates"] == 13


async def test_events_tell_what_another_server_did(redis_url: str) -> None:
    """A stream on a server that takes no push itself: woken by the store, not by a clock."""
    async with server(redis_url) as one, server(redis_url) as other:
        run = await a_run(one)
        watched = await other.open("run")
        async with aclosing(await watched.past.events(None)) as events:
            waiting = asyncio.create_task(some(events, 3))
            await asyncio.sleep(0)
            for sequence in range(1, 4):
                await push(run, sequence)
            found = await waiting
    assert [(event.position, event.kind) for event in found] == [(2, "update"), (3, "update"), (4, "update")]
    assert all(event.fields["gradient_norm"] > 0 for event in found)


async def test_a_slow_reader_goes_on_with_the_journal(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring holds few events, whoever reads; what fell out of it is read again, and nothing is told twice."""
    monkeypatch.setattr(told, "EVENTS_KEPT", 4)
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        async with aclosing(await run.past.events(None)) as events:
            await push(run, 1)
            found = await some(events, 1)
            for sequence in range(2, 31):
                await push(run, sequence)
            assert len(run.past._feed._ring) == 4
            found += await some(events, 29)
    assert [event.position for event in found] == list(range(2, 32))


async def test_a_trimmed_range_is_told_as_a_gap(store_url: str) -> None:
    """Which positions there still are; then they are told."""
    async with server(store_url, snapshot_journal_bytes_min=2_000) as replicas:
        run = await a_run(replicas)
        for sequence in range(1, 61):
            await push(run, sequence)
        await replicas.drain()
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        async with aclosing(await run.past.events(1)) as events:
            gap, first = await some(events, 2)
    assert gap.kind == "gap"
    assert gap.fields["kept_from"] == first.position
    assert first.position is not None
    assert first.position > 2
    assert gap.fields["version"] == first.fields["version"] - 1
    assert (gap.fields["position"], gap.fields["at"] > 0) == (1, True)


async def test_who_was_answered_of_a_history_that_is_lost_before_the_first_event_comes_again(store_url: str) -> None:
    """Entries of another history up to that place would else pass for read."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        async with aclosing(await run.past.events(1)) as events:
            run.past._feed.end()
            async with asyncio.timeout(30):
                assert [event async for event in events] == []


async def test_a_head_of_a_history_that_was_lost_while_it_was_read_is_read_again(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a place of the lost history would be taken for one of the present."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        fresh, heads = run.past._fresh, []

        async def lost_once() -> Head:
            heads.append(await fresh())
            if len(heads) == 1:
                run.past._feed.end()
                return replace(heads[0], position=99)
            return heads[-1]

        monkeypatch.setattr(run.past, "_fresh", lost_once)
        async with aclosing(await run.past.events(50)) as events:
            (gap,) = await some(events, 1)
        assert (gap.kind, gap.fields["kept_to"]) == ("gap", heads[1].position)


async def test_figures_are_told_with_the_entry_that_they_were_measured_at(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal may already hold other entries at the versions of the history that this server still has."""

    async def norms() -> list[float | None]:
        events = [event async for event in run.past._from_journal(0, run.past._feed.position)]
        return [event.fields["gradient_norm"] for event in events if event.kind == "update"]

    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        await push(run, 2)
        records = run.past._records

        async def of_another_history(after: int, last: int) -> AsyncIterator[Record]:
            async for record in records(after, last):
                yield replace(record, hash=bytes(32))

        assert None not in await norms()
        monkeypatch.setattr(run.past, "_records", of_another_history)
        assert await norms() == [None, None]


async def test_nothing_is_kept_while_nobody_watches(store_url: str) -> None:
    """No event of a run without readers takes memory; one that had some forgets them."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        assert not run.past._feed._ring
        async with aclosing(await run.past.events(0)) as events:
            await some(events, 2)
            await push(run, 2)
            await some(events, 1)
        assert not run.past._feed._ring
        assert run.past._feed.readers == 0


async def test_an_exploding_gradient_is_a_warning_event(store_url: str) -> None:
    """A norm a thousand times its running median, told before the update that it belongs to."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        for sequence in range(1, 11):
            await push(run, sequence)
        async with aclosing(await run.past.events(None)) as events:
            await run.push("w0", 11, huge(gradient(1)), PushFields())
            warning, update = await some(events, 2)
        assert (warning.kind, warning.fields["warning"], update.kind) == ("warning", "exploding", "update")
        assert (await run.describe())["warnings"] == [warning.fields["text"]]


def huge(frame: Any) -> Any:
    """The same gradient, a million times as large."""
    from replica.runs import tensor

    return tensor(frame.vector().astype(np.float64) * 1e6)


async def test_events_end_where_the_store_does_not_answer(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer has begun, so its end says it: whoever comes again goes on there."""

    async def silent(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("cut off")

    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        async with aclosing(await run.past.events(0)) as events:
            monkeypatch.setattr(replicas.store, "read", silent)
            assert [event async for event in events] == []


async def test_who_comes_back_after_a_failure_of_the_store_misses_nothing(store_url: str) -> None:
    """The wait for other servers' entries failed, so the answer ended; the next one goes on behind the event that was
    told last, and waits behind the last entry: one wait, not one after the other."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        await push(run, 2)
        asked, wait = list[int](), replicas.store.wait

        async def fails_once(uid: str, *, after: int, seconds: float) -> bool:
            asked.append(after)
            if len(asked) == 1:
                raise StoreUnavailable("cut off")
            return await wait(uid, after=after, seconds=seconds)

        store: Any = replicas.store
        store.wait = fails_once
        async with aclosing(await run.past.events(None)) as events:
            assert [event async for event in events] == []
        async with aclosing(await run.past.events(1)) as events:
            assert [event.position for event in await some(events, 2)] == [2, 3]
            for _ in range(20):
                await run.describe()
            assert asked == [3, 3]


async def test_a_reader_that_comes_as_the_last_one_goes_is_told_of_other_servers(redis_url: str) -> None:
    """In the same turn of the loop: who followed the store for the one that went is no longer there for the next."""
    async with server(redis_url) as one, server(redis_url) as other:
        run, watched = await a_run(one), await other.open("run")
        going, coming = await watched.past.events(0), await watched.past.events(None)
        async with aclosing(going), aclosing(coming):
            await some(going, 1)
            pushing = asyncio.create_task(push(run, 1))  # it begins when this task waits for the first time
            await going.aclose()
            (event,) = await some(coming, 1)
            await pushing
        assert (event.position, event.kind) == (2, "update")


def test_who_has_read_all_hears_that_a_state_was_built_from_a_snapshot() -> None:
    """What lies before it was not seen here: the reader has to look into the journal, as one that was slow."""
    feed = Feed()
    feed.open()
    feed.skip_to(5)
    number = feed.number_behind(5)
    assert number is not None
    assert feed.events_from(number) == []
    feed.skip_to(7)
    assert feed.events_from(number) is None
    assert feed.number_behind(5) is None


async def test_nobody_hears_of_a_state_that_turns_out_to_be_wrong(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with other slots follows: what it measured on the way to the snapshot that shows it is never told."""
    limits = {"snapshot_journal_bytes_min": 2_000, "snapshot_state_factor": 1}
    async with server(redis_url, **limits) as one, server(redis_url, clock_ahead_seconds=60, **limits) as other:
        wrong, right = await a_run(one), await other.open("run")
        await push(wrong, 1)
        held, let, wait = one._open["run"][1], asyncio.Event(), one.store.wait
        next(iter(held.state.arrays.slots.values()))[:] += 5.0

        async def waiting(uid: str, **asked: Any) -> Any:
            await let.wait()  # until there is a snapshot to compare with
            return await wait(uid, **asked)

        monkeypatch.setattr(one.store, "wait", waiting)
        async with asyncio.timeout(60), aclosing(await wrong.past.events(None)) as events:
            sequence = 1
            while not await other.store.snapshots(right.uid):
                sequence += 1
                await push(right, sequence)
                await other._open["run"][1]._snapshots.finish()
            let.set()
            heard = [event async for event in events if event is not None]  # ends: whoever reads has to come again
        assert await one.store.snapshots(right.uid)
        history = await right.past.history(["update_norm"], -1, None)
        truth = dict(zip(history["version"].tolist(), history["update_norm"].tolist(), strict=True))
        async with aclosing(await wrong.past.events(2)) as events:
            heard += await some(events, sequence - 1)
        updates = [event.fields for event in heard if event.kind == "update"]
        assert len(updates) >= sequence - 1
        assert all(fields["update_norm"] == truth[fields["version"]] for fields in updates)


@pytest.mark.parametrize(("times", "code"), [(1, "store-unavailable"), (99, "quarantined")])
async def test_a_gap_in_the_journal_is_damage_only_if_it_stays(store_url: str, times: int, code: str) -> None:
    """A store that lost its tail lost a trim with it: what was read before does not fit the snapshots read after."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        for sequence in range(1, 5):
            await push(run, sequence)
        read, left = replicas.store.read, [None] * times

        async def with_a_gap(uid: str, *, after: int, limit: int) -> Any:
            found = await read(uid, after=after, limit=limit + 2)
            return found[2:] if left and left.pop() is None else found[:limit]

        store: Any = replicas.store
        store.read = with_a_gap
        assert await refusal(anext(await run.past.journal(0, None))) == code
