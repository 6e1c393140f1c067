"""The asyncio client against a real server: the same flows, many workers in one loop, cancelled at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

import gradserve as gs
from gradserve import transport
from gradserve.wire import decode_frame
from sdk.serving import Server

FIRST = {"w": np.zeros(3)}
ONES = {"w": np.ones(3)}


@pytest.fixture
async def connected(server: Server) -> AsyncIterator[gs.AsyncClient]:
    """An asyncio client of the shared server."""
    async with gs.connect_async(server.url, retry_seconds=30) as client:
        yield client


async def sgd(client: gs.AsyncClient, name: str, **fields) -> gs.AsyncRun:
    """A run whose arithmetic can be done in the head: w ← w − g/2."""
    return await client.run(name, init=FIRST, optimizer=gs.SGD(lr=0.5), **fields)


async def test_a_worker_trains(connected, name):
    """Pull, step, push; what is known of the push is the same as with threads."""
    run = await sgd(connected, name)
    async with run.worker("w0") as worker:
        assert (await worker.pull()).version == 0
        weights = await worker.step(ONES, loss=0.5, samples=32, cursor="batch 1")
        assert weights["w"].tolist() == [-0.5] * 3
        result = await worker.push(ONES)
        assert (result.outcome, result.sequence, result.version) == ("applied", 2, 2)
        assert worker.last_push is result
        assert worker.cursor == "batch 1"
        assert (await run.describe())["workers"] == 1
    assert (await run.describe())["workers"] == 0
    assert (await run.pull()).version == 2


async def test_twenty_workers_in_one_loop(connected, name):
    """All push at once; every gradient counts once."""
    run = await sgd(connected, name)

    async def work(k: int) -> list[int]:
        async with run.worker(f"w{k}") as worker:
            await worker.pull()
            return [(await worker.push(ONES)).version for _ in range(10)]

    versions = await asyncio.gather(*(work(k) for k in range(20)))
    assert sorted(version for each in versions for version in each) == list(range(1, 201))
    assert (await run.pull())["w"].tolist() == [-100.0] * 3


async def test_connections_are_kept_as_many_as_there_are_requests_at_a_time(line):
    """Six at a time, four times over one another: six connections."""
    async with gs.connect_async(line.url) as client:
        for _ in range(4):
            await asyncio.gather(*(client.server() for _ in range(6)))
    assert len(line.requests) == 6


async def test_connections_that_nobody_has_needed_for_long_are_closed(server, monkeypatch):
    """After a crowd has gone, one a request; the one in use stays."""
    async with gs.connect_async(server.url) as client:
        pools = client._transports[0]._pools
        await asyncio.gather(*(client.server() for _ in range(6)))
        assert len(pools.all) == 6
        monkeypatch.setattr(transport, "IDLE_SECONDS", 0.0)
        for left in (5, 4, 3, 2, 1, 1):
            await client.server()
            assert len(pools.all) == left


async def test_two_tasks_of_one_worker_take_turns(connected, name):
    """Pushes of a worker are in order, whoever asks for them."""
    run = await sgd(connected, name)
    async with run.worker() as worker:
        results = await asyncio.gather(*(worker.push(ONES) for _ in range(5)))
        assert [result.sequence for result in results] == [1, 2, 3, 4, 5]


async def test_a_cancelled_push_is_delivered_before_the_next(connected, name):
    """Cancelled after any number of turns of the loop: none is lost, none counts twice, whatever had arrived. Every
    fourth may end, so that a slow server's first answer does not stand in the way of all that follow."""
    run = await sgd(connected, name)
    async with run.worker() as worker:
        await worker.pull()
        gone_out = set()
        cancelled = 0
        for turns in range(60):
            gradient = {"w": np.full(3, float(turns))}
            push = asyncio.create_task(worker.push(gradient))
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 4:
                push.cancel()
            (ended,) = await asyncio.gather(push, return_exceptions=True)
            gradient["w"][:] = 1e6  # the caller's array is the caller's again
            cancelled += isinstance(ended, asyncio.CancelledError)
            if worker._session._outstanding is not None:
                gone_out.add(decode_frame(worker._session._outstanding.request.body[0]).vector()[0])
            if isinstance(ended, gs.PushResult):
                gone_out.add(float(turns))
        weights = await worker.step(ONES)
        assert cancelled > 0
        assert len(gone_out) > 1
        assert weights["w"].tolist() == [-(sum(gone_out) + 1) / 2] * 3


async def test_the_same_gradient_again_is_the_same_request(connected, name):
    """A caller who repeats a cancelled push repeats it, and does not push it twice."""
    run = await sgd(connected, name)
    async with run.worker() as worker:
        await worker.pull()
        for turns in range(1, 40):
            push = asyncio.create_task(worker.push({"w": np.full(3, float(turns))}))
            for _ in range(turns):
                await asyncio.sleep(0)
            push.cancel()
            await asyncio.gather(push, return_exceptions=True)
            if push.cancelled():
                result = await worker.push({"w": np.full(3, float(turns))})
                assert result.sequence == turns
        assert (await run.pull())["w"].tolist() == [-sum(range(1, 40)) / 2] * 3


async def test_a_replaced_worker_in_a_loop_is_fenced(connected, name):
    """Its heartbeats find out; whatever it says next raises."""
    run = await sgd(connected, name)
    async with run.worker("w0", heartbeat_seconds=0.02) as zombie, run.worker("w0"):
        assert zombie._heartbeats is not None
        await asyncio.wait_for(zombie._heartbeats, 60)
        with pytest.raises(gs.Fenced):
            await zombie.pull()


async def test_a_run_by_its_other_verbs(connected, name):
    """Settings, state, the end."""
    run = await sgd(connected, name)
    assert (await run.configure(lr=np.float32(0.25)))["spec"]["optimizer"]["lr"] == 0.25
    await run.pause()
    async with run.worker() as worker:
        with pytest.raises(gs.RunPaused):
            await worker.push(ONES)
        await run.resume()
        assert (await worker.push(ONES)).lr == 0.25
    assert name in [each["name"] for each in await connected.runs()]
    await run.delete()
    with pytest.raises(gs.RunDeleted):
        await run.describe()


async def test_large_weights_arrive_whole(connected, name):
    """In many pieces each way."""
    first = {"w": np.random.default_rng(0).normal(size=(1000, 700)).astype(np.float32)}
    run = await connected.run(name, init=first, optimizer=gs.SGD(lr=0.5))
    async with run.worker() as worker:
        assert ((await worker.pull())["w"] == first["w"]).all()
        weights = await worker.step({"w": first["w"]})
        assert (weights["w"] == first["w"] - np.float32(0.5) * first["w"]).all()


async def test_after_its_end_it_says_so(server, name):
    """Not a bare error of some library."""
    client = gs.connect_async(server.url)
    run = await sgd(client, name)
    async with run.worker() as worker:
        pass
    with pytest.raises(gs.Closed, match="has left"):
        await worker.push(ONES)
    await client.aclose()
    await client.aclose()
    with pytest.raises(gs.Closed, match="is closed"):
        await run.pull()


async def test_an_absent_server_is_waited_for_without_blocking_the_loop():
    """Pauses are the loop's."""
    async with gs.connect_async("http://127.0.0.1:1", retry_seconds=0.3) as client:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        with pytest.raises(gs.ServerUnreachable):
            await client.server()
        ticking.cancel()
        assert ticks > 2
