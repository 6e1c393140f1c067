"""The auditor: `python -m faults.audit PLAN`, a fresh process that believes nobody.

It reads the journal straight from the store, follows its hash chain, and holds against it what the workers were told
and what the server served after its last start. Prints one line of JSON: what it counted and what is wrong.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis

from faults.gradients import first_weights, framed, gradient, layout_of
from gradserve.specs import RunSpec
from gradserve.wire import decode_frame
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.control import Control
from gradserve_service.core.entries import Entry, read_entry
from gradserve_service.core.gradient import Gradient
from gradserve_service.core.groups import GroupTerms
from gradserve_service.core.machine import advance
from gradserve_service.core.update import apply_update
from gradserve_service.replica.recovery import payload_of
from gradserve_service.store import Store, open_store
from gradserve_service.store.records import CatalogueRecord, Record
from gradserve_service.store.redis_keys import object_of_chunk

ACCEPTED = ("applied", "duplicate")
TOLD = ("rewound", "told")
COMPLAINTS_SHOWN = 10


@dataclass(frozen=True)
class Plan:
    """What to audit. `served` holds weights.safetensors and optimizer-state.safetensors of the last life."""

    store: str
    run: str
    seed: int
    workers: int
    parameters: int
    folder: str  # of worker-<index>.jsonl
    served: str
    trimmed: bool = False  # the journal no longer reaches back to the beginning
    rewinds: bool = False  # the store lost acknowledged pushes: each must have been told to its worker

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


@dataclass
class Findings:
    """The counters of the final line, and the complaints: none when all is well."""

    acknowledged: int = 0
    in_journal: int = 0
    lost: int = 0
    untold: int = 0  # of the lost: their workers never heard of it
    doubled: int = 0
    duplicates: int = 0
    rewound: int = 0
    version: int = -1
    trimmed_entries: int = 0
    orphans: int = 0  # payloads and images for ever in the store that nothing names
    complaints: list[str] = field(default_factory=list)

    def expect(self, holds: bool, complaint: str) -> None:
        """Note the complaint unless it holds; only the first few, each is enough."""
        if not holds and len(self.complaints) < COMPLAINTS_SHOWN:
            self.complaints.append(complaint)


async def audit(plan: Plan) -> Findings:
    """All checks. Raises what the store raises, and `ChainBroken` for a journal that is none."""
    findings = Findings()
    told = list(acknowledgements(plan))
    store = open_store(plan.store, "memory")
    await store.open()
    try:
        run = await store.find(plan.run)
        assert run is not None
        records = await whole_journal(store, run.uid)
        findings.trimmed_entries = records[0].position - 1
        findings.expect(plan.trimmed or records[0].position == 1, "the journal does not begin at its beginning")
        entries = await chain(store, run, records)
        check_promises(told, entries, findings, rewinds=plan.rewinds)
        if not plan.rewinds:
            arrays = from_promises(plan, run, told, findings)
            findings.version = arrays.version
            check_served(plan, arrays, findings, "a replay of what the workers were told")
        if records[0].position == 1:
            arrays = await from_journal(store, run, records)
            findings.version = arrays.version
            check_served(plan, arrays, findings, "a replay of the journal")
        named = {record.object.id for record in records if record.object is not None}
        named |= {snapshot.object.id for snapshot in await store.snapshots(run.uid)}
        findings.orphans = orphans(plan.store, run.uid, named)
        findings.expect(findings.orphans == 0, f"{findings.orphans} objects stay in the store for ever, unnamed")
    finally:
        await store.close()
    return findings


def orphans(url: str, uid: str, named: set[str]) -> int:
    """Objects of the run in Redis that nothing names and that will not vanish by themselves. (SQLite's are files, and
    swept at every start.)"""
    if not url.startswith(("redis://", "unix://")):
        return 0
    with redis.Redis.from_url(url) as link:
        kept = {
            object_of_chunk(key)
            for key in link.scan_iter(f"gradserve:{{{uid}}}:object:*".encode(), count=1_000)
            if link.ttl(key) == -1
        }
    return len(kept - named)


def acknowledgements(plan: Plan) -> Iterator[dict[str, Any]]:
    """What each worker wrote down, in its order."""
    for worker in range(plan.workers):
        for line in (Path(plan.folder) / f"worker-{worker}.jsonl").read_text(encoding="utf-8").splitlines():
            yield {"worker": worker, **json.loads(line)}


async def whole_journal(store: Store, uid: str) -> list[Record]:
    """All records that are kept, without a gap."""
    records = await store.read(uid, after=0, limit=1_000)
    while more := await store.read(uid, after=records[-1].position, limit=1_000):
        records += more
    return records


async def chain(store: Store, run: CatalogueRecord, records: list[Record]) -> list[Entry]:
    """The entries, each of which continues the one before, up to the store's head. A trimmed journal is anchored in
    the snapshot that it was trimmed for (a kill may have left a few entries before it: those are passed over)."""
    known = {0: run.genesis, **{snapshot.position: snapshot.hash for snapshot in await store.snapshots(run.uid)}}
    anchor = min(position for position in known if position >= records[0].position - 1)
    entries: list[Entry] = []
    head = known[anchor]
    for record in records:
        if record.position <= anchor:
            continue
        entries.append(read_entry(anchor + len(entries) + 1, head, record.header, record.hash))
        head = record.hash
        assert known.get(record.position, head) == head, f"the snapshot at {record.position} is of another history"
    assert (await store.head(run.uid)).hash == head, "the store's head is not the end of its journal"
    return entries


def check_promises(told: list[dict[str, Any]], entries: list[Entry], findings: Findings, *, rewinds: bool) -> None:
    """Each acknowledged push is in the journal exactly once, and nothing else is. With `rewinds`: or its worker was
    told later that its history is gone; and what was under way at that moment may be in the journal."""
    pushes = [entry for entry in entries if entry.kind == "push"]
    accepted = [push for push in told if push["outcome"] in ACCEPTED]
    digests = Counter(entry.header["digest"] for entry in pushes)
    places = Counter((entry.header["worker"], entry.header["sequence"]) for entry in pushes)
    versions = {push["digest"]: push for push in accepted}
    findings.acknowledged, findings.in_journal = len(accepted), len(pushes)
    findings.duplicates = sum(push["outcome"] == "duplicate" for push in told)
    findings.rewound = sum(push["outcome"] == "rewound" for push in told)
    findings.doubled = sum(count - 1 for count in (*digests.values(), *places.values()))
    findings.expect(findings.doubled == 0, "a gradient is in the journal twice")
    if findings.trimmed_entries == 0:
        findings.lost = sum(push["digest"] not in digests for push in accepted)
        findings.untold = len(list(never_told(told, digests)))
        findings.expect(findings.untold == 0, f"{findings.untold} lost pushes were not told to their workers")
        findings.expect(rewinds or findings.lost == 0, f"{findings.lost} acknowledged pushes are not in the journal")
    for entry in pushes:
        header, push = entry.header, versions.get(entry.header["digest"])
        if push is None:
            findings.expect(
                rewinds, f"push {header['sequence']} of {header['worker']} is in the journal, unacknowledged"
            )
            continue
        came = (f"w{push['worker']}", push["sequence"], str(push["number"]))
        kept = (header["worker"], header["sequence"], header["cursor"])
        findings.expect(came == kept, f"worker, sequence, cursor: told {came}, the journal has {kept}")


def never_told(told: list[dict[str, Any]], kept: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Accepted pushes that are not in the journal, and after which their worker heard of no rewound history."""
    heard: set[int] = set()  # workers, from the end of each log
    for push in reversed(told):
        if push["outcome"] in TOLD:
            heard.add(push["worker"])
        elif push["outcome"] in ACCEPTED and push["digest"] not in kept and push["worker"] not in heard:
            yield push


