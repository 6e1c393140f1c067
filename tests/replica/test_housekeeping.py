"""What a server does beside answering: it lets nothing pile up, and one request's trouble stays its own."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis

from gradserve.problems import Refused
from gradserve.specs import PushFields, RunSpec
from gradserve.wire import frame_from_json
from gradserve_service.replica import replica as replica_module
from gradserve_service.replica import snapshots
from gradserve_service.replica.recovery import State
from gradserve_service.replica.replica import Replica
from gradserve_service.replica.replicas import Replicas
from gradserve_service.store.protocols import StoreFull
from real_redis import RealRedis
from replica.runs import ADAM, a_run, push, refusal, server, tensor, whole_state

SKIPPING = RunSpec.model_validate({"optimizer": "sgd", "non_finite": "skip"})


async def test_a_skipped_gradient_leaves_no_payload(store_url: str) -> None:
    """It is journaled without its payload, so what was uploaded early is removed."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, 20_000, SKIPPING)
        refs, put_object = [], replicas.store.put_object

        async def watched(uid: str, pieces: Any) -> Any:
            refs.append(await put_object(uid, pieces))
            return refs[-1]

        replicas.store.put_object = watched  # type: ignore[method-assign]
        answer = await run.push("w0", 1, tensor(np.full(20_000, np.nan)), PushFields())
        assert answer.outcome["outcome"] == "skipped"
        await run.describe()  # one more turn of the queue: what is left behind is removed after the answer
        for ref in refs:
            with pytest.raises(KeyError):
                await replicas.store.get_object(run.uid, ref)


