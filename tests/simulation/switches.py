"""How the protections around the rules are switched off: in the store, the run's task, the snapshots and the SDK.

One small patch each, undone at the end of the block: an answer without the look at the head, a check that is not made.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from xxhash import xxh3_128_hexdigest

from gradserve.errors import GradserveError
from gradserve.messages import Flow
from gradserve.session import WorkerSession
from gradserve.weights import PushResult
from gradserve_service.core import image, machine
from gradserve_service.core.entries import Entry
from gradserve_service.replica import recovery, snapshots
from gradserve_service.replica.heads import HeadReads
from gradserve_service.replica.proposals import Decided
from gradserve_service.replica.recovery import Computed, State
from gradserve_service.replica.replica import Replica
from gradserve_service.replica.sequencer import Sequencer
from gradserve_service.store.protocols import StoreUnavailable
from gradserve_service.store.records import AppendResult, Head, HeadMoved, Record, SnapshotRecord

from . import disk
from .store import SimStore

Off = Iterator[None]
UID_DIGITS = 32  # what a server makes up has as many; the operator's keys are words


# The store


def disk_checks(**checks: bool) -> Any:
    """The store does not look at something before it writes."""
    return mock.patch.object(disk, "CHECKS", disk.Checks(**checks))


# The run's task


def append_again() -> Any:
    """An append without a reply is written again, on top of whatever is there: a client with retries of its own."""
    original = SimStore.append

    async def append(self: SimStore, uid: str, expected: Head, records: list[Record]) -> AppendResult:
        try:
            return await original(self, uid, expected, records)
        except StoreUnavailable:
            head = await self.head(uid)
            rewritten: list[Record] = []
            for record in records:
                head, record = _rewritten(head, record)
                rewritten.append(record)
            await original(self, uid, await self.head(uid), rewritten)
            return HeadMoved(head)

    return mock.patch.object(SimStore, "append", append)


def _rewritten(head: Head, record: Record) -> tuple[Head, Record]:
    header = {**json.loads(record.header), "position": head.position + 1}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    digest = hashlib.sha256(head.hash + raw).digest()
    return Head(head.position + 1, digest), dataclasses.replace(
        record, position=head.position + 1, hash=digest, header=raw
    )


def _stands(change: Callable[..., Any]) -> Any:
    """Another `_stands`: it is given the original."""
    original = Sequencer._stands

    async def stands(self: Sequencer, state: Any, records: list[Record], decided: Decided) -> bool:
        return bool(await change(original, self, state, records, decided))

    return mock.patch.object(Sequencer, "_stands", stands)


def answer_first() -> Any:
    """Verdicts are answered while their append is under way."""

    async def stands(original: Any, self: Sequencer, state: Any, records: list[Record], decided: Decided) -> bool:
        for proposal, verdict in decided:
            if records and not proposal.answer.done():
                proposal.answer.set_result(verdict)
        return bool(await original(self, state, records, decided))

    return _stands(stands)


def adopt_first() -> Any:
    """The control state moves on before the append has succeeded, and stays there when it does not."""

    async def stands(original: Any, self: Sequencer, state: Any, records: list[Record], decided: Decided) -> bool:
        before = state.control.fork()
        for _, verdict in decided:
            if isinstance(verdict, machine.Append):
                machine.advance(state.control, verdict.entry)
        return bool(await original(self, dataclasses.replace(state, control=before), records, decided))

    return _stands(stands)


def no_head_check() -> Any:
    """What needs no append is answered from memory."""

    async def stands(original: Any, self: Sequencer, state: Any, records: list[Record], decided: Decided) -> bool:
        return not records or bool(await original(self, state, records, decided))

    return _stands(stands)


def no_fresh_reads() -> Any:
    """Weights are served from memory, once there are any."""
    original = Replica._fresh

    async def fresh(self: Replica) -> Head:
        published = self.published
        return await original(self) if published is None else Head(published.position, bytes.fromhex(published.head))

    return mock.patch.object(Replica, "_fresh", fresh)


def old_head_reads() -> Any:
    """A request shares the head read that is under way, even one that started before it came."""

    async def read(self: HeadReads) -> Head:
        if self._current is None or self._current.done():
            self._current = asyncio.create_task(self._store.head(self._uid))
        return await asyncio.shield(self._current)

    return mock.patch.object(HeadReads, "read", read)


def keep_lost_state() -> Any:
    """A server whose history is no longer the store's waits until the store's is longer."""

    def at(self: Sequencer, state: Any, head: Head) -> bool:
        self._in_doubt = self._in_doubt or head.hash != state.control.head
        return bool(head.hash == state.control.head)

    patches = contextlib.ExitStack()
    patches.enter_context(mock.patch.object(Sequencer, "_at", at))
    patches.enter_context(mock.patch.object(recovery, "_require_reached"))  # it would see to the same
    return patches


# Snapshots and recovery


def unchecked_reads() -> Any:
    """Whatever the store returns is taken for the continuation."""

    def read_entry(position: int, previous: bytes, raw: bytes, claimed: bytes) -> Entry:
        return Entry(json.loads(raw), raw, claimed)

    return mock.patch.object(recovery, "read_entry", read_entry)


def no_image_digest() -> Any:
    """An image is believed."""
    original = image.decode_image

    def decode(image: memoryview, uid: str, creation: bytes, digest: str, *rest: Any) -> Any:
        return original(image, uid, creation, xxh3_128_hexdigest(image), *rest)

    return mock.patch.object(recovery, "decode_image", decode)


def no_payload_digest() -> Any:
    """A payload is believed."""
    original = recovery.payload_of

    async def payload_of(store: Any, uid: str, record: Record, entry: Entry) -> Any:
        frame = await original(store, uid, record, entry)
        if frame is not None:
            frame.__dict__["digest"] = entry.header["digest"]
        return frame

    return mock.patch.object(recovery, "payload_of", payload_of)


def newest_image_only() -> Any:
    """Restoring knows one snapshot."""
    original = SimStore.snapshots

    async def snapshots(self: SimStore, uid: str) -> list[SnapshotRecord]:
        return (await original(self, uid))[:1]

    return mock.patch.object(SimStore, "snapshots", snapshots)


def no_comparison() -> Any:
    """A server does not compare what it computed with what another one published."""

    async def differing(store: Any, uid: str, computed: Computed) -> None:
        computed.clear()

    return mock.patch.object(snapshots, "differing", differing)


def share_slots() -> Any:
    """A snapshot is of slots that go on changing while it is written."""
    original = snapshots.freeze

    def freeze(state: State) -> State:
        frozen = original(state)
        return State(frozen.control, dataclasses.replace(frozen.arrays, slots=state.arrays.slots))

    return mock.patch.object(snapshots, "freeze", freeze)


# The SDK


def resend_rewound() -> Any:
    """A gradient whose place was lost is sent again, under the next sequence and with the present base."""
    push = WorkerSession.push

    def remember(self: WorkerSession, gradients: Any, **said: Any) -> Flow[PushResult]:
        def drop(error: GradserveError) -> Flow[PushResult]:
            yield from self._register_again(error)
            return (yield from push(self, gradients, **{**said, "base": (yield from self.pull())}))

        with mock.patch.object(self, "_drop", drop):
            return (yield from push(self, gradients, **said))

    return mock.patch.object(WorkerSession, "push", remember)