def from_promises(plan: Plan, run: CatalogueRecord, told: list[dict[str, Any]], findings: Findings) -> Arrays:
    """Weights and slots computed from the acknowledgements alone: their versions must be 1, 2, 3, … without a gap, and
    each gradient follows from worker and number. Knows neither the journal nor the rules of the service."""
    layout = layout_of(plan.parameters)
    spec = RunSpec.model_validate(json.loads(run.creation)["spec"])
    arrays = Arrays(spec, layout, first_weights(layout, plan.seed), version=0)
    arrays.fit(spec)
    accepted = sorted((push for push in told if push["outcome"] in ACCEPTED), key=lambda push: push["version"])
    versions = [push["version"] for push in accepted]
    findings.expect(versions == list(range(1, len(versions) + 1)), "acknowledged versions are not 1, 2, 3, …")
    for push in accepted:
        original = push["original"]
        findings.expect(original is None or original["version"] == push["version"], "a duplicate of another version")
        frame = framed(layout, gradient(layout, plan.seed, push["worker"], push["number"]))
        findings.expect(frame.digest == push["digest"], "a gradient with another digest")
        assert arrays.weights is not None
        after = np.empty_like(arrays.weights)
        apply_update(
            arrays.rule, (), weights=arrays.weights, next_weights=after, slots=arrays.slots,
            memory=arrays.memory, terms=[GroupTerms(spec.optimizer.lr, arrays.rule.weight_decay)],
            gradient=Gradient.of(frame, layout), momentum=None, step=arrays.step + 1,
        )  # fmt: skip
        arrays.weights, arrays.step, arrays.version = after, arrays.step + 1, arrays.version + 1
    return arrays


