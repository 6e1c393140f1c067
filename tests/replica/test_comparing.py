"""States that are compared with what was published: only those of one history can differ."""

from __future__ import annotations

from typing import Any

import pytest

from gradserve_service.core.entries import ChainBroken
from gradserve_service.replica.snapshots import differing
from gradserve_service.store.records import ObjectRef, SnapshotRecord

OURS, OTHER = b"\1" * 32, b"\2" * 32


class Published:
    """A store, as far as it is asked here."""

    def __init__(self, *snapshots: SnapshotRecord) -> None:
        self._snapshots = list(snapshots)

    async def snapshots(self, uid: str) -> list[SnapshotRecord]:
        return self._snapshots


def snapshot(position: int, head: bytes, state: str) -> SnapshotRecord:
    return SnapshotRecord(position, head, ObjectRef("image", 7), "d", state)


async def compared(store: Any, position: int, head: bytes, state: str) -> int | None:
    return await differing(store, "u1", {position: (head, state)})


async def test_another_state_of_the_same_history_differs() -> None:
    """One of the two servers computed wrongly."""
    store = Published(snapshot(40, OURS, "theirs"))
    assert await compared(store, 40, OURS, "ours") == 40
    assert await compared(store, 40, OURS, "theirs") is None
    assert await compared(store, 41, OURS, "ours") is None  # not published yet


async def test_a_state_of_a_lost_history_cannot_be_compared() -> None:
    """The store lost a tail, and another server went on: neither server computed wrongly."""
    with pytest.raises(ChainBroken, match="another history"):
        await compared(Published(snapshot(40, OTHER, "theirs")), 40, OURS, "ours")
