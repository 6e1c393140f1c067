"""What a run has done, for those who look: its history, its statistics, its journal, and its events as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from gradserve.problems import Refused, refuse

from ..core.entries import ChainBroken, read_entry
from ..core.history import History
from ..core.series import Columns, select
from ..store.protocols import RunAbsent, Store, StoreUnavailable
from ..store.records import Head, Record
from .events import Event, Feed, events_of
from .recovery import State, Workshop
from .sequencer import Sequencer
from .statistics import statistics_json

__all__ = ["Past"]

T = TypeVar("T")
RECORDS_A_READ: Final = 64  # with their payloads they come from the store: 4 MiB at most
HEARTBEAT_SECONDS: Final = 15.0  # proxies cut streams that are silent for longer
FOLLOW_SECONDS: Final = 60.0  # then the wait for other servers' entries is made again


class LookAt(Protocol):
    """Look at the run's state at the present head."""

    def __call__(self, look: Callable[[State], T], /) -> Awaitable[T]: ...


class Past:
    """The reading half of one run on this server."""

    def __init__(
        self,
        sequencer: Sequencer,
        store: Store,
        shop: Workshop,
        look_at: LookAt,
        fresh: Callable[[], Awaitable[Head]],
    ) -> None:
        self._sequencer = sequencer
        self._store = store
        self._shop = shop
        self._look_at = look_at
        self._fresh = fresh
        self._following: asyncio.Task[None] | None = None

    @property
    def _uid(self) -> str:
        return self._sequencer.run.uid

    @property
    def _feed(self) -> Feed:
        return self._sequencer.feed

    async def history(self, series: Sequence[str] | None, since: int, max_points: int | None) -> Columns:
        """Columns of what every update did. Raises `Refused` (validation-error) for a series that is not there."""
        history, tensors = await self._look_at(_frozen_history)
        values = history.nbytes // 8  # beside the event loop where there are many of them
        return await self._shop.run(values, lambda _: select(history, tensors, series, since, max_points))

    async def statistics(self, tolerance: float | None) -> dict[str, Any]:
        """What the last updates did, by tensor, and the rates that the optimizer arrives at."""
        return await self._look_at(lambda state: statistics_json(state, tolerance))

    async def journal(self, since: int, limit: int | None) -> AsyncGenerator[Record]:
        """The entries behind a position that are kept, up to the present head, `limit` at most."""
        head = await self._fresh()
        return self._records(since, head.position, limit)

    async def _records(self, after: int, last: int, limit: int | None = None) -> AsyncGenerator[Record]:
        left = last if limit is None else limit
        link = await self._hash_at(after)
        while after < last and left:
            records = await self._store.read(self._uid, after=after, limit=min(RECORDS_A_READ, left))
            for record in records:
                if record.position > last:
                    return
                if record.position != after + 1:
                    await self._require_trimmed(after, record.position - 1)
                    link = await self._hash_at(record.position - 1)
                _require_link(link, record)
                after, link = record.position, record.hash
                yield record
            if not records:
                return
            left -= len(records)

    async def _require_trimmed(self, after: int, upto: int) -> None:
        """Raises `Refused` where entries are missing that no trim removed: those behind the previous snapshot."""
        kept = await self._store.snapshots(self._uid)
        if len(kept) < 2 or upto > kept[1].position:
            first = await self._store.read(self._uid, after=after, limit=1)
            if [record.position for record in first] != [upto + 1]:  # it lost the trim, and the snapshot, meanwhile
                raise refuse("store-unavailable", "the run's history changed while it was read: send it again")
            raise refuse("quarantined", f"the journal is damaged: entries up to {upto} are missing")

    async def _hash_at(self, position: int) -> bytes | None:
        """The hash of the chain after an entry; None where nothing is kept that says it."""
        if position == 0:
            return self._sequencer.run.genesis
        for record in await self._store.read(self._uid, after=position - 1, limit=1):
            if record.position == position:
                return record.hash
        kept = await self._store.snapshots(self._uid)
        return next((snapshot.hash for snapshot in kept if snapshot.sound and snapshot.position == position), None)

    # Events

    async def events(self, after: int | None) -> AsyncGenerator[Event | None]:
        """The events of every entry behind a position (None: from now on), as they come; None is a heartbeat.

        Ends when the run goes, when the store does not answer or has lost what was told: who comes again sees the
        history as it is then.
        """
        life = -1
        while life != self._feed.life:  # the head is of the history that is told from here on
            life = self._feed.life
            head = await self._fresh()
        if after is None or after <= head.position:
            return self._events(life, head.position if after is None else after)
        published = self._sequencer.published
        version = -1 if published is None else published.version
        # What the reader was told last is not in this history: it hears so at once, and then what is new.
        return self._events(
            life, head.position, self._gap(head.position, after, head.position + 1, head.position, version)
        )

    async def _events(self, life: int, after: int, first: Event | None = None) -> AsyncGenerator[Event | None]:
        if first is not None:
            yield first
        feed = self._feed
        feed.open()
        try:
            self._follow()
            number: int | None = None
            while feed.life == life:
                if number is None and (number := feed.number_behind(after)) is None:
                    async for event in self._from_journal(after, feed.position):
                        after = max(after, event.position or 0)
                        yield event
                    continue
                events = feed.events_from(number)
                if events is None:  # this reader was slow
                    number = None
                    continue
                for event in events:
                    number += 1
                    after = max(after, event.position or 0)
                    yield event
                if not events and not await feed.arrival(number, HEARTBEAT_SECONDS):
                    yield None
        except (StoreUnavailable, RunAbsent):
            pass  # what was told is whole; the answer that has begun cannot say more
        finally:
            feed.close()
            if not feed.readers and self._following is not None:
                self._following.cancel()
                self._following = None  # it ends a turn later: a reader that comes meanwhile needs another

    async def _from_journal(self, after: int, last: int) -> AsyncGenerator[Event]:
        """The events of entries that are not in the ring. Where the journal was trimmed, the first says from where."""
        state = self._sequencer.state
        reached = after
        async for record in self._records(after, last):
            header = json.loads(record.header)
            if record.position > reached + 1:
                yield self._gap(None, reached, record.position, last, header["version_before"])
            reached = record.position
            # What the state measured at this version may be another entry's, of a history that the store has lost.
            history = None
            if state is not None and state.control.was_made_by(header["version_before"] + 1, record.hash):
                history = state.arrays.history
            for event in events_of(header, history):
                yield event
        if reached < last:
            yield self._gap(last, reached, last + 1, last, -1 if state is None else state.control.version)

    def _gap(self, place: int | None, reached: int, kept_from: int, kept_to: int, version: int) -> Event:
        """Entries behind `reached` are not there (any more); `version` is the one that they led to."""
        kept = {"kept_from": kept_from, "kept_to": kept_to}
        shown = version if version >= 0 else None
        return Event(place, "gap", {"position": reached, "version": shown, "at": self._sequencer.now(), **kept})

    def _follow(self) -> None:
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow_others(), name=f"events of {self._sequencer.run.name}")

    async def _follow_others(self) -> None:
        """Apply what other servers append while somebody watches here."""
        try:
            while self._feed.readers:
                if await self._store.wait(self._uid, after=self._feed.position, seconds=FOLLOW_SECONDS):
                    await self._fresh()
        except (Refused, StoreUnavailable, RunAbsent):
            if self._sequencer.state is None:
                self._feed.end()
            else:  # still the store's, as far as is known: at 0 the empty ring would pass for all of its events
                self._feed.interrupt()


def _require_link(previous: bytes | None, record: Record) -> None:
    """Raises `Refused` for an entry that does not continue the chain: damaged bytes are not shown as history."""
    try:
        if previous is not None:
            read_entry(record.position, previous, record.header, record.hash)
        elif json.loads(record.header)["position"] != record.position:
            raise ChainBroken(f"entry {record.position} lies in the wrong place")
    except (ChainBroken, ValueError, LookupError, TypeError) as broken:
        raise refuse("quarantined", f"the journal is damaged: {broken}") from broken


def _frozen_history(state: State) -> tuple[History, tuple[str, ...]]:
    """The history as it is now, and the names of the tensors that it speaks of."""
    layout = state.arrays.layout
    return state.arrays.history.frozen(), () if layout is None else layout.names
