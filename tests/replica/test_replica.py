"""One run in memory on a real store: answers, batches, readers, and what survives."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
import pytest

from gradserve.specs import PushFields, RunSpec
from gradserve_service.replica import recovery
from gradserve_service.store.records import Head
from replica.runs import ADAM, a_run, push, refusal, server, tensor, whole_state


async def test_a_push_is_in_the_journal_before_it_is_answered(store_url: str) -> None:
    """The store's head is the answer's head, and its entry is the push."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        answer = await push(run, 1)
        head = await replicas.store.head(run.uid)
        assert (head.position, head.hash.hex()) == (2, answer.published.head)
        assert answer.outcome["version"] == 1
        assert answer.outcome["gradient_norm"] > 0


async def test_concurrent_pushes_share_an_append_and_keep_their_order(store_url: str) -> None:
    """Twenty workers at once give versions 1 to 20, once each, in far fewer appends."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        appends = 0
        append = replicas.store.append

        async def counted(uid: str, expected: Head, records: Any) -> Any:
            nonlocal appends
            appends += 1
            return await append(uid, expected, records)

        replicas.store.append = counted  # type: ignore[method-assign]
        answers = await asyncio.gather(*(push(run, 1, worker=f"w{i}") for i in range(20)))
        assert sorted(answer.outcome["version"] for answer in answers) == list(range(1, 21))
        assert appends <= 10


async def test_the_same_push_twice_at_once_is_applied_once(store_url: str) -> None:
    """One of two equal arrivals is applied, the other is answered with its outcome."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        first, second = await asyncio.gather(push(run, 1), push(run, 1))
        assert {first.outcome["outcome"], second.outcome["outcome"]} == {"applied", "duplicate"}
        assert first.outcome["version"] == second.outcome["version"] == 1
        duplicate = max(first.outcome, second.outcome, key=lambda outcome: outcome["outcome"])
        assert duplicate["original"]["outcome"] == "applied"
        assert (await run.describe())["version"] == 1


@pytest.mark.parametrize("size", [4, 20_000])
async def test_a_killed_server_comes_back_bit_identical(store_url: str, size: int) -> None:
    """Replaying the journal gives the bytes of weights and slots that the dead server had; 20,000 elements are a
    payload outside the entry."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, size)
        for sequence in range(1, 8):
            await push(run, sequence, size=size)
        before = await whole_state(run)
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        assert await whole_state(run) == before
        assert (await push(run, 7, size=size)).outcome["outcome"] == "duplicate"
        assert (await push(run, 8, size=size)).outcome["version"] == 8


async def test_a_snapshot_shortens_the_journal_and_changes_nothing(store_url: str) -> None:
    """With snapshots every few entries the old journal is gone, and a restart gives the same bytes and the same
    answers as without."""
    async with server(store_url, snapshot_journal_bytes_min=2_000) as replicas:
        run = await a_run(replicas)
        for sequence in range(1, 41):
            await push(run, sequence)
        before = await whole_state(run)
        await replicas.drain()
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        assert await whole_state(run) == before
        kept = await replicas.store.read(run.uid, after=0, limit=1_000)
        assert kept[0].position > 10
        assert len(await replicas.store.snapshots(run.uid)) == 2
        duplicate = (await push(run, 40)).outcome
        assert duplicate["original"]["gradient_norm"] > 0
        assert await refusal(push(run, 39)) == "history-rewound"


async def test_threads_and_the_event_loop_compute_the_same_bits(store_url: str) -> None:
    """A run updated in threads and one updated inline are equal to the last bit."""
    states = []
    for inline in (0, 1 << 20):
        async with server(store_url, inline_parameters_max=inline) as replicas:
            run = await a_run(replicas, 300_000, name=f"run{inline}")
            for sequence in range(1, 4):
                await push(run, sequence, size=300_000)
            states.append((await whole_state(run))[:2])
    assert states[0] == states[1]


async def test_readers_keep_the_weights_they_hold(store_url: str) -> None:
    """Pooled buffers are reused only when nobody refers to them, not even through a view of a view."""
    async with server(store_url, inline_parameters_max=0) as replicas:
        run = await a_run(replicas, 300_000)
        held = (await push(run, 1, size=300_000)).published
        view = memoryview(held.weights.data).cast("B")[4:400]
        expected = bytes(view)
        del held
        for sequence in range(2, 8):
            await push(run, sequence, size=300_000)
        assert bytes(view) == expected


async def test_a_client_that_hangs_up_cancels_nothing(store_url: str) -> None:
    """The push of a cancelled request is applied; its repetition is a duplicate."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        request = asyncio.ensure_future(push(run, 1))
        for _ in range(3):  # far enough to be in the queue, not far enough to be answered
            await asyncio.sleep(0)
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
        assert (await push(run, 1)).outcome["outcome"] in ("duplicate", "applied")
        assert (await run.describe())["version"] == 1