async def test_a_look_that_fails_is_refused_alone(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for a copy of the slots: that reader is told to come later, the run goes on from the state it has."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)

        def no_memory(state: State) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(replica_module, "slots_by_tensor", no_memory)
            assert await refusal(run.optimizer_state()) == "backpressure"
        assert (await push(run, 1)).outcome["version"] == 1
        await whole_state(run)


async def test_a_look_between_pushes_is_of_one_position(store_url: str) -> None:
    """The version, the step and the head that slots are answered with belong together, whatever is in the batch."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        asked = [push(run, 1), run.optimizer_state(), push(run, 2), run.optimizer_state(), push(run, 3)]
        _, first, _, second, _ = await asyncio.gather(*asked)
        journal = await replicas.store.read(run.uid, after=0, limit=10)
        for said in (first[2], second[2]):
            (position,) = [record.position for record in journal if record.hash.hex() == said["head"]]
            assert said["version"] == said["step"] == str(position - 1)  # the first entry is the load


async def test_runs_asked_for_longest_ago_leave_memory(store_url: str) -> None:
    """States together stay within their bytes; a run that was dropped answers as before."""
    async with server(store_url, states_bytes_max=100_000) as replicas:
        runs = [await a_run(replicas, 1_000, name=f"run{i}") for i in range(20)]
        answer = await push(runs[-1], 1, size=1_000)
        assert replicas.describe_server()["runs_in_memory"] <= 10
        assert (await push(await replicas.open("run0"), 1, size=1_000)).outcome["version"] == 1
        again = await push(await replicas.open("run19"), 1, size=1_000)
        assert again.outcome["outcome"] == "duplicate"
        assert again.published.etag == answer.published.etag


async def test_a_drain_under_load_leaves_a_whole_snapshot(store_url: str) -> None:
    """Pushes on their way are answered or refused, and the next server starts from the same bytes."""
    async with server(store_url, inline_parameters_max=0) as replicas:
        run = await a_run(replicas, 20_000)
        pushes = [asyncio.ensure_future(push(run, 1, worker=f"w{i}", size=20_000)) for i in range(8)]
        await asyncio.sleep(0)
        await replicas.drain()
        await asyncio.gather(*pushes, return_exceptions=True)
        acknowledged = [each.result().outcome["version"] for each in pushes if each.exception() is None]
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        (snapshot,) = await replicas.store.snapshots(run.uid)
        assert snapshot.position == (await replicas.store.head(run.uid)).position
        assert (await run.describe())["version"] == len(acknowledged)


async def test_a_small_redis_gets_its_snapshots_before_it_is_full() -> None:
    """The journal is cut at a quarter of the store's memory, however much less than usual that is."""
    with RealRedis(maxmemory="48mb") as redis:
        async with server(redis.url) as replicas:
            run = await a_run(replicas, 250_000)
            for sequence in range(1, 40):  # 1 MB each: without snapshots they would not fit
                await push(run, sequence, size=250_000)
                while await replicas.store.memory_pressure() > 0.7 and not await replicas.store.snapshots(run.uid):
                    await run.describe()
            assert await replicas.store.snapshots(run.uid)


async def taken(run: Replica, sequence: int) -> None:
    """Send a gradient again, as a worker does, until the store takes it; a look at the run takes a round trip."""
    for _ in range(20_000):
        try:
            await run.check_room()
            await push(run, sequence, size=20_000)
            return
        except Refused as refused:
            assert refused.rejection.code == "backpressure"  # noqa: PT017 - of the many tries any may be refused
            await run.describe()
    raise AssertionError("the store stays full")


async def test_runs_that_fill_a_redis_together_leave_room_for_each_other() -> None:
    """None of their journals is long enough for a snapshot: the store's memory asks for them, and no gradient is lost
    to a full store for good."""
    with RealRedis(maxmemory="64mb") as redis:
        async with server(redis.url) as replicas:
            runs = [await a_run(replicas, 20_000, name=f"run{i}") for i in range(8)]
            for sequence in range(1, 121):  # 80 kB each, 77 MB in all; a snapshot is due after 16 MB of one run
                for run in runs:
                    await taken(run, sequence)
            assert [(await run.describe())["version"] for run in runs] == [120] * 8


def fills_up(replicas: Replicas) -> None:
    """The store says that it is above its share of relief, and below that of refusals."""

    async def pressure() -> float:
        return 0.6

    replicas.store.memory_pressure = pressure  # type: ignore[method-assign]


async def relieved(replicas: Replicas, run: Replica, times: int) -> None:
    """Gradients are asked for so often, and what the store's memory asks for then is done each time."""
    for _ in range(times):
        await run.check_room()
        assert replicas._relief._task is not None
        await replicas._relief._task


async def test_a_run_without_weights_is_not_asked_for_a_snapshot(store_url: str) -> None:
    """It has a journal and no state that could stand for it: nothing is added to it, and the next run is relieved."""
    async with server(store_url) as replicas:
        idle, _ = await replicas.create_run("idle", ADAM)
        for number in range(60):
            await idle.register(f"w{number}", "instance", None)
        run = await a_run(replicas)
        for sequence in range(1, 21):
            await push(run, sequence)
        head = await replicas.store.head(idle.uid)
        fills_up(replicas)
        await relieved(replicas, run, 5)
        assert await replicas.store.head(idle.uid) == head
        assert len(await replicas.store.snapshots(run.uid)) == 2


async def test_a_snapshot_that_cannot_be_written_leaves_the_journal_as_it_is(store_url: str) -> None:
    """The entry that the second snapshot would stand behind is only there for a first one."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        for sequence in range(1, 21):
            await push(run, sequence)
        head = await replicas.store.head(run.uid)

        async def full(*_: Any) -> Any:
            raise StoreFull("no room")

        store: Any = replicas.store
        store.put_object = full
        fills_up(replicas)
        await relieved(replicas, run, 3)
        assert await replicas.store.head(run.uid) == head


async def test_servers_that_relieve_a_store_together_come_to_rest(redis_url: str) -> None:
    """A journal that another server has cut gets one more entry from this one; then nothing is to be gained by it."""
    async with server(redis_url) as one, server(redis_url, clock_ahead_seconds=60) as other:
        run, there = await a_run(one), await other.open("run")
        for sequence in range(1, 21):
            await push(run, sequence)
        await there.describe()
        sequencers = [one._open["run"][1], other._open["run"][1]]
        for replicas, asked in [(one, run), (other, there)]:
            fills_up(replicas)
            await relieved(replicas, asked, 1)
        assert [sequencer.gain_of_snapshot <= 0 for sequencer in sequencers] == [True, True]
        assert (await one.store.head(run.uid)).position <= 23


@pytest.mark.parametrize("place", [20, -5])
async def test_a_damaged_payload_sets_the_run_aside(tmp_path: Path, place: int) -> None:
    """A flipped byte in a payload's header or in its data is found at recovery, told, and never applied."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with server(url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
    with sqlite3.connect(tmp_path / "store.db") as database:
        row, inline = database.execute("SELECT rowid, inline FROM entries ORDER BY place DESC LIMIT 1").fetchone()
        damaged = bytearray(inline)
        damaged[place] ^= 1
        database.execute("UPDATE entries SET inline = ? WHERE rowid = ?", (bytes(damaged), row))
    database.close()
    async with server(url) as replicas:
        assert await refusal((await replicas.open("run")).weights()) == "quarantined"


async def test_concurrent_opens_share_one_task(store_url: str) -> None:
    """While older runs are dropped to make room, no run gets two tasks."""
    async with server(store_url, states_bytes_max=10_000) as replicas:
        for i in range(4):
            await a_run(replicas, 1_000, name=f"run{i}")
        opened = await asyncio.gather(*(replicas.open("run0") for _ in range(6)))
        assert len({id(run) for run in opened}) == 1


async def test_a_lost_run_is_not_created_again_silently(redis_url: str) -> None:
    """The store was emptied under a server that knows the run: creating it would hide the loss."""
    async with server(redis_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        Redis.from_url(redis_url).flushdb()
        assert await refusal(run.weights()) == "store-lost"
        assert await refusal(replicas.create_run("run", ADAM)) == "store-lost"


async def test_no_memory_for_a_snapshot_is_no_failure(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal stays longer; the run goes on."""

    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(snapshots, "freeze", no_memory)
    async with server(store_url, snapshot_journal_bytes_min=2_000) as replicas:
        run = await a_run(replicas)
        for sequence in range(1, 31):
            await push(run, sequence)
        assert (await run.describe())["version"] == 30
        assert await replicas.store.snapshots(run.uid) == []


async def test_weights_may_be_as_large_as_float32_goes_and_names_may_not_be_reserved(store_url: str) -> None:
    """Only gradients are squared; a name under `optimizer/` would collide with a slot's in an image."""
    async with server(store_url) as replicas:
        run, _ = await replicas.create_run("run", ADAM)
        reserved = frame_from_json({"optimizer/exp_avg/w": [1.0], "w": [1.0]})
        assert await refusal(run.load(reserved)) == "validation-error"
        assert await refusal(run.load(tensor([np.inf]))) == "validation-error"
        assert (await run.load(tensor([3e38, -1e25]))).first
        assert run.published.weights.tolist() == np.asarray([3e38, -1e25], np.float32).tolist()
