"""A run that cannot be rebuilt: refused with the reason, tried again ever more rarely, by itself, and free to go."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradserve.problems import Refused
from gradserve_service.limits import Limits
from gradserve_service.replica import Replica, recovery
from gradserve_service.replica.quarantine import Quarantine
from gradserve_service.replica.sequencer import Sequencer
from gradserve_service.store import Store
from gradserve_service.store.records import Head, ObjectRef
from replica.runs import ADAM, a_run, push, refusal, server, whole_state


class Curse:
    """While it lasts no entry of a worker can be applied; counts the attempts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lasts = True
        self.attempts = 0
        update = recovery.update

        def failing(arrays: Any, entry: Any, *rest: Any, **options: Any) -> None:
            if entry.header.get("worker") == "cursed" and self.lasts:
                self.attempts += 1
                raise ArithmeticError("no way to apply this")
            update(arrays, entry, *rest, **options)

        monkeypatch.setattr(recovery, "update", failing)


async def test_a_run_that_rests_does_not_replay_its_journal_for_each_request(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty requests cost no further attempt; the refusal says why and when the next one is."""
    curse = Curse(monkeypatch)
    async with server(store_url, quarantine_seconds_min=3_600.0, quarantine_seconds_max=3_600.0) as replicas:
        run = await a_run(replicas)
        for _ in range(3):
            await refusal(push(run, 1, worker="cursed"))
        before = curse.attempts
        for _ in range(20):
            assert await refusal(run.weights()) == "quarantined"
        assert curse.attempts == before
        with pytest.raises(Refused) as caught:
            await run.describe()
        assert "ArithmeticError" in caught.value.rejection.detail
        assert caught.value.rejection.extras["retry_after_seconds"] == 3_600
        assert replicas.quarantined() == ["it failed 3 times in a row: ArithmeticError"]


async def test_a_run_comes_back_by_itself(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks for it; once its entry can be applied it is there again, with the gradient that was journaled."""
    curse = Curse(monkeypatch)
    async with server(store_url, quarantine_seconds_min=0.01, quarantine_seconds_max=0.01) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        for _ in range(3):
            await refusal(push(run, 1, worker="cursed"))
        curse.lasts = False
        held = replicas._open["run"][1]
        while held.quarantine.reason is not None:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        assert held.state is not None
        assert held.state.control.version == 2
        assert replicas.quarantined() == []
        assert (await push(run, 1, worker="cursed")).outcome["outcome"] == "duplicate"


async def test_each_failed_attempt_doubles_the_rest_up_to_a_bound() -> None:
    """1, 2, 4, 8, 8 … and from the beginning once it worked."""
    limits = Limits(quarantine_seconds_max=8.0)
    quarantine = Quarantine("run", limits, lambda: None)

    def rests(failure: Callable[[], object]) -> int:
        failure()
        seconds: int = quarantine.refusal().rejection.extras["retry_after_seconds"]
        return seconds

    assert [quarantine.failed("x") for _ in range(3)] == [False, False, True]
    assert [rests(lambda: quarantine.failed("x")) for _ in range(4)] == [2, 4, 8, 8]
    quarantine.recovered()
    quarantine.check()
    assert rests(lambda: quarantine.set_aside("damage")) == 1
    quarantine.cancel()


async def test_a_quarantined_run_can_be_deleted_and_made_again(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its journal is of no use to anybody; its name is."""
    Curse(monkeypatch)
    async with server(store_url) as replicas:
        run = await a_run(replicas)
        codes = [await refusal(push(run, 1, worker="cursed")) for _ in range(4)]
        assert codes[-1] == "quarantined"
        await replicas.delete_run("run", run.uid)
        assert replicas.quarantined() == []
        again = await a_run(replicas)
        assert again.uid != run.uid
        assert (await push(again, 1)).outcome["version"] == 1


async def test_a_run_whose_record_is_damaged_is_refused_and_can_be_deleted(tmp_path: Path) -> None:
    """A digit of its learning rate is another: the genesis hash tells, before anything is computed with it."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with server(url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
    with sqlite3.connect(tmp_path / "store.db") as database:
        database.execute("UPDATE names SET creation = CAST(replace(creation, '\"lr\":0.1', '\"lr\":0.3') AS BLOB)")
        assert database.total_changes == 1
    database.close()
    async with server(url) as replicas:
        assert await refusal(replicas.open("run")) == "quarantined"
        assert await refusal(replicas.create_run("run", ADAM)) == "quarantined"
        await replicas.delete_run("run")
        await a_run(replicas)


async def test_an_upload_is_removed_when_measuring_fails(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payload travels while the gradient is measured: no memory for the one, no object left of the other."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, 20_000)
        refs, put_object = [], replicas.store.put_object
        discarded, discard_object = asyncio.Event(), replicas.store.discard_object

        async def watched(uid: str, pieces: Any) -> Any:
            refs.append(await put_object(uid, pieces))
            return refs[-1]

        async def removed(uid: str, ref: Any) -> None:
            await discard_object(uid, ref)
            discarded.set()

        replicas.store.put_object = watched  # type: ignore[method-assign]
        replicas.store.discard_object = removed  # type: ignore[method-assign]

        async def no_memory(*_: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(recovery.Workshop, "gradient", no_memory)
        with pytest.raises(MemoryError):
            await push(run, 1, size=20_000)
        await asyncio.wait_for(discarded.wait(), 20)
        with pytest.raises(KeyError):
            await replicas.store.get_object(run.uid, refs[0])


# Snapshots that are damaged


async def settled(run: Replica, held: Sequencer, first: int, last: int) -> None:
    """Push from one sequence to another, each snapshot on the way written before the next push."""
    for sequence in range(first, last + 1):
        await push(run, sequence)
        await held._snapshots.finish()


async def damage_newest_image(store: Store, uid: str) -> int:
    """Bytes of the newest image's object are others from now on; answers its position."""
    newest = (await store.snapshots(uid))[0]
    get_object, object_digest = store.get_object, store.object_digest

    async def damaged(of: str, ref: ObjectRef) -> memoryview:
        content = bytearray(await get_object(of, ref))
        content[-1] ^= ref == newest.object
        return memoryview(content)

    async def digest(of: str, ref: ObjectRef) -> str:
        return "0" * 32 if ref == newest.object else await object_digest(of, ref)

    store.get_object = damaged  # type: ignore[method-assign]
    store.object_digest = digest  # type: ignore[method-assign]
    return newest.position


async def test_a_head_that_fell_behind_the_newest_snapshot_is_not_believed(store_url: str) -> None:
    """One flipped bit of a position, and the snapshot without the journal behind it would be served as the newest."""
    limits = {"snapshot_journal_bytes_min": 4_000, "snapshot_state_factor": 1}
    async with server(store_url, **limits) as replicas:
        run = await a_run(replicas)
        held = replicas._open["run"][1]
        await settled(run, held, 1, 16)
        assert 1 < (await replicas.store.snapshots(run.uid))[0].position < (await replicas.store.head(run.uid)).position
    async with server(store_url, **limits) as replicas:
        head = replicas.store.head

        async def fallen(uid: str) -> Head:
            return Head(1, (await head(uid)).hash)

        replicas.store.head = fallen  # type: ignore[method-assign]
        assert await refusal((await replicas.open("run")).weights()) == "quarantined"


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_damaged_image_is_not_what_recovery_falls_back_to(store_url: str, *, restarted: bool) -> None:
    """Whether a server finds it when it starts, or when it writes the next one: the damaged newest is replaced, the
    older good one stays, and the journal behind that one too."""
    limits = {"snapshot_journal_bytes_min": 4_000, "snapshot_state_factor": 1}
    async with server(store_url, **limits) as replicas:
        run = await a_run(replicas)
        held = replicas._open["run"][1]
        await settled(run, held, 1, 24)
        before = await whole_state(run)
        good = (await replicas.store.snapshots(run.uid))[1]
        if not restarted:
            bad = await damage_newest_image(replicas.store, run.uid)
            await settled(run, held, 25, 36)
    async with server(store_url, **limits) as replicas:
        if restarted:
            bad = await damage_newest_image(replicas.store, run.uid)
            run = await replicas.open("run")
            assert await whole_state(run) == before
            held = replicas._open["run"][1]
            await held._snapshots.finish()
        kept = await replicas.store.snapshots(run.uid)
        assert kept[0].position > bad
        assert kept[1] == good
        journal = await replicas.store.read(run.uid, after=0, limit=100)
        assert journal[0].position == good.position + 1
