"""From the store to a state: restore (snapshot, then replay) and catch up (replay only).

Both read records, check that each continues the chain held, fetch and verify its payload, and apply it with the same
`advance` and `update` as the live path. What cannot be verified is never applied: recovery is bit-identical or loud.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gradserve.problems import Refused
from gradserve.wire import Buffers, Frame, decode_frame

from ..core.arrays import Arrays, Float32, update
from ..core.blocks import RunAll, in_turn
from ..core.control import Control
from ..core.entries import ChainBroken, Entry, genesis_hash, read_entry
from ..core.gradient import Gradient
from ..core.history import History
from ..core.image import DamagedImage, decode_image, state_digest
from ..core.machine import advance
from ..store.protocols import Store
from ..store.records import CatalogueRecord, Head, Record, SnapshotRecord
from .threads import Threads

T = TypeVar("T")
FLOAT32_BYTES = 4
Tell = Callable[[Mapping[str, Any], History], None]
Computed = dict[int, tuple[bytes, str]]  # position → hash of the chain there, digest of the state


@dataclass(slots=True)
class State:
    """A run at one position: control and arrays, always of the same entry."""

    control: Control
    arrays: Arrays
    restored_from: int = 0  # position of the snapshot it began with
    damaged: tuple[SnapshotRecord, ...] = ()  # snapshots that could not be used: the next one takes their place
    computed: Computed = field(default_factory=dict)  # where snapshots were due: what is not compared yet
    wrong: bool = False  # it differs from what was published: nothing may be answered from it
    diverged_at: int | None = None  # where the state before this one was found to differ from what was published

    @property
    def parameters(self) -> int:
        return 0 if self.arrays.layout is None else self.arrays.layout.parameters


class Damaged(Exception):
    """The store gave back other bytes than were written. Nothing of them was applied."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What arithmetic needs around it: threads, buffers, and the size from which threads pay."""

    threads: Threads
    buffers: Buffers
    inline_parameters_max: int

    async def run(self, parameters: int, work: Callable[[RunAll], T]) -> T:
        """Do the work: here when it is small, in a thread, with help for its blocks, when it is large."""
        if parameters <= self.inline_parameters_max:
            return work(in_turn)
        return await self.threads.run(lambda: work(self.threads.run_all))

    async def gradient(self, frame: Frame, loss_scale: float | None) -> Gradient:
        """Digest, norm and finiteness of a gradient. Where it belongs in the run's parameters is for `apply`."""

        def ingest(run_all: RunAll) -> Gradient:
            _ = frame.digest  # of what came, cached in the frame
            return Gradient.measured(frame, run_all, loss_scale, self.buffers.lend)

        return await self.run(frame.layout.parameters, ingest)

    async def apply(self, arrays: Arrays, entry: Entry, frame: Frame | None, gradient: Gradient | None) -> None:
        """`update` on the run's arrays."""
        held, came = arrays.layout, None if frame is None else frame.layout

        def work(run_all: RunAll) -> None:
            payload: Gradient | Float32 | None = None
            if frame is not None and entry.kind == "load":
                payload = frame.vector()
            elif gradient is not None and came is not None and held is not None:
                payload = gradient.placed(came, held)
            update(
                arrays,
                entry,
                payload,
                new_buffer=self.buffers.lend,
                next_buffer=self.buffers.lend_again,
                run_all=run_all,
            )

        await self.run(max((layout.parameters for layout in (held, came) if layout), default=0), work)


async def restore(store: Store, run: CatalogueRecord, shop: Workshop, entries_a_read: int) -> State:
    """The newest snapshot that verifies (else the one before, else nothing), and the journal after it."""
    check_creation(run)
    damaged: list[SnapshotRecord] = []
    for snapshot in await store.snapshots(run.uid):
        state = await _from_snapshot(store, run, snapshot, shop)
        if state is not None:
            break
        damaged.append(snapshot)
    else:
        control = Control.genesis(run.uid, run.creation, run.genesis)
        state = State(control, Arrays(control.spec))
    state.damaged = tuple(damaged)
    # The head is read behind the image: then it is of no earlier position, or one of the two is damaged.
    await catch_up(store, state, shop, entries_a_read, await store.head(run.uid))
    return state


def check_creation(run: CatalogueRecord) -> None:
    """What a run was created with is the beginning of its chain. Raises `Damaged`."""
    if not run.sound or genesis_hash(run.uid, run.creation) != run.genesis:
        raise Damaged(f"the record of run '{run.name}' is not the one that was written")


def _require_reached(control: Control, head: Head) -> None:
    """What was read must lead to the head, exactly: neither a tail that is gone nor a head that fell behind is left out
    silently."""
    if Head(control.position, control.head) != head:
        raise ChainBroken(f"the journal leads to entry {control.position}, the head of the run is {head.position}")


