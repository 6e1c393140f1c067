"""What happens in a run, as those who watch it are told: one event an entry, and a few without one.

While somebody watches, the latest events are kept in a ring that all readers share. A reader that falls behind it goes
on with the journal, so that a slow one holds no memory. While nobody watches, nothing is kept at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from gradserve.problems import Rejection

from ..core.history import History

__all__ = ["Event", "Feed", "Held", "events_of"]

EVENTS_KEPT: Final = 1_024
REJECTIONS_A_SECOND: Final = 20  # more say nothing new, and each costs every reader


@dataclass(frozen=True, slots=True)
class Event:
    """`position` of the entry that it tells of; None where it tells of none, or of the entry of the next event."""

    position: int | None
    kind: str
    fields: Mapping[str, Any]


def events_of(header: Mapping[str, Any], history: History | None) -> Iterator[Event]:
    """The events of one entry. `history` adds what its update measured, as far as that is kept."""
    position, kind, before = header["position"], header["kind"], header["version_before"]
    made = kind == "load" or (kind == "push" and header["update"] is not None)
    version = before + 1 if made else before
    base = {"position": position, "version": version if version >= 0 else None, "at": header["at"]}
    if kind == "push" and made:
        for warning in () if history is None else history.warnings:
            if warning.version == version:
                yield Event(None, "warning", {**base, "warning": warning.kind, "text": warning.text})
        yield Event(position, "update", {**base, **_update(header, history, version)})
    elif kind == "push" and header["outcome"] == "contributed":
        yield Event(position, "contribution", {**base, **_contributed(header)})
    elif kind == "push":
        yield Event(position, "rejection", {**base, **_refused(header)})
    elif kind in ("join", "leave", "evict"):
        fields = {"worker": header["worker"], "action": kind, "generation": header["generation"]}
        yield Event(position, "worker", {**base, **fields})
    elif kind == "configure":
        yield Event(position, "configure", {**base, "state": header["state"], "spec": header["spec"]})
    elif kind == "report":
        yield Event(position, "report", {**base, "version": header["version"], "values": header["values"]})
    else:
        source = header.get("source")
        yield Event(position, kind, {**base, "action": kind} if source is None else _restored(base, source))


def _update(header: Mapping[str, Any], history: History | None, version: int) -> dict[str, Any]:
    row = None if history is None else history.row(version)
    told: Mapping[str, Any] = header.get("batch") or {
        "loss": header["loss"],
        "staleness": header["version_before"] - header["base"],
        "samples": header["samples"],
    }
    return {
        "step": header["step_before"] + 1,
        "worker": header["worker"],
        "sequence": header["sequence"],
        "loss": told["loss"],
        "lr": header["update"]["lr"],
        "gradient_norm": None if row is None else row.gradient_norm,
        "update_norm": None if row is None else row.update_norm,
        "clip_scale": None if row is None else row.clip_scale,
        "staleness": told["staleness"],
        "samples": told["samples"],
        **({"pushes": told["pushes"]} if "pushes" in told else {}),
    }


def _contributed(header: Mapping[str, Any]) -> dict[str, Any]:
    """A gradient that waits for its batch, and the batch with it."""
    return {
        "worker": header["worker"],
        "sequence": header["sequence"],
        "loss": header["loss"],
        "staleness": header["version_before"] - header["base"],
        "samples": header["samples"],
        "batch": {name: header["batch"][name] for name in ("pushes", "samples")},
    }


def _restored(base: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    return {**base, "action": "restore", "source": dict(source)}


def _refused(header: Mapping[str, Any]) -> dict[str, Any]:
    """A gradient that was left out by the run's own policy."""
    return {
        "worker": header["worker"],
        "sequence": header["sequence"],
        "code": "non-finite-gradient",
        "outcome": header["outcome"],
        **({"state": header["state"]} if "state" in header else {}),
    }


