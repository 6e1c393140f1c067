"""Snapshots: a shortcut through the chain, written in the background and published by compare-and-set."""

from __future__ import annotations

import dataclasses
from typing import Literal

import structlog

from ..core.arrays import Arrays
from ..core.control import Control
from ..core.image import encode_image, image_digest
from ..store.protocols import RunAbsent, Store, StoreFull, StoreUnavailable
from ..store.records import SnapshotRecord
from .recovery import Workshop

Retain = Literal["snapshots", "all"]  # of the journal: what recovery needs, or everything for audit and rollback
log = structlog.get_logger("gradserve.snapshots")


def freeze(control: Control, arrays: Arrays) -> tuple[Control, Arrays]:
    """The state at this position as a value: weights by reference; what is written in place is copied."""
    slots = {name: slot.copy() for name, slot in arrays.slots.items()}
    memory, history = dict(arrays.memory), arrays.history.frozen()
    return control.fork(), dataclasses.replace(arrays, slots=slots, memory=memory, history=history)


async def write_snapshot(store: Store, shop: Workshop, control: Control, arrays: Arrays, *, retain: Retain) -> bool:
    """Write the frozen state as an image, publish it, trim the journal unless all of it is to be
    retained. False: another server was first, or the
    store had no room; the journal simply stays longer."""
    uid = control.uid
    pieces = encode_image(control, arrays)
    digest = await shop.run(arrays.state_bytes // 4, lambda _: image_digest(pieces))
    try:
        newest = next(iter(await store.snapshots(uid)), None)
        if newest is not None and newest.position >= control.position:
            return False
        ref = await store.put_object(uid, pieces)
        published = await store.publish(uid, newest, SnapshotRecord(control.position, control.head, ref, digest))
        if not published:
            await store.discard_object(uid, ref)
            return False
        trimmed = await store.trim(uid) if retain == "snapshots" else 0
    except (StoreUnavailable, StoreFull, RunAbsent) as error:
        log.warning("snapshot_not_written", run_uid=uid, position=control.position, reason=str(error))
        return False
    log.info("snapshot", run_uid=uid, position=control.position, trimmed_entries=trimmed)
    return True