async def _from_snapshot(store: Store, run: CatalogueRecord, snapshot: SnapshotRecord, shop: Workshop) -> State | None:
    if not snapshot.sound:
        return None
    try:
        image = await store.get_object(run.uid, snapshot.object)
        control, arrays = await shop.run(
            len(image) // 4,
            lambda _: decode_image(image, run.uid, run.creation, snapshot.digest, shop.buffers.lend),
        )
    except (KeyError, DamagedImage):
        return None
    if (control.position, control.head) != (snapshot.position, snapshot.hash):
        return None
    return State(control, arrays, restored_from=snapshot.position)


async def catch_up(
    store: Store,
    state: State,
    shop: Workshop,
    entries_a_read: int,
    to: Head,
    tell: Tell = lambda header, history: None,
) -> None:
    """Replay what the journal holds after the state's position up to this head, and tell of each entry. Raises
    `ChainBroken` (also where the head is before the state) or `Damaged`.

    Not up to the journal's end: that of a large run moves on as fast as a second server can follow, and whoever asks
    has a right to the state that was there when the question came, not to one that is never reached.
    """
    async for record in _records(store, state, entries_a_read, to.position):
        tell((await _replay(store, state, shop, record)).header, state.arrays.history)
        if state.control.snapshot_position == state.control.position:
            digest = await digest_of(shop, state.control, state.arrays)
            state.computed[state.control.position] = state.control.head, digest
    _require_reached(state.control, to)


async def digest_of(shop: Workshop, control: Control, arrays: Arrays) -> str:
    """The digest of a state that nobody changes meanwhile."""
    return await shop.run(arrays.state_bytes // FLOAT32_BYTES, lambda _: state_digest(control, arrays))


async def _replay(store: Store, state: State, shop: Workshop, record: Record) -> Entry:
    control = state.control
    entry = read_entry(control.position + 1, control.head, record.header, record.hash)
    if record.position != entry.position:
        raise ChainBroken(f"entry {entry.position} lies where entry {record.position} should")
    frame = await payload_of(store, control.uid, record, entry)
    gradient = None
    if frame is not None and entry.kind == "push":
        gradient = await shop.gradient(frame, entry.header.get("loss_scale"))
    if frame is not None and frame.digest != entry.header["digest"]:
        raise Damaged(f"the payload of entry {entry.position} is not the one that was journaled")
    await shop.apply(state.arrays, entry, frame, gradient)
    advance(control, entry)
    return entry


async def rebuild(store: Store, run: CatalogueRecord, version: int, shop: Workshop, entries_a_read: int) -> State | int:
    """The state right after the entry that made a version, from the newest snapshot at or below it or from the
    journal's beginning; else the oldest version that can be rebuilt. Raises as `catch_up`."""
    oldest = 0
    for snapshot in await store.snapshots(run.uid):
        state = await _from_snapshot(store, run, snapshot, shop)
        if state is not None:
            oldest = max(state.control.version, 0)
            if state.control.version <= version:
                break
    else:
        first = await store.read(run.uid, after=0, limit=1)
        if first and first[0].position > 1:
            return oldest  # the beginning was trimmed
        oldest = 0
        control = Control.genesis(run.uid, run.creation, run.genesis)
        state = State(control, Arrays(control.spec))
    if state.control.version < version:
        head = await store.head(run.uid)
        async for record in _records(store, state, entries_a_read, head.position):
            await _replay(store, state, shop, record)
            if state.control.version == version:
                break
            await asyncio.sleep(0)  # the run goes on meanwhile, and so do others
    return state if state.control.version == version else oldest


async def _records(store: Store, state: State, most: int, last: int) -> AsyncIterator[Record]:
    """The records after the state's position, which whoever takes them moves on, up to the position `last`."""
    while (left := last - state.control.position) > 0:
        records = await store.read(state.control.uid, after=state.control.position, limit=min(most, left))
        if not records:
            return
        for record in records:
            yield record


async def payload_of(store: Store, uid: str, record: Record, entry: Entry) -> Frame | None:
    """The payload of an entry, not yet verified; None for an entry that has none.

    Raises `ChainBroken` when it is gone: entries go together with their payloads, so most likely that range was trimmed
    between the two reads, and there is a newer snapshot now.
    """
    if not entry.header.get("size"):
        return None
    try:
        raw = record.inline if record.object is None else await store.get_object(uid, record.object)
    except KeyError:
        raise ChainBroken(f"the payload of entry {entry.position} is gone") from None
    try:
        return decode_frame(raw, rows=entry.kind == "push")
    except Refused as refused:
        raise Damaged(f"the payload of entry {entry.position} cannot be read: {refused.rejection.detail}") from None
