"""More pushes than a server can apply: the queue has an end, and who waits in it is served in turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gradserve.problems import Refused
from replica.runs import a_run, push, server

CROWD, ROUNDS = 40, 6


async def test_nobody_starves_in_a_crowd(store_url: str) -> None:
    """Forty workers push without a pause: when they have been answered often enough, each had nearly its share."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        answered = [0] * CROWD

        async def push_on(index: int) -> None:
            while sum(answered) < CROWD * ROUNDS:
                await push(run, answered[index] + 1, worker=f"w{index}")
                answered[index] += 1

        await asyncio.gather(*(push_on(index) for index in range(CROWD)))
        assert min(answered) >= ROUNDS - 1
        assert max(answered) <= ROUNDS + 1


async def test_a_full_queue_sends_away_for_as_long_as_it_will_take(store_url: str) -> None:
    """Refused before a byte of the body is read; Retry-After grows with what waits, up to its bound."""
    async with server(store_url, queue_pushes_max=3, retry_after_seconds_max=20) as replicas:
        run = await a_run(replicas)
        entered, go, append = asyncio.Event(), asyncio.Event(), replicas.store.append

        async def append_later(*said: Any) -> Any:
            entered.set()
            await go.wait()
            return await append(*said)

        replicas.store.append = append_later  # type: ignore[method-assign]
        waiting = [asyncio.ensure_future(push(run, 1, worker="first"))]
        await entered.wait()
        waiting += [asyncio.ensure_future(push(run, 1, worker=f"w{index}")) for index in range(4)]
        for _ in waiting:
            await asyncio.sleep(0)
        assert run._sequencer.queued == 4
        for pace, seconds in ((0.001, 1), (2.0, 8), (100.0, 20)):
            run._sequencer.pace = pace
            with pytest.raises(Refused) as refused, run.accept_body(100):
                raise AssertionError("it was taken")
            assert refused.value.rejection.code == "backpressure"
            assert refused.value.rejection.extras["retry_after_seconds"] == seconds
        go.set()
        await asyncio.gather(*waiting)
        with run.accept_body(100):
            pass
