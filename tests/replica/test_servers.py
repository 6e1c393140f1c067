"""Two servers on one Redis: any of them answers for any run, and both answer the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

from gradserve.specs import RunSpec
from replica.runs import a_run, push, refusal, server, whole_state
from store.chains import kept_objects, lose_object

T = TypeVar("T")
FRESH_ONLY = RunSpec.model_validate({"optimizer": "sgd", "staleness": {"name": "none", "max_staleness": 0}})


async def test_servers_that_race_apply_each_gradient_once(redis_url: str) -> None:
    """Eight workers push to two servers in turn; the versions are 1 to 80, and both servers hold the same bytes."""
    async with server(redis_url) as one, server(redis_url, clock_ahead_seconds=60) as other:
        runs = [await a_run(one), await other.open("run")]

        async def work(worker: int) -> list[int]:
            name = f"w{worker}"
            return [(await push(runs[(worker + n) % 2], n, worker=name)).outcome["version"] for n in range(1, 11)]

        versions = await asyncio.gather(*(work(i) for i in range(8)))
        assert sorted(version for each in versions for version in each) == list(range(1, 81))
        assert await whole_state(runs[0]) == await whole_state(runs[1])


async def test_a_server_that_is_behind_does_not_answer_from_memory(redis_url: str) -> None:
    """What one server acknowledged, the other serves at once: weights, duplicates and outcomes."""
    async with server(redis_url) as one, server(redis_url, clock_ahead_seconds=60) as other:
        here, there = await a_run(one), await other.open("run")
        first = await there.weights()
        answer = await push(here, 1)
        newer = await there.weights(if_none_match=first.etag if first else None)
        assert newer is not None
        assert newer.etag == answer.published.etag
        await push(here, 2)
        assert (await push(there, 2)).outcome["outcome"] == "duplicate"
        await push(here, 3)
        assert (await there.push_outcome("w0", 3))["version"] == 3


async def test_a_long_poll_hears_of_another_servers_update(redis_url: str) -> None:
    """It answers with the version that the other server made, long before its wait is over."""
    async with server(redis_url) as one, server(redis_url, clock_ahead_seconds=60) as other:
        here, there = await a_run(one), await other.open("run")
        held = await there.weights()
        assert held is not None
        poll = asyncio.ensure_future(there.weights(if_none_match=held.etag, wait_seconds=50))
        await asyncio.sleep(0)
        answer = await push(here, 1)
        newer = await asyncio.wait_for(poll, 20)
        assert newer is not None
        assert newer.etag == answer.published.etag


async def test_a_run_that_never_rests_is_read_all_the_same(redis_url: str) -> None:
    """A server that is behind answers with the state at the head that it read, however far the run is by then: whenever
    it reads the journal, the other server has taken another gradient."""
    async with server(redis_url) as one, server(redis_url, clock_ahead_seconds=60) as other:
        here, there = await a_run(one), await other.open("run")
        await there.weights()
        store, sequences = other.store, itertools.count(1)
        read, head = store.read, store.head

        async def then_push(answer: Awaitable[T]) -> T:
            answered = await answer
            await push(here, next(sequences))
            return answered

        store.read = lambda *asked, **more: then_push(read(*asked, **more))  # type: ignore[method-assign]
        store.head = lambda *asked: then_push(head(*asked))  # type: ignore[method-assign]
        acknowledged = (await push(here, next(sequences))).outcome["version"]
        described = await asyncio.wait_for(there.describe(), 60)
        assert described["version"] >= acknowledged
        assert next(sequences) < 20


async def test_a_run_that_another_server_deleted_is_dropped_from_memory(redis_url: str) -> None:
    """Once this server has heard of it, when the next run is opened; whoever still holds it hears why."""
    async with server(redis_url) as one, server(redis_url) as other:
        for name in ("first", "second", "next"):
            await a_run(one, name=name)
        held = [await other.open(name) for name in ("first", "second")]
        for name, run in zip(("first", "second"), held, strict=True):
            await one.delete_run(name)
            assert await refusal(run.weights()) == "run-deleted"
        await other.open("next")
        assert other.holdings().runs == 1
        assert [await refusal(push(run, 1)) for run in held] == ["run-deleted", "run-deleted"]


@pytest.mark.parametrize("lost_before", [False, True])
async def test_a_push_that_is_refused_after_a_lost_race_leaves_no_payload(redis_url: str, lost_before: bool) -> None:
    """Its append named the object and wrote nothing: what is left are the objects that entries name. So it is where the
    store had lost the object, and it was written anew."""
    async with server(redis_url) as one, server(redis_url, clock_ahead_seconds=60) as other:
        here, there = await a_run(one, 50_000, FRESH_ONLY), await other.open("run")
        await there.weights()
        store: Any = other.store
        append, lost = store.append, [lost_before]

        async def too_late(uid: str, head: Any, records: Any) -> Any:
            if lost.pop():
                await lose_object(redis_url, uid, records[0].object)
                lost.append(False)
                return await append(uid, head, records)
            await push(here, 1, size=50_000, base_version=0)
            return await append(uid, head, records)

        store.append = too_late
        assert await refusal(push(there, 1, worker="late", size=50_000, base_version=0)) == "stale-gradient"
        await there.describe()  # one more turn of the queue: what is left behind is removed after the answer
        journal = await one.store.read(here.uid, after=0, limit=10)
        named = {record.object.id for record in journal if record.object is not None}
        assert await kept_objects(redis_url, here.uid) == named
        assert len(named) == 2  # the weights, and the gradient that was faster
