"""The simulated disk is a twin of the real stores: the same operations get the same answers."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import AsyncIterator, Callable
from itertools import count
from random import Random
from typing import Any

import pytest

from gradserve.specs import RunSpec
from gradserve_service.core.control import Creation
from gradserve_service.store import Store, open_store
from gradserve_service.store.protocols import RunAbsent
from gradserve_service.store.records import (
    Appended,
    CatalogueRecord,
    CheckpointRecord,
    Head,
    ObjectRef,
    ObjectsMissing,
    Record,
    SnapshotRecord,
)
from simulation.archive import Archive
from simulation.disk import Disk, named_objects

OPERATIONS = 250
OWNERS = ("payload", "image", "checkpoint")
CREATION = Creation(RunSpec.model_validate({"optimizer": "sgd"}), 1, 1, None).to_bytes()


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """A real store of each kind."""
    store = open_store(store_url, "memory")
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("seed", range(4))
async def test_the_disk_answers_as_the_real_stores_do(store: Store, seed: int) -> None:
    """250 random operations, right and wrong ones, on both: head for head, entry for entry, refusal for refusal."""
    ticks = count(1)
    disk = Disk(lambda: 0.0, Archive(lambda: next(ticks)), object_ttl_seconds=1e9)
    twins = Twins(disk, store, Random(seed))
    await twins.create()
    for number in range(OPERATIONS):
        name = twins.random.choice(twins.operations)
        simulated, real = await getattr(twins, name)()
        assert simulated == real, f"operation {number}, {name}"
    assert twins.appended > 10
    assert twins.published > 1


class Twins:
    """One operation on both. Objects have random names: each is known by the order of its making."""

    operations = (
        *("append", "append", "append", "append", "append_elsewhere", "append_nothing_there", "read", "head"),
        *("put_object", "put_object", "put_object", "get_object", "discard_object"),
        *("snapshots", "publish", "publish", "publish", "trim"),
        *("checkpoints", "keep_checkpoint", "keep_checkpoint", "drop_checkpoint"),
        *("create", "find", "names", "delete"),
    )

    def __init__(self, disk: Disk, store: Store, random: Random) -> None:
        self.disk, self.store, self.random = disk, store, random
        self.uid = "none"
        self.end = Head(0, b"")
        self.heads: list[Head] = []
        self.objects: list[tuple[ObjectRef, ObjectRef]] = []  # made on the disk, made in the store
        self.owned: set[str] = set()  # on the disk: an entry, a snapshot or a checkpoint names them, or did
        self.made = self.appended = self.published = 0

    async def create(self) -> Any:
        self.made += 1
        uid = f"u{self.made}"
        genesis = hashlib.sha256(uid.encode()).digest()
        record = CatalogueRecord("digits", uid, CREATION, genesis, 1_700_000_000_000)
        simulated, real = await self._both("create", record)
        if simulated.uid == uid:
            self.uid, self.end, self.heads, self.objects = uid, Head(0, genesis), [Head(0, genesis)], []
        return simulated, real

    async def find(self) -> Any:
        return await self._both("find", "digits")

    async def names(self) -> Any:
        return self.disk.names("", 10), await self.store.names(after="", limit=10)

    async def delete(self) -> Any:
        if self.random.random() < 0.7:
            return None, None
        return await self._both("delete", "digits", self.random.choice((self.uid, "u1")))

    async def append(self) -> Any:
        """One to three entries on the head, with payloads inside, outside or none."""
        return await self._append(self.end, self.random.randint(1, 3))

    async def append_elsewhere(self) -> Any:
        """On a head that was, or never was."""
        wrong = Head(self.end.position, b"\1" * 32)
        return await self._append(self.random.choice([*self.heads[-4:], wrong]), 1)

    async def append_nothing_there(self) -> Any:
        """An entry that names an object which nobody wrote."""
        missing = ObjectRef("nowhere", 7)
        records = [self._record(self.end, missing)]
        return await self._both("append", self.uid, self.end, records)

    async def _append(self, head: Head, number: int) -> Any:
        pairs = []
        end = head
        for _ in range(number):
            kind = self.random.choice(("none", "inline", "object"))
            payloads = self._objects_for("payload")
            payloads = [each for each in payloads if all(pair[0].object != each[0] for pair in pairs)]
            place = self.random.choice(payloads) if kind == "object" and payloads else None
            inline = self.random.randbytes(20) if kind == "inline" else b""
            entry = self._record(end, None, inline)
            pairs.append([dataclasses.replace(entry, object=ref) for ref in place or (None, None)])
            end = Head(entry.position, entry.hash)
        ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
        simulated = await _awaited(lambda: self.disk.append(self.uid, head, ours))
        real = await _awaited(lambda: self.store.append(self.uid, head, theirs))
        if isinstance(simulated, Appended):
            self.end, self.appended = end, self.appended + 1
            self.heads.append(end)
            self.owned |= {record.object.id for record in ours if record.object is not None}
        if isinstance(real, ObjectsMissing):
            real = ObjectsMissing(tuple(self._ours(name) for name in real.ids))
        return str(simulated), str(real)

    def _objects_for(self, what: str) -> list[tuple[ObjectRef, ObjectRef]]:
        """Those that were made to be this and nothing came to name: an object has one owner, for all its time."""
        made = self.objects[OWNERS.index(what) :: len(OWNERS)]
        return [pair for pair in made if pair[0].id not in self.owned]

    def _record(self, head: Head, place: ObjectRef | None, inline: bytes = b"") -> Record:
        header = json.dumps({"position": head.position + 1, "kind": "leave", "n": self.random.random()}).encode()
        return Record(head.position + 1, hashlib.sha256(head.hash + header).digest(), header, inline, place)

    async def read(self) -> Any:
        after, limit = self.random.randint(0, self.end.position), self.random.choice((1, 5, 100))
        simulated = await _awaited(lambda: self.disk.read(self.uid, after, limit))
        real = await _awaited(lambda: self.store.read(self.uid, after=after, limit=limit))
        return simulated, [self._translated(record) for record in real] if isinstance(real, list) else real

    def _translated(self, record: Record) -> Record:
        place = None if record.object is None else ObjectRef(self._ours(record.object.id), record.object.size)
        return dataclasses.replace(record, inline=bytes(record.inline), object=place)

    def _ours(self, name: str) -> str:
        return next((ours.id for ours, theirs in self.objects if theirs.id == name), name)

    async def head(self) -> Any:
        return await self._both("head", self.uid)

    async def put_object(self) -> Any:
        if self.disk.contents.runs[self.uid].deleted:
            return None, None
        content = self.random.randbytes(self.random.choice((1, 100)))
        self.objects.append((self.disk.put_object(self.uid, content), await self.store.put_object(self.uid, [content])))
        return self.objects[-1][0].size, self.objects[-1][1].size

    async def get_object(self) -> Any:
        if not self.objects or self.disk.contents.runs[self.uid].deleted:
            return None, None
        ours, theirs = self.random.choice(self.objects)
        simulated = await _awaited(lambda: self.disk.get_object(self.uid, ours))
        real = await _awaited(lambda: self.store.get_object(self.uid, theirs))
        return tuple(bytes(one) if isinstance(one, memoryview) else "missing" for one in (simulated, real))

    async def discard_object(self) -> Any:
        """Only one that nothing names: the caller knows."""
        kept = self.disk.contents.runs.get(self.uid)
        named = set() if kept is None else named_objects(kept)
        free = [pair for pair in self.objects if pair[0].id not in named]
        if not free:
            return None, None
        ours, theirs = self.random.choice(free)
        self.disk.discard_object(self.uid, ours)
        await self.store.discard_object(self.uid, theirs)
        return None, None

    async def snapshots(self) -> Any:
        simulated = await _awaited(lambda: self.disk.snapshots(self.uid))
        real = await _awaited(lambda: self.store.snapshots(self.uid))
        return simulated, [self._snapshot(one) for one in real] if isinstance(real, list) else real

    def _snapshot(self, snapshot: SnapshotRecord) -> SnapshotRecord:
        ours = ObjectRef(self._ours(snapshot.object.id), snapshot.object.size)
        return dataclasses.replace(snapshot, object=ours)

    async def publish(self) -> Any:
        """Of a head of some time, sometimes with another's hash, sometimes expecting what is not the newest."""
        images = self._objects_for("image")
        if not images:
            return None, None
        at, place = self.random.choice(self.heads[-6:]), self.random.choice(images[-3:])
        digest = b"\2" * 32 if self.random.random() < 0.1 else at.hash
        blind = self.random.random() < 0.2
        answers = [await self._published(side, at.position, digest, place[side], blind) for side in (0, 1)]
        if answers[0] is True:
            self.published += 1
            self.owned.add(place[0].id)
        return tuple(answers)

    async def _published(self, side: int, position: int, digest: bytes, place: ObjectRef, blind: bool) -> Any:
        keeper: Any = (self.disk, self.store)[side]
        kept = await _awaited(lambda: keeper.snapshots(self.uid))
        expected = kept[0] if isinstance(kept, list) and kept and not blind else None
        return await _awaited(lambda: keeper.publish(self.uid, expected, SnapshotRecord(position, digest, place, "d")))

    async def trim(self) -> Any:
        return await self._both("trim", self.uid)

    async def checkpoints(self) -> Any:
        simulated, real = await self._both("checkpoints", self.uid)
        return simulated, [self._checkpoint(one) for one in real] if isinstance(real, list) else real

    def _checkpoint(self, record: CheckpointRecord) -> CheckpointRecord:
        return dataclasses.replace(record, object=ObjectRef(self._ours(record.object.id), record.object.size))

    async def keep_checkpoint(self) -> Any:
        """Under one of three names, so that some are taken; of an object that nothing else names, as its owner does."""
        nowhere = ObjectRef("nowhere", 7)
        pair = self.random.choice([*self._objects_for("checkpoint")[-3:], (nowhere, nowhere)])
        name = self.random.choice(("best", "Last", "v1.0"))
        answers = []
        for keeper, ref in zip((self.disk, self.store), pair, strict=True):
            record = CheckpointRecord(name, ref, 1_700_000_000_000, b'{"version": 3}')
            answers.append(await _awaited(lambda k=keeper, r=record: k.keep_checkpoint(self.uid, r)))
        simulated, real = answers
        if isinstance(simulated, CheckpointRecord) and simulated.object == pair[0]:
            self.owned.add(pair[0].id)
        return simulated, self._checkpoint(real) if isinstance(real, CheckpointRecord) else real

    async def drop_checkpoint(self) -> Any:
        return await self._both("drop_checkpoint", self.uid, self.random.choice(("best", "Last")))

    async def _both(self, name: str, *arguments: Any) -> Any:
        simulated = await _awaited(lambda: getattr(self.disk, name)(*arguments))
        return simulated, await _awaited(lambda: getattr(self.store, name)(*arguments))


async def _awaited(call: Callable[[], Any]) -> Any:
    """The answer, or how it was refused."""
    try:
        answer = call()
        return await answer if inspect.isawaitable(answer) else answer
    except RunAbsent as error:
        return f"absent, deleted: {error.deleted}"
    except KeyError:
        return "missing"