class Held:
    """What there is to tell of entries whose state may still turn out to be miscomputed: nobody must hear of that."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._seen: deque[tuple[int, tuple[Event, ...] | None]] = deque(maxlen=EVENTS_KEPT)

    def tell(self, header: Mapping[str, Any], history: History) -> None:
        """As `Feed.tell`, for later."""
        events = tuple(events_of(header, history)) if self._feed.readers else None
        self._seen.append((header["position"], events))

    def release(self) -> None:
        """It is so. Of what nobody listened to, or was too long ago to be kept, the journal tells."""
        for position, events in self._seen:
            self._feed.skip_to(position - 1 if events is not None else position)
            self._feed.add(position, events or ())


class Feed:
    """The latest events of one run on this server."""

    def __init__(self) -> None:
        self.position = 0  # of the last entry that this server applied
        self.readers = 0
        self.life = 0  # rises when what readers were told is no longer the history, or the run goes: they come again
        self._ring: deque[Event] = deque()
        self._first = 0  # number of the ring's first event
        self._complete_after = 0  # of every entry behind this position the ring has its events
        self._arrived = asyncio.Event()
        self._rejections = 0
        self._second = 0

    # What the run's task tells

    def tell(self, header: Mapping[str, Any], history: History) -> None:
        """An entry was applied."""
        self.add(header["position"], tuple(events_of(header, history)) if self.readers else ())

    def add(self, position: int, events: Iterable[Event]) -> None:
        """What there is to tell of the entry at this position."""
        if position <= self.position:
            return  # a state that was built again
        self.position = position
        if self.readers:
            for event in events:
                self._add(event)
            self._wake()

    def tell_rejection(self, worker: str | None, rejection: Rejection, version: int | None, at: int) -> None:
        """A request was refused here. Nothing of it is in the journal."""
        if self._second != at // 1000:
            self._second, self._rejections = at // 1000, 0
        self._rejections += 1
        if self.readers and self._rejections <= REJECTIONS_A_SECOND:
            fields = {"worker": worker, "code": rejection.code, "detail": rejection.detail}
            self._add(Event(None, "rejection", {"position": self.position, "version": version, "at": at, **fields}))
            self._wake()

    def tell_checkpoint(self, item: Mapping[str, Any], at: int) -> None:
        """A checkpoint was made here: its own version (null: it is from outside), at the run's position of now."""
        if self.readers:
            said = {name: item[name] for name in ("name", "step", "etag", "bytes")}
            place = {"position": self.position, "version": item["version"], "at": at}
            self._add(Event(None, "checkpoint", {**place, **said}))
            self._wake()

    def skip_to(self, position: int) -> None:
        """Of the entries before it nothing is told here: the state was built from a snapshot, or nobody listened."""
        if position > self.position:
            self.position = position
            self._empty()
            self._wake()

    def end(self) -> None:
        """The history that was told is no more, or the run goes: whoever reads has to come again."""
        self.position = 0
        self.interrupt()

    def interrupt(self) -> None:
        """Whoever reads has to come again. What was applied here stays, but of what comes now nothing may be heard."""
        self.life += 1
        self._empty()
        self._wake()

    def _add(self, event: Event) -> None:
        self._ring.append(event)
        if len(self._ring) > EVENTS_KEPT:
            dropped = self._ring.popleft()
            self._first += 1
            self._complete_after = dropped.position or self._complete_after

    def _empty(self) -> None:
        # One more: who has read all that was here would else take the next event for the one behind it.
        self._first += len(self._ring) + 1
        self._ring.clear()
        self._complete_after = self.position

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    # What readers ask

    def open(self) -> None:
        """One more reads."""
        self.readers += 1
        if self.readers == 1:
            self._empty()

    def close(self) -> None:
        """One less."""
        self.readers -= 1
        if not self.readers:
            self._empty()

    def number_behind(self, position: int) -> int | None:
        """The number of the first event behind a position; None when only the journal has it."""
        if position < self._complete_after:
            return None
        behind = (i for i, event in enumerate(self._ring, self._first) if (event.position or 0) > position)
        first = next(behind, self._first + len(self._ring))
        while first > self._first and self._ring[first - 1 - self._first].position is None and first < self._end:
            first -= 1  # the warnings of that entry come before it
        return first

    def events_from(self, number: int) -> list[Event] | None:
        """The events from this number on; None when they are no longer here."""
        if number < self._first:
            return None
        return list(islice(self._ring, number - self._first, None))

    @property
    def _end(self) -> int:
        return self._first + len(self._ring)

    async def arrival(self, number: int, seconds: float) -> bool:
        """Wait for the event of this number, or for the end of this life: False after the time."""
        try:
            async with asyncio.timeout(seconds):
                life = self.life
                while self._end <= number and self.life == life:
                    await self._arrived.wait()
        except TimeoutError:
            return False
        return True
