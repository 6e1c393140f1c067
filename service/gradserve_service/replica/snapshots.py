"""Snapshots: a shortcut through the chain, written in the background and published by compare-and-set."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Literal

import structlog

from ..core.arrays import Arrays
from ..core.control import Control
from ..core.entries import ChainBroken
from ..core.image import encode_image, image_digest
from ..store.protocols import RunAbsent, Store, StoreDamaged, StoreFull, StoreUnavailable
from ..store.records import CatalogueRecord, ObjectRef, SnapshotRecord
from .recovery import Computed, State, Workshop, digest_of

Retain = Literal["snapshots", "all"]  # of the journal: what recovery needs, or everything for audit and rollback
log = structlog.get_logger("gradserve.snapshots")


def freeze(state: State) -> State:
    """The state at this position as a value: weights by reference; what is written in place is copied."""
    return State(state.control.fork(), state.arrays.copied())


class Snapshots:
    """The snapshots of one run on this server, one at a time, and what those of other servers say of its state.

    diverged  is told of a state that differs from what was published, and where
    """

    def __init__(
        self,
        run: CatalogueRecord,
        store: Store,
        shop: Workshop,
        retain: Retain,
        diverged: Callable[[State, int], None],
    ) -> None:
        self._run, self._store, self._shop, self._retain, self._diverged = run, store, shop, retain, diverged
        self._task: asyncio.Task[bool] | None = None
        self._cut = (0, 0)  # where this server last cut the journal unasked: position of the last due, bytes behind it

    def journal_behind(self, control: Control) -> int:
        """Bytes of journal behind the last snapshot that was due, or the last one that cut it all the same."""
        due, behind = self._cut
        return control.journal_bytes - (behind if due == control.snapshot_position else 0)

    @property
    def idle(self) -> bool:
        """None is on its way."""
        return self._task is None or self._task.done()

    async def start(self, state: State) -> None:
        """Freeze the state now, write it in the background. One at a time: a slow store gets fewer snapshots."""
        if not self.idle:
            return
        try:
            frozen = await self._shop.run(state.parameters, lambda _: freeze(state))
        except MemoryError:
            log.warning("snapshot_not_taken", run=self._run.name, reason="no memory for a copy of the slots")
            return
        self._task = asyncio.create_task(self.write(state, frozen))

    async def write(self, state: State, frozen: State, *, cuts: bool = False) -> bool:
        """Publish what was frozen of the state, or, where another server was first, compare with what it published.
        True: it stands there now, or a newer one does. `cuts`: no snapshot was due, and the journal is cut by it."""
        position = frozen.control.position
        digest = await digest_of(self._shop, frozen.control, frozen.arrays)
        wrote = await write_snapshot(
            self._store,
            self._shop,
            frozen.control,
            frozen.arrays,
            digest,
            retain=self._retain,
            damaged=state.damaged,
        )
        computed = {} if wrote else {position: (frozen.control.head, digest)}
        with contextlib.suppress(
            StoreUnavailable, StoreDamaged, RunAbsent, ChainBroken
        ):  # then it is asked at the next catch-up
            if await differing(self._store, self._run.uid, computed) is not None:
                self._diverged(state, position)
        state.computed.update(computed)
        if not computed and cuts:
            self._cut = (frozen.control.snapshot_position, frozen.control.journal_bytes)
        return not computed

    async def agree(self, state: State, *, restored: bool) -> bool | None:
        """Whether all that was published says the same as the state, which is then safe to serve; None where nobody
        can tell.

        One that was just restored from an older image, because the newest is damaged, may have passed positions of
        which nobody published anything that is kept: to restore it again would bring the same.
        """
        try:
            position = await differing(self._store, self._run.uid, state.computed)
        except ChainBroken as error:
            log.info("state_not_comparable", run=self._run.name, reason=str(error))
            # Else it is restored again, from the newest snapshot: that is as near as the end of the journal.
            return True if restored and state.damaged else None
        if position is not None:
            self._diverged(state, position)
        return not state.wrong  # nor found to be by a snapshot's task meanwhile

    async def finish(self) -> None:
        """Wait for the one on its way."""
        if self._task is not None:
            await self._task

    async def cancel(self) -> None:
        """Give up the one on its way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def differing(store: Store, uid: str, computed: Computed) -> int | None:
    """The first position at which this server computed another state than the one that was published there; None while
    they agree. What is settled leaves `computed`; what is not published yet stays, to be asked for again.

    Raises `ChainBroken` where nobody can tell: newer snapshots took the place of the one to compare with, or the store
    lost a tail, and the snapshot is of another history.
    """
    if not computed:
        return None
    published = {snapshot.position: snapshot for snapshot in await store.snapshots(uid) if snapshot.sound}
    settled = {
        position: computed.pop(position) for position in list(computed) if position <= max(published, default=-1)
    }
    if not settled:
        return None
    both = [(published[position], *ours) for position, ours in settled.items() if position in published]
    for snapshot, head, _ in both:
        if snapshot.hash != head:
            raise ChainBroken(f"the snapshot at {snapshot.position} is of another history than this server's state")
    found = [snapshot.position for snapshot, _, digest in both if snapshot.state != digest]
    if not found and max(settled) not in published:
        raise ChainBroken(f"the snapshot at {max(settled)} is there no more: this server's state cannot be compared")
    return min(found, default=None)


