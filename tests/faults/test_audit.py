"""The auditor can fail: each of its checks finds the fault that it is there for."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.siege import Siege
from gradserve_service.core.entries import write_entry
from gradserve_service.store import open_store
from gradserve_service.store.records import Appended


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Siege:
    """A few pushes of two workers, with nothing wrong, and the evidence of them."""
    folder = tmp_path_factory.mktemp("quiet")
    siege = Siege(f"sqlite:///{folder}/store.db", folder, workers=2, parameters=103, seed=7)
    with siege.under_load() as (server, crew):
        crew.everybody(2)
        siege.last_life(server, crew)
    return siege


def tell(siege: Siege, change: Callable[[list[str]], list[str]]) -> None:
    """Change what worker 0 wrote down."""
    log = siege.folder / "worker-0.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("\n".join(change(lines)) + "\n", encoding="utf-8")


def another(line: str, **changes: object) -> str:
    """The acknowledgement with other values."""
    return json.dumps({**json.loads(line), **changes})


def flip(siege: Siege, file: str) -> None:
    """One bit of the last number in a file that the server served."""
    path = siege.folder / file
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))


def cut_a_hole(siege: Siege) -> None:
    """The store loses an entry in the middle of its journal."""
    with contextlib.closing(sqlite3.connect(siege.folder / "store.db", isolation_level=None)) as database:
        database.execute("DELETE FROM entries WHERE place = (SELECT max(place) - 2 FROM entries)")


async def repeat_the_last_push(siege: Siege) -> None:
    """What a server without the rules of exactly once would do with a gradient that comes twice."""
    store = open_store(siege.store, "memory")
    await store.open()
    run = await store.find(siege.run)
    assert run is not None
    head = await store.head(run.uid)
    records = await store.read(run.uid, after=0, limit=1_000)
    push = next(record for record in reversed(records) if b'"kind":"push"' in record.header)
    again = write_entry(head.hash, {**json.loads(push.header), "position": head.position + 1})
    record = dataclasses.replace(push, position=again.position, hash=again.hash, header=again.raw)
    assert isinstance(await store.append(run.uid, head, [record]), Appended)
    await store.close()


FAULTS = {
    "an acknowledged push that the journal does not hold": (
        lambda siege: tell(siege, lambda lines: [*lines, another(lines[-1], digest="0" * 32, number=0)]),
        "1 acknowledged pushes are not in the journal",
    ),
    "a push in the journal that nobody was told of": (
        lambda siege: tell(siege, lambda lines: lines[:-1]),
        "is in the journal, unacknowledged",
    ),
    "an acknowledgement with another version": (
        lambda siege: tell(siege, lambda lines: [*lines[:-1], another(lines[-1], version=10_000)]),
        "acknowledged versions are not 1, 2, 3, …",
    ),
    "an acknowledgement with another sequence": (
        lambda siege: tell(siege, lambda lines: [*lines[:-1], another(lines[-1], sequence=10_000)]),
        "worker, sequence, cursor: told",
    ),
    "one bit of the served weights": (lambda siege: flip(siege, "weights.safetensors"), "the served weights differ"),
    "one bit of the served slots": (
        lambda siege: flip(siege, "optimizer-state.safetensors"),
        "the served exp_avg_sq/kernel differs from a replay of the journal",
    ),
}


def moved(siege: Siege, folder: Path) -> Siege:
    """The same evidence in another folder."""
    shutil.copytree(siege.folder, folder, dirs_exist_ok=True)
    return dataclasses.replace(siege, store=f"sqlite:///{folder}/store.db", folder=folder)


def test_nothing_is_wrong_with_a_quiet_run(quiet, tmp_path):
    """No complaint, and as many entries as acknowledgements."""
    findings = moved(quiet, tmp_path).audit()
    assert findings.complaints == []
    assert findings.acknowledged == findings.in_journal == findings.version > 0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, quiet, tmp_path):
    """Each fault draws the complaint that names it."""
    make, complaint = FAULTS[fault]
    siege = moved(quiet, tmp_path)
    make(siege)
    assert any(complaint in came for came in siege.audit().complaints), siege.audit().complaints


def test_a_journal_with_a_hole_is_no_chain(quiet, tmp_path):
    """The hash of each entry covers the one before."""
    siege = moved(quiet, tmp_path)
    cut_a_hole(siege)
    with pytest.raises(AssertionError, match="ChainBroken"):
        siege.audit()


async def test_a_gradient_that_counts_twice_is_found(quiet, tmp_path):
    """In the counters, in the complaints, and in the weights that such a journal gives."""
    siege = moved(quiet, tmp_path)
    await repeat_the_last_push(siege)
    findings = siege.audit()
    assert findings.doubled == 2  # as a digest, and as a place of the worker's sequence
    assert "a gradient is in the journal twice" in findings.complaints
    assert "the served weights differ from a replay of the journal" in findings.complaints
