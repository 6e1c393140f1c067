"""Checkpoints, restores and branches on real stores: exact, durable, and nobody's push waits."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from gradserve.problems import Refused
from gradserve.specs import Branch, PushFields, RunSpec
from gradserve_service.core.history import COLUMNS
from gradserve_service.replica import Replica
from replica.runs import ADAM, a_run, gradient, push, refusal, server, whole_state

NADAM = RunSpec.model_validate({"optimizer": {"name": "nadam", "lr": 0.1}})


async def state_of(run: Replica) -> tuple[bytes, bytes, int, Any]:
    """Weights, slots, step, and the rule's memory."""
    weights = await run.weights()
    assert weights is not None
    _, slots, said = await run.optimizer_state()
    return weights.weights.tobytes(), slots.tobytes(), weights.step, said.get("mu_product")


async def restore(run: Replica, name: str, key: str | None = None) -> dict[str, Any]:
    return await run.restores.from_checkpoint(run.checkpoints, name, key)


async def test_a_restored_run_goes_on_as_it_did_then(store_url: str) -> None:
    """The same gradients after the checkpoint give the same bytes, though the version went on rising."""
    async with server(store_url) as replicas:
        for size in (4, 20_000):  # inside its entry, and as an object
            run = await a_run(replicas, size, NADAM, f"run{size}")
            for sequence in (1, 2, 3):
                await push(run, sequence, size=size)
            item, created = await run.checkpoints.create("best")
            assert created
            assert (item["version"], item["step"]) == (3, 3)
            then = await state_of(run)
            await push(run, 4, size=size)
            after = await state_of(run)
            answer = await restore(run, "best")
            assert (answer["version"], answer["step"]) == (5, 3)
            assert await state_of(run) == then
            same = gradient(1_000 * sum(b"w0") + 4, size)  # as push 4 of w0 was
            await run.push("w1", 1, same, PushFields())
            assert await state_of(run) == after
            again = await run.restores.from_version(3, None)
            assert again["version"] == 7
            assert await state_of(run) == then


async def test_a_killed_server_restores_the_restored_state(store_url: str) -> None:
    """Bit by bit, from the journal; checkpoints are there as they were."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, 20_000, NADAM)
        await push(run, 1, size=20_000)
        await run.checkpoints.create("best")
        await push(run, 2, size=20_000)
        await restore(run, "best", "key")
        await push(run, 3, size=20_000)
        before, listed = await whole_state(run), await run.checkpoints.listed()
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        assert await whole_state(run) == before
        assert await run.checkpoints.listed() == listed
        head = await replicas.store.head(run.uid)
        await restore(run, "best", "key")  # the late copy of a request that was carried out
        assert await replicas.store.head(run.uid) == head
        await run.checkpoints.delete("best")
        assert (await whole_state(run)) == before


async def test_a_deleted_checkpoint_takes_nothing_along(store_url: str) -> None:
    """What was restored from it has its own payload."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, 20_000)
        await push(run, 1, size=20_000)
        await run.checkpoints.create("best")
        await restore(run, "best")
        await run.checkpoints.delete("best")
        before = await whole_state(run)
        assert await refusal(restore(run, "best")) == "checkpoint-not-found"
        assert await refusal(run.checkpoints.delete("best")) == "checkpoint-not-found"
    async with server(store_url) as replicas:
        assert await whole_state(await replicas.open("run")) == before


async def test_a_name_stands_for_one_state(store_url: str) -> None:
    """Also when several ask at once, on two servers."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        first, created = await run.checkpoints.create("best")
        await push(run, 1)
        again, anew = await run.checkpoints.create("best")
        assert (created, anew, again) == (True, False, first)
        answers = await asyncio.gather(*(run.checkpoints.create("other") for _ in range(5)))
        assert sorted(made for _, made in answers) == [False] * 4 + [True]
        assert len({item["created_at"] for item, _ in answers}) == 1


async def test_pushes_go_on_while_a_checkpoint_is_written(store_url: str) -> None:
    """It is of the position at which it was frozen, however slow the store is with it."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, 20_000)
        await push(run, 1, size=20_000)
        frozen, go_on, put_object = asyncio.Event(), asyncio.Event(), replicas.store.put_object

        async def slow(uid: str, pieces: Any) -> Any:
            if len(pieces) > 2:  # weights and slots: not a push
                frozen.set()
                await go_on.wait()
            return await put_object(uid, pieces)

        replicas.store.put_object = slow  # type: ignore[method-assign]
        saving = asyncio.create_task(run.checkpoints.create("best"))
        await frozen.wait()
        then = await state_of(run)
        for sequence in (2, 3):
            await push(run, sequence, size=20_000)
        go_on.set()
        item, _ = await saving
        assert item["version"] == 1
        await restore(run, "best")
        assert await state_of(run) == then


async def test_versions_are_kept_as_far_as_the_journal_goes(store_url: str) -> None:
    """Trimmed versions are refused with the range that is left; with the whole journal kept every one can be had."""
    async with server(store_url, snapshot_journal_bytes_min=2_000) as replicas:
        run = await a_run(replicas)
        states = []
        for sequence in range(1, 31):
            states.append((await push(run, sequence)).published.weights.tobytes())
        await run.describe()
        while len(await replicas.store.snapshots(run.uid)) < 2 or (await _first(replicas, run)) == 1:
            await push(run, len(states) + 1)
            states.append(run.published.weights.tobytes())
            await asyncio.sleep(0)
        with pytest.raises(Refused, match="version-not-kept") as caught:
            await run.restores.from_version(0, None)
        extras = caught.value.rejection.extras
        assert 0 < extras["oldest"] <= extras["newest"] == len(states)
        await run.restores.from_version(extras["oldest"], None)
        assert run.published.weights.tobytes() == states[extras["oldest"] - 1]
        assert await refusal(run.restores.from_version(10_000, None)) == "version-not-kept"


