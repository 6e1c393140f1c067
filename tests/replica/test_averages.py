"""Averages on real stores: the same bits after a kill, a restore and a branch; read under an ETag of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from gradserve.specs import Branch, PushFields, RunChanges, RunSpec
from gradserve_service.replica import Replica
from replica.runs import a_run, gradient, push, refusal, server, whole_state

AVERAGES = {
    "ema": {"name": "ema", "decay": 0.9, "debias": True, "warmup": True},
    "swa": {"name": "swa", "start": 2},
    "slow": {"name": "lookahead", "sync_period": 3, "reset_state": True},
}
every = pytest.mark.parametrize("name", AVERAGES)


def spec(name: str) -> RunSpec:
    return RunSpec.model_validate({"optimizer": {"name": "nadam", "lr": 0.1}, "average": AVERAGES[name]})


async def average(run: Replica, name: str = "average") -> bytes:
    found = await run.weights(of=name)
    assert found is not None
    return found.weights.tobytes()


@every
@pytest.mark.parametrize("journal", [1 << 30, 2_000], ids=["from the journal", "from a snapshot"])
async def test_a_killed_server_restores_the_average(store_url: str, name: str, journal: int) -> None:
    """Bit by bit; and the updates behind it end with the bits of a server that was not killed."""
    async with server(store_url, snapshot_journal_bytes_min=journal, snapshot_state_factor=1) as replicas:
        run, untouched = [await a_run(replicas, 40, spec(name), each) for each in ("run", "other")]
        for sequence in range(1, 12):
            await push(run, sequence, size=40)
            await push(untouched, sequence, size=40)
        before, read = await whole_state(run), await average(run)
        seen = await run.weights()
        assert seen is not None
        assert read != seen.weights.tobytes()
        for sequence in (12, 13, 14):
            await push(untouched, sequence, size=40)
        after = await average(untouched)
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        assert (await whole_state(run), await average(run, name)) == (before, read)
        for sequence in (12, 13, 14):
            await push(run, sequence, size=40)
        assert await average(run) == after
        assert bool(await replicas.store.snapshots(run.uid)) == (journal == 2_000)


@every
async def test_a_restored_and_a_branched_run_go_on_with_the_average_of_then(store_url: str, name: str) -> None:
    """A restore brings the vector and its numbers; the same gradient then gives the same bytes."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, spec=spec(name))
        for sequence in range(1, 5):
            await push(run, sequence)
        await run.checkpoints.create("best")
        then = await average(run)
        await push(run, 5)
        after = await average(run)
        await run.restores.from_checkpoint(run.checkpoints, "best", None)
        assert await average(run) == then
        same = gradient(1_000 * sum(b"w0") + 5)  # as push 5 of w0 was
        await run.push("w1", 1, same, PushFields())
        assert await average(run) == after
        branch, _ = await replicas.branch_run("branch", Branch(run="run", checkpoint="best"), {})
        assert await average(branch) == then
        await branch.push("w1", 1, same, PushFields())
        assert await average(branch) == after


async def test_a_restored_state_without_the_present_average_begins_one(store_url: str) -> None:
    """At the weights that came back."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        await run.checkpoints.create("plain")
        await push(run, 2)
        await run.configure(RunChanges.model_validate({"average": "ema"}))
        await push(run, 3)
        await run.restores.from_checkpoint(run.checkpoints, "plain", None)
        weights = await run.weights()
        assert weights is not None
        assert await average(run) == weights.weights.tobytes()


async def test_an_average_that_is_read_does_not_change_any_more(store_url: str) -> None:
    """It is written in place by the next update, and a slow reader still sends it."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, spec=spec("ema"))
        await push(run, 1)
        shown = await run.weights(of="ema")
        assert shown is not None
        kept = shown.weights.tobytes()
        await push(run, 2)
        assert shown.weights.tobytes() == kept != await average(run)


async def test_a_changed_average_has_another_etag_at_the_same_version(store_url: str) -> None:
    """Switched off and on it begins anew, and the version of the weights stays."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, spec=spec("ema"))
        await push(run, 1)
        await push(run, 2)
        first = await run.weights(of="ema")
        assert first is not None
        for value in (None, {"name": "ema"}):
            await run.configure(RunChanges.model_validate({"average": value}))
        second = await run.weights(of="ema", if_none_match=first.etag)
        raw = await run.weights()
        assert second is not None
        assert raw is not None
        assert (second.version, second.weights.tolist()) == (first.version, raw.weights.tolist())
        assert len({first.etag, second.etag, raw.etag}) == 3
        assert await run.weights(of="average", if_none_match=second.etag) is None


async def test_a_long_poll_for_an_average_ends_with_the_next_update(store_url: str) -> None:
    async with server(store_url) as replicas:
        run = await a_run(replicas, spec=spec("swa"))
        held = await run.weights(of="swa")
        assert held is not None
        waiting = asyncio.create_task(run.weights(of="swa", if_none_match=held.etag, wait_seconds=30.0))
        await push(run, 1)
        newer = await waiting
        assert newer is not None
        assert newer.version == 1


async def test_the_average_of_a_rule_is_read_as_one(store_url: str) -> None:
    """asgd's `ax`: of a run whose own average is another one, under the rule's names alone."""
    asgd = {"optimizer": {"name": "asgd", "lr": 0.5, "t0": 1}}
    async with server(store_url) as replicas:
        run = await a_run(replicas, spec=RunSpec.model_validate(asgd))
        assert await average(run, "ax") == np.arange(4, dtype=np.float32).tobytes()  # before any update
        for sequence in (1, 2, 3, 4):
            await push(run, sequence)
        _, slots, _ = await run.optimizer_state()
        assert await average(run) == await average(run, "ax") == await average(run, "x") == slots.tobytes()
        await run.configure(RunChanges.model_validate({"average": "swa"}))
        assert await average(run) == await average(run, "swa") != await average(run, "ax")


@pytest.mark.parametrize("name", ["average", "ema", "swa", "slow", "x", "ax"])
async def test_a_run_without_that_average_refuses(store_url: str, name: str) -> None:
    """Also to who holds an ETag that it could have."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        held: Any = await run.weights()
        for etag in (None, held.etag[:-1] + f'-{name}-0"', held.etag[:-1] + '-rule-0"'):
            assert await refusal(run.weights(of=name, if_none_match=etag)) == "validation-error"