async def test_a_failed_update_is_rebuilt_from_the_journal(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The push whose update fails half-way is acknowledged only after the state was rebuilt, and applied once."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        update, failures = recovery.update, iter([True])

        def failing(arrays: Any, *rest: Any, **options: Any) -> None:
            update(arrays, *rest, **options)
            if next(failures, False):
                raise MemoryError("half-way")

        monkeypatch.setattr(recovery, "update", failing)
        assert await refusal(push(run, 2)) == "store-unavailable"
        assert (await push(run, 2)).outcome["outcome"] == "duplicate"
        before = await whole_state(run)
    async with server(store_url) as replicas:
        assert await whole_state(await replicas.open("run")) == before


async def test_a_run_that_keeps_failing_is_set_aside_alone(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three failures at one position the run answers `quarantined`, and other runs go on."""
    async with server(store_url) as replicas:
        bad, good = await a_run(replicas, name="bad"), await a_run(replicas, name="good")
        update = recovery.update

        def failing(arrays: Any, entry: Any, *rest: Any, **options: Any) -> None:
            if entry.header.get("worker") == "cursed":
                raise ArithmeticError("no way to apply this")
            update(arrays, entry, *rest, **options)

        monkeypatch.setattr(recovery, "update", failing)
        codes = [await refusal(push(bad, 1, worker="cursed")) for _ in range(4)]
        assert codes[-1] == "quarantined"
        assert (await push(good, 1)).outcome["version"] == 1


async def test_draining_refuses_gradients_but_answers_duplicates(store_url: str) -> None:
    """What was acknowledged is still answered; what is new goes to another server."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        replicas.draining = True
        assert await refusal(push(run, 2)) == "draining"
        assert (await push(run, 1)).outcome["outcome"] == "duplicate"
        assert (await run.weights()).version == 1  # type: ignore[union-attr]


async def test_a_long_poll_returns_with_the_next_version(store_url: str) -> None:
    """It waits while the held weights are the newest, and answers as soon as they are not."""
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        held = await run.weights()
        assert held is not None
        assert await run.weights(if_none_match=held.etag) is None
        poll = asyncio.ensure_future(run.weights(if_none_match=held.etag, wait_seconds=30))
        await asyncio.sleep(0)
        await push(run, 1)
        newer = await poll
        assert newer is not None
        assert newer.version == 1


async def test_workers_wait_for_the_first_weights(store_url: str) -> None:
    """A long-poll on a run without weights answers once they are loaded; without a wait it is refused."""
    async with server(store_url) as replicas:
        run, created = await replicas.create_run("run", ADAM)
        assert created
        assert await refusal(run.weights()) == "weights-uninitialised"
        poll = asyncio.ensure_future(run.weights(wait_seconds=30))
        await asyncio.sleep(0)
        await run.load(tensor([1.0]), if_none_match="*")
        first = await poll
        assert first is not None
        assert first.version == 0


async def test_a_gradient_that_comes_with_the_first_weights_is_measured(store_url: str) -> None:
    """Weights, a gradient and a NaN that wait in one batch: the gradient is applied, the NaN is refused."""
    async with server(store_url) as replicas:
        run, _ = await replicas.create_run("run", ADAM)
        load = asyncio.create_task(run.load(tensor([1, 2]), if_none_match="*"))
        good = asyncio.create_task(run.push("w0", 1, tensor([3, 4]), PushFields()))
        bad = asyncio.create_task(refusal(run.push("w1", 1, tensor([np.nan, 1]), PushFields())))
        await load
        assert (await good).outcome["gradient_norm"] == 5.0
        assert await bad == "non-finite-gradient"


async def test_refused_pushes_leave_no_trace_in_the_store(store_url: str) -> None:
    """A large gradient with NaN or of another shape writes no entry and leaves no object."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, 20_000)
        before = await replicas.store.head(run.uid)
        written, put_object = [], replicas.store.put_object

        async def watched(uid: str, pieces: Any) -> Any:
            written.append(await put_object(uid, pieces))
            return written[-1]

        replicas.store.put_object = watched  # type: ignore[method-assign]
        bad = np.zeros(20_000)
        bad[7] = np.inf
        frame = tensor(np.where(np.isinf(bad), 1e39, bad))
        assert await refusal(run.push("w0", 1, frame, PushFields())) == "non-finite-gradient"
        assert await refusal(run.push("w0", 1, tensor(np.zeros(3)), PushFields())) == "layout-mismatch"
        assert await replicas.store.head(run.uid) == before
        for ref in written:
            with pytest.raises(KeyError):
                await replicas.store.get_object(run.uid, ref)


async def test_creation_is_get_or_create(store_url: str) -> None:
    """The same spec again finds the run; another is refused with the difference; a deleted name can be used again."""
    async with server(store_url) as replicas:
        run, created = await replicas.create_run("run", ADAM)
        again, created_again = await replicas.create_run("run", ADAM)
        assert (created, created_again) == (True, False)
        assert again.uid == run.uid
        other = RunSpec.model_validate({"optimizer": {"name": "adam", "lr": 0.2}})
        assert await refusal(replicas.create_run("run", other)) == "run-exists"
        await replicas.delete_run("run", run.uid)
        assert await refusal(replicas.open("run")) == "run-deleted"
        reborn, created = await replicas.create_run("run", other)
        assert created
        assert reborn.uid != run.uid
        assert await refusal(replicas.delete_run("run", run.uid)) == "run-deleted"
        assert await refusal(replicas.open("nobody")) == "run-not-found"


async def test_back_pressure_refuses_before_a_body_is_read(store_url: str) -> None:
    """A server at its budget of held bytes takes no second body."""
    async with server(store_url, bodies_bytes_max=1_000) as replicas:
        run = await a_run(replicas)
        with run.accept_body(900):
            assert await refusal(_enter(run, 200)) == "backpressure"
            with run.accept_body(100):
                pass


async def _enter(run: Any, size: int) -> None:
    with run.accept_body(size):
        pass