async def write_snapshot(
    store: Store,
    shop: Workshop,
    control: Control,
    arrays: Arrays,
    state: str,
    *,
    retain: Retain,
    damaged: Collection[SnapshotRecord] = (),
) -> bool:
    """Write the frozen state, whose digest is `state`, as an image, publish it, trim the journal unless all of it is to
    be retained.

    The newest snapshot becomes the one that recovery falls back to, so it is read and verified first; a damaged one
    (`damaged`: known already) is replaced. False: another server was first, or the store had no room; the journal
    simply stays longer.
    """
    uid = control.uid
    pieces = encode_image(control, arrays)
    digest = await shop.run(arrays.state_bytes // 4, lambda _: image_digest(pieces))
    try:
        newest = next(iter(await store.snapshots(uid)), None)
        if newest is not None and newest not in damaged and not await is_whole(store, uid, newest):
            log.warning("image_damaged", run_uid=uid, position=newest.position)
            damaged = (*damaged, newest)
        if newest is not None and not _may_follow(newest, control.position, state, whole=newest not in damaged):
            return False
        ref = await store.put_object(uid, pieces)
        record = SnapshotRecord(control.position, control.head, ref, digest, state)
        async with removed_if_full(store, uid, ref):
            published = await store.publish(uid, newest, record, damaged=damaged)
        if not published:
            await store.discard_object(uid, ref)
            return False
        trimmed = await store.trim(uid) if retain == "snapshots" else 0
    except (StoreUnavailable, StoreFull, StoreDamaged, RunAbsent) as error:
        log.warning("snapshot_not_written", run_uid=uid, position=control.position, reason=str(error))
        return False
    log.info("snapshot", run_uid=uid, position=control.position, trimmed_entries=trimmed)
    return True


@contextlib.asynccontextmanager
async def removed_if_full(store: Store, uid: str, ref: ObjectRef) -> AsyncIterator[None]:
    """Inside, an object is given its name. A store without room for that has written nothing, and gets back the room
    that the object takes."""
    try:
        yield
    except StoreFull:
        with contextlib.suppress(StoreUnavailable, StoreDamaged, RunAbsent):
            await store.discard_object(uid, ref)
        raise


def _may_follow(newest: SnapshotRecord, position: int, state: str, *, whole: bool) -> bool:
    """Whether a snapshot may take its place behind the newest. One that is damaged may be replaced at its own position,
    by the same state only: which one counts was settled when it was published."""
    if not newest.sound:
        return True
    return position > newest.position or (not whole and (position, state) == (newest.position, newest.state))


async def is_whole(store: Store, uid: str, snapshot: SnapshotRecord) -> bool:
    """Whether a snapshot's image is in the store as it was written."""
    try:
        return snapshot.sound and await store.object_digest(uid, snapshot.object) == snapshot.digest
    except KeyError:
        return False
