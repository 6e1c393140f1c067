"""What the store really holds, with the meaning of `store/protocols.py`.

Every operation is one instant. The state is a value, so that a tail can be lost: the disk then is what it was some
writes ago, and whoever read or wrote meanwhile has seen what no longer exists.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from gradserve_service.store.protocols import RunAbsent
from gradserve_service.store.records import (
    Appended,
    AppendResult,
    CatalogueRecord,
    CheckpointRecord,
    Head,
    HeadMoved,
    ObjectRef,
    ObjectsMissing,
    Record,
    RunGone,
    SnapshotRecord,
)

from .archive import Archive

IMAGE_DATA_BYTES_MIN = 96  # weights and slots of the smallest run are at least as long; the header is before them
WRITES_REMEMBERED = 64  # states that a lost tail may go back to


@dataclass(frozen=True, slots=True)
class Kept:
    """An object's bytes, and when they vanish; None: never, an entry or a snapshot names them."""

    content: bytes
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run's keys."""

    head: Head
    genesis: bytes
    entries: dict[int, Record] = field(default_factory=dict)  # by position, trimmed ones are gone
    objects: dict[str, Kept] = field(default_factory=dict)
    snapshots: tuple[SnapshotRecord, ...] = ()  # newest first, at most two
    checkpoints: dict[str, CheckpointRecord] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything on the disk."""

    catalogue: dict[str, CatalogueRecord] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)


@dataclass(slots=True)
class Checks:
    """What the disk looks at before it writes. Each can be switched off, to see that somebody notices."""

    name_is_free: bool = True  # create: the name does not stand for a living run
    delete_uid: bool = True  # delete: the name still stands for the run that is meant
    head_hash: bool = True  # append: the chain ends in the expected hash
    head_position: bool = True  # append: (with `head_hash` off) at least at the expected position
    objects_complete: bool = True  # append and publish
    publish_expected: bool = True  # publish: the newest snapshot is still the expected one, and this one is newer
    publish_hash: bool = True  # publish: the hash is the journal's at that position
    trim_to_previous: bool = True  # trim: the journal behind the newest snapshot's predecessor stays
    checkpoint_is_free: bool = True  # keep_checkpoint: the name stands for nothing yet


CHECKS = Checks()


class Disk:
    """The one truth. `clock` gives virtual seconds."""

    def __init__(self, clock: Callable[[], float], archive: Archive, object_ttl_seconds: float) -> None:
        self.contents = Contents()
        self.checks = CHECKS
        self._clock = clock
        self._archive = archive
        self._ttl = object_ttl_seconds
        self._before: deque[Contents] = deque(maxlen=WRITES_REMEMBERED)
        self._objects_made = 0
        self._damaged: set[str] = set()
        self._watchers: list[tuple[str, int, asyncio.Future[bool]]] = []
        self.unrecoverable: list[str] = []  # moments at which a server could not have started from a snapshot

    # Catalogue

    def create(self, record: CatalogueRecord) -> CatalogueRecord:
        """See `Store.create`."""
        kept = self.contents.catalogue.get(record.name)
        if kept is not None and not kept.deleted and self.checks.name_is_free:
            return kept
        if record.uid in self.contents.runs:
            assert kept is not None
            return kept
        head = Head(0, record.genesis)
        self._archive.begin(record)
        self._write(
            catalogue={**self.contents.catalogue, record.name: record},
            runs={**self.contents.runs, record.uid: Run(head, record.genesis)},
        )
        self._archive.head_is(record.uid, head.hash)
        self._archive.bound(record.uid, {})
        return record

    def find(self, name: str) -> CatalogueRecord | None:
        """See `Store.find`."""
        return self.contents.catalogue.get(name)

    def names(self, after: str, limit: int) -> list[CatalogueRecord]:
        """See `Store.names`."""
        living = sorted(name for name, record in self.contents.catalogue.items() if not record.deleted)
        return [self.contents.catalogue[name] for name in living if name > after][:limit]

    def delete(self, name: str, uid: str) -> bool:
        """See `Store.delete`."""
        kept = self.contents.catalogue.get(name)
        if kept is None or kept.deleted or (kept.uid != uid and self.checks.delete_uid):
            return False
        uid = kept.uid
        self._archive.delete(uid)
        gone = Run(Head(0, b""), b"", deleted=True)
        self._write(
            catalogue={**self.contents.catalogue, name: dataclasses.replace(kept, deleted=True)},
            runs={**self.contents.runs, uid: gone},
        )
        return True

    # The chain

    def head(self, uid: str) -> Head:
        """See `Store.head`."""
        return self._run(uid).head

    def append(self, uid: str, expected: Head, records: Sequence[Record]) -> AppendResult:
        """See `Store.append`."""
        run = self.contents.runs.get(uid)
        if run is None or run.deleted:
            return RunGone(run is not None)
        if self._moved(run, expected):
            return HeadMoved(run.head)
        named = [record.object for record in records if record.object is not None]
        missing = [ref.id for ref in named if self._object(run, ref) is None]
        if missing and self.checks.objects_complete:
            return ObjectsMissing(tuple(dict.fromkeys(missing)))
        entries = {**run.entries, **{record.position: _settled(record) for record in records}}
        head = Head(records[-1].position, records[-1].hash)
        payloads = [self._payload(run, record) for record in records]
        self._replace(uid, run, head=head, entries=entries, objects=_kept_for_good(run, named))
        self._archive.append(uid, run.head.hash, list(zip(records, payloads, strict=True)))
        return Appended()

    def _moved(self, run: Run, expected: Head) -> bool:
        if self.checks.head_hash:
            return run.head.hash != expected.hash
        return self.checks.head_position and run.head.position != expected.position

    def _payload(self, run: Run, record: Record) -> bytes:
        kept = None if record.object is None else self._object(run, record.object)
        return bytes(record.inline) if kept is None else kept.content

    def read(self, uid: str, after: int, limit: int) -> list[Record]:
        """See `Store.read`."""
        run = self._run(uid)
        return [run.entries[position] for position in sorted(run.entries) if position > after][:limit]

    def watch(self, uid: str, after: int, news: asyncio.Future[bool]) -> None:
        """See `Store.wait`: the future is set once there is an entry behind that position."""
        self._watchers.append((uid, after, news))
        self._wake()

    # Objects

    def put_object(self, uid: str, content: bytes) -> ObjectRef:
        """See `Store.put_object`."""
        self._objects_made += 1
        ref = ObjectRef(f"object{self._objects_made}", len(content))
        run = self.contents.runs.get(uid)
        if run is not None and not run.deleted:
            self._replace(uid, run, objects={**run.objects, ref.id: Kept(content, self._clock() + self._ttl)})
        return ref

    def get_object(self, uid: str, ref: ObjectRef) -> memoryview:
        """See `Store.get_object`."""
        kept = self._object(self._run(uid), ref)
        if kept is None:
            raise KeyError(ref.id)
        return memoryview(kept.content)

    def _object(self, run: Run, ref: ObjectRef) -> Kept | None:
        kept = run.objects.get(ref.id)
        if kept is None or (kept.expires_at is not None and kept.expires_at <= self._clock()):
            return None
        return kept

    def discard_object(self, uid: str, ref: ObjectRef) -> None:
        """See `Store.discard_object`."""
        run = self.contents.runs.get(uid)
        if run is not None and ref.id in run.objects:
            if ref.id in named_objects(run):
                self.unrecoverable.append(f"{ref.id} was discarded, and the run still names it")
            self._replace(uid, run, objects=_without(run.objects, {ref.id}))

    # Snapshots

    def snapshots(self, uid: str) -> list[SnapshotRecord]:
        """See `Store.snapshots`."""
        return list(self._run(uid).snapshots)

    def publish(
        self,
        uid: str,
        expected: SnapshotRecord | None,
        snapshot: SnapshotRecord,
        damaged: Collection[SnapshotRecord] = (),
    ) -> bool:
        """See `Store.publish`."""
        run = self.contents.runs.get(uid)
        if run is None or run.deleted:
            return False
        newest = run.snapshots[0] if run.snapshots else None
        not_newer = newest is not None and newest not in damaged and snapshot.position <= newest.position
        overtaken = newest != expected or not_newer
        if overtaken and self.checks.publish_expected:
            return False
        if self.checks.publish_hash and self._hash_at(run, snapshot.position) != snapshot.hash:
            return False
        kept = self._object(run, snapshot.object)
        if kept is None and self.checks.objects_complete:
            return False
        whole = tuple(old for old in run.snapshots if old not in damaged)[:1]
        dropped = {old.object.id for old in run.snapshots if old not in whole} - {snapshot.object.id}
        objects = _without(_kept_for_good(run, [snapshot.object]), dropped - _named(run))
        self._replace(uid, run, snapshots=(snapshot, *whole), objects=objects)
        if kept is not None:
            self._archive.published(snapshot, kept.content)
        self._look_for_gaps(uid)
        return True

    def _hash_at(self, run: Run, position: int) -> bytes | None:
        if position == run.head.position:
            return run.head.hash
        if position == 0:
            return run.genesis
        return run.entries[position].hash if position in run.entries else None

    def trim(self, uid: str) -> int:
        """See `Store.trim`."""
        run = self.contents.runs.get(uid)
        if run is None or run.deleted:
            return 0
        if len(run.snapshots) < 2 and (self.checks.trim_to_previous or not run.snapshots):
            return 0
        upto = run.snapshots[1 if self.checks.trim_to_previous else 0].position
        entries = {position: record for position, record in run.entries.items() if position > upto}
        gone = {record.object.id for position, record in run.entries.items() if position <= upto and record.object}
        gone -= named_objects(dataclasses.replace(run, entries=entries))
        self._replace(uid, run, entries=entries, objects=_without(run.objects, gone))
        self._look_for_gaps(uid)
        return len(run.entries) - len(entries)

    # Checkpoints

    def checkpoints(self, uid: str) -> list[CheckpointRecord]:
        """See `Store.checkpoints`."""
        kept = self._run(uid).checkpoints
        return [kept[name] for name in sorted(kept)]

    def keep_checkpoint(self, uid: str, checkpoint: CheckpointRecord) -> CheckpointRecord | None:
        """See `Store.keep_checkpoint`."""
        run = self._run(uid)
        bound = run.checkpoints.get(checkpoint.name)
        if bound is not None and self.checks.checkpoint_is_free:
            return bound
        kept = self._object(run, checkpoint.object)
        if kept is None and self.checks.objects_complete:
            return None
        self._replace(
            uid, run, checkpoints={**run.checkpoints, checkpoint.name: checkpoint},
            objects=_kept_for_good(run, [checkpoint.object]),
        )  # fmt: skip
        self._archive.kept(uid, checkpoint, b"" if kept is None else kept.content)
        self._archive.bound(uid, self.contents.runs[uid].checkpoints)
        return checkpoint

    def drop_checkpoint(self, uid: str, name: str) -> bool:
        """See `Store.drop_checkpoint`."""
        run = self._run(uid)
        bound = run.checkpoints.get(name)
        if bound is None:
            return False
        kept = {other: record for other, record in run.checkpoints.items() if other != name}
        self._replace(uid, run, checkpoints=kept, objects=_without(run.objects, {bound.object.id}))
        self._archive.bound(uid, kept)
        return True

    def _look_for_gaps(self, uid: str) -> None:
        run = self.contents.runs[uid]
        positions = [snapshot.position for snapshot in run.snapshots]
        if positions != sorted(set(positions), reverse=True):
            self.unrecoverable.append(f"the newest snapshot is of {positions[0]}, the one before of {positions[1]}")
        for snapshot in run.snapshots:
            missing = [at for at in range(snapshot.position + 1, run.head.position + 1) if at not in run.entries]
            if missing:
                self.unrecoverable.append(f"behind the snapshot of {snapshot.position} entry {missing[0]} is gone")
            if self._hash_at(run, snapshot.position) not in (None, snapshot.hash):
                self.unrecoverable.append(f"the snapshot of {snapshot.position} is of a history that is lost")

    # Faults

    def lose_tail(self, writes: int) -> int:
        """Become what the disk was `writes` writes ago; answers how many entries went with them. A run's creation
        is never lost: a store without it needs its operator, and nothing then goes on by itself."""
        entries = 0
        for _ in range(writes):
            if not self._before or len(self._before[-1].runs) < len(self.contents.runs):
                break
            lost, self.contents = self.contents, self._before.pop()
            entries += sum(run.head.position - self.contents.runs[uid].head.position for uid, run in lost.runs.items())
        for uid, run in self.contents.runs.items():
            if not run.deleted:
                self._archive.head_is(uid, run.head.hash)
                self._archive.bound(uid, run.checkpoints, lost=True)
        return entries

    def damage_newest_snapshot(self, *, whole: bool, byte: int) -> bool:
        """Change one byte of a newest snapshot's image, or lose it whole. Only where the one before is whole: of two
        damaged images nobody recovers."""
        for uid, run in self.contents.runs.items():
            names = [snapshot.object.id for snapshot in run.snapshots]
            if len(names) == 2 and names[0] in run.objects and names[1] not in self._damaged:
                name = names[0]
                self._damaged.add(name)
                content = bytearray(run.objects[name].content)
                content[-1 - byte % IMAGE_DATA_BYTES_MIN] ^= 1
                damaged = {} if whole else {name: Kept(bytes(content), None)}
                self._replace(uid, run, objects={**_without(run.objects, {name}), **damaged})
                return True
        return False

    def rot(self, choice: int) -> bool:
        """Change one byte at the end of a payload in the journal."""
        for uid, run in self.contents.runs.items():
            held = [record for record in run.entries.values() if record.inline or record.object]
            if not held:
                continue
            record = held[choice % len(held)]
            content = bytearray(self._payload(run, record))
            content[-1] ^= 1
            if record.object is None:
                record = dataclasses.replace(record, inline=bytes(content))
                self._replace(uid, run, entries={**run.entries, record.position: record})
            else:
                self._replace(uid, run, objects={**run.objects, record.object.id: Kept(bytes(content), None)})
            return True
        return False

    def living(self, run: Run) -> dict[str, Kept]:
        """A run's objects that have not vanished by themselves."""
        now = self._clock()
        return {key: kept for key, kept in run.objects.items() if kept.expires_at is None or kept.expires_at > now}

    # Inside

    def _run(self, uid: str) -> Run:
        run = self.contents.runs.get(uid)
        if run is None or run.deleted:
            raise RunAbsent(uid, deleted=run is not None)
        return run

    def _replace(self, uid: str, run: Run, **changes: object) -> None:
        self._write(runs={**self.contents.runs, uid: dataclasses.replace(run, **changes)})  # type: ignore[arg-type]

    def _write(self, **changes: object) -> None:
        self._before.append(self.contents)
        self.contents = dataclasses.replace(self.contents, **changes)  # type: ignore[arg-type]
        self._wake()

    def _wake(self) -> None:
        """Tell those who wait for an entry behind a position."""
        waiting, self._watchers = self._watchers, []
        for uid, after, news in waiting:
            run = self.contents.runs.get(uid)
            if news.done():
                continue
            if run is None or run.deleted or run.head.position > after:
                news.set_result(True)
            else:
                self._watchers.append((uid, after, news))


def _settled(record: Record) -> Record:
    return dataclasses.replace(record, inline=bytes(record.inline))


def _kept_for_good(run: Run, refs: Sequence[ObjectRef]) -> dict[str, Kept]:
    """PERSIST."""
    return {**run.objects, **{ref.id: Kept(run.objects[ref.id].content, None) for ref in refs if ref.id in run.objects}}


def _named(run: Run) -> set[str]:
    return {record.object.id for record in run.entries.values() if record.object is not None}


def named_objects(run: Run) -> set[str]:
    """Objects that an entry, a snapshot or a checkpoint names."""
    return _named(run) | {record.object.id for record in (*run.snapshots, *run.checkpoints.values())}


def _without(objects: dict[str, Kept], gone: set[str]) -> dict[str, Kept]:
    return {key: kept for key, kept in objects.items() if key not in gone} if gone else objects