async def from_journal(store: Store, run: CatalogueRecord, records: list[Record]) -> Arrays:
    """Weights and slots by `advance` and `update` over the journal, one thread, in order."""
    control = Control.genesis(run.uid, run.creation, run.genesis)
    arrays = Arrays(control.spec)
    for record in records:
        entry = read_entry(control.position + 1, control.head, record.header, record.hash)
        frame = await payload_of(store, run.uid, record, entry)
        payload = None
        if frame is not None:
            assert frame.digest == entry.header["digest"], f"the payload of entry {entry.position} is another"
            payload = frame.vector() if entry.kind == "load" else Gradient.of(frame, arrays.layout or frame.layout)
        update(arrays, entry, payload)
        advance(control, entry)
    assert (control.version, control.step) == (arrays.version, arrays.step)
    return arrays


def check_served(plan: Plan, arrays: Arrays, findings: Findings, what: str) -> None:
    """What the server served last is bit for bit what was computed here."""
    assert arrays.layout is not None
    assert arrays.weights is not None
    folder = Path(plan.served)
    weights = decode_frame((folder / "weights.safetensors").read_bytes())
    state = decode_frame((folder / "optimizer-state.safetensors").read_bytes())
    same = weights.layout == arrays.layout and bytes(weights.raw) == arrays.weights.tobytes()
    findings.expect(same, f"the served weights differ from {what}")
    slots = {
        f"{slot}/{name}": view
        for slot, vector in arrays.slots.items()
        for name, view in arrays.layout.views(vector).items()
    }
    served = state.layout.views(state.vector())
    findings.expect(served.keys() == slots.keys() and bool(slots), "the served slots have other names")
    for name in served.keys() & slots.keys():
        findings.expect(served[name].tobytes() == slots[name].tobytes(), f"the served {name} differs from {what}")
    known = {"version": str(arrays.version), "step": str(arrays.step)}
    findings.expect({name: state.metadata[name] for name in known} == known, f"version and step differ from {what}")


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(asyncio.run(audit(Plan(**json.loads(sys.argv[1])))))))