async def _first(replicas: Any, run: Replica) -> int:
    (record,) = await replicas.store.read(run.uid, after=0, limit=1)
    return int(record.position)


async def test_a_branch_starts_from_the_state_without_rows(store_url: str) -> None:
    """It inherits the settings that it does not give; its workers start at sequence 1; both go the same way."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, 20_000, NADAM)
        for sequence in (1, 2):
            await push(run, sequence, size=20_000)
        await run.checkpoints.create("best")
        branch = Branch(run="run", checkpoint="best")
        given = {"branch": branch.model_dump()}
        other, created = await replicas.branch_run("other", branch, given)
        assert created
        assert await state_of(other) == await state_of(run)
        assert (await other.describe())["spec"] == {**(await run.describe())["spec"], "branch": given["branch"]}
        assert await other.workers() == []
        for each in (run, other):
            await push(each, 3 if each is run else 1, worker="w0", size=20_000)
        sgd, _ = await replicas.branch_run("sgd", branch, {**given, "optimizer": "sgd"})
        assert (await sgd.describe())["spec"]["optimizer"]["name"] == "sgd"
        assert (await sgd.describe())["step"] == 2


async def counts(run: Replica) -> tuple[int, float, float | None]:
    """What the run says that it has seen."""
    said = await run.describe()
    return said["updates"], said["samples_seen"], said["epoch"]


async def test_what_was_seen_goes_with_the_state(store_url: str) -> None:
    """Samples, updates and epochs: taken back by a restore, taken along by a branch, the same after a kill."""
    spec = RunSpec.model_validate({**ADAM.canonical(), "dataset_size": 10})
    async with server(store_url) as replicas:
        run = await a_run(replicas, spec=spec)
        for sequence in (1, 2):
            await push(run, sequence, samples=4)
        await run.checkpoints.create("best")
        await push(run, 3, samples=4)
        assert await counts(run) == (3, 12, 1.2)
        await restore(run, "best")
        assert await counts(run) == (2, 8, 0.8)
        await push(run, 4, samples=1)
        branch = Branch(run="run", checkpoint="best")
        other, _ = await replicas.branch_run("other", branch, {"branch": branch.model_dump()})
        assert await counts(other) == (2, 8, 0.8)
        assert (await other.past.statistics(None))["updates"] == 2
    async with server(store_url) as replicas:
        assert await counts(await replicas.open("run")) == (3, 9, 0.9)
        assert await counts(await replicas.open("other")) == (2, 8, 0.8)


async def test_a_restore_keeps_the_past_and_a_branch_has_none(store_url: str) -> None:
    """History is of what happened: rows of before stay, versions rise; a branch's own begins with its first update."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1, loss=0.5)
        await run.report({"accuracy": 0.25}, None)
        await run.checkpoints.create("best")
        await push(run, 2)
        await restore(run, "best")
        assert (await run.past.statistics(None))["effective_lr"] is None  # no update has used these slots yet
        await push(run, 3)
        branch = Branch(run="run", checkpoint="best")
        other, _ = await replicas.branch_run("other", branch, {"branch": branch.model_dump()})
        assert {
            name: column.size for name, column in (await other.past.history(None, -1, None)).items()
        } == dict.fromkeys(("version", *COLUMNS[1:]), 0)
        await push(other, 1)
        before = await past_of(run), await past_of(other)
    assert before == (([1, 2, 4], [1, 2, 2], ["accuracy"]), ([1], [2], []))
    async with server(store_url) as replicas:
        assert (await past_of(await replicas.open("run")), await past_of(await replicas.open("other"))) == before


async def past_of(run: Replica) -> tuple[list[float], list[float], list[str]]:
    """Versions and steps of the rows, and the names that were reported."""
    columns = await run.past.history(None, -1, None)
    reported = [name.removeprefix("metrics/") for name in columns if name.startswith("metrics/")]
    rows = [row for row in zip(columns["version"], columns["step"], columns["lr"], strict=True) if row[2] == row[2]]
    return [row[0] for row in rows], [row[1] for row in rows], reported


async def test_a_retry_completes_a_half_made_branch(store_url: str) -> None:
    """Created and not yet loaded; and once it has its weights it needs nothing of where it came from."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        await run.checkpoints.create("best")
        branch = Branch(run="run", checkpoint="best")
        given = {"branch": branch.model_dump()}
        await replicas.create_run("half", RunSpec.branched(NADAM.canonical() | ADAM.canonical(), given))
        half, created = await replicas.branch_run("half", branch, given)
        assert not created
        assert await state_of(half) == await state_of(run)
        await replicas.delete_run("run")
        again, created = await replicas.branch_run("half", branch, given)
        assert not created
        assert (await again.describe())["version"] == 0
        assert await refusal(replicas.branch_run("half", branch, {**given, "optimizer": "sgd"})) == "run-exists"
        assert await refusal(replicas.branch_run("new", branch, given)) == "run-deleted"
    async with server(store_url) as replicas:
        assert np.isfinite((await (await replicas.open("half")).weights()).weights).all()
