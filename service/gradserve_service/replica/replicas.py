"""The runs of one server: names to replicas, creation and deletion, start and drain."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from gradserve.problems import Refused, Rejection, refuse
from gradserve.specs import Branch, RunSpec
from gradserve.wire import Buffers

from ..core import numerics
from ..core.control import Creation
from ..core.entries import genesis_hash
from ..limits import Limits
from ..store.protocols import RunAbsent, Store, StoreDamaged, StoreFull, StoreUnavailable, StoreUnfit
from ..store.records import DURABILITY_LEVELS, CatalogueRecord, Durability
from .budget import Budget
from .recovery import Damaged, Workshop, check_creation
from .relief import Relief
from .replica import Replica
from .sequencer import DRAINING, Sequencer
from .snapshots import Retain
from .threads import Threads

log = structlog.get_logger("gradserve.replicas")
REOPENED = Rejection("store-unavailable", "the server opens the run of this name anew: send the same again")
SPARE_BUFFERS = 2  # the next weights and one body of the largest run
STORE_RETRY_SECONDS = 0.5  # between attempts to reach a store that was not there at start


@dataclass(frozen=True, slots=True)
class Holdings:
    """How much a server holds at one moment."""

    runs: int
    state_bytes: int  # weights and slots
    queued: int  # requests that wait for their run's task
    queued_most: int  # … in one run
    body_bytes: int
    divergences: int  # states that differed from the published ones, since the start


class Replicas:
    """What a server holds in memory. The store is the truth; everything here can be dropped and built again."""

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits | None = None,
        durability: Durability = "memory",
        retain: Retain = "snapshots",
        clock: Callable[[], float] = time.time,
        new_uid: Callable[[], str] = lambda: secrets.token_hex(16),
        threads: Threads | None = None,
    ) -> None:
        self.store = store
        self.limits = limits or Limits()
        self.draining = False
        self._wanted = durability
        self._retain = retain
        self._clock = clock
        self._new_uid = new_uid
        self._threads = threads or Threads()
        self._shop = Workshop(self._threads, Buffers(SPARE_BUFFERS), self.limits.inline_parameters_max)
        self._budget = Budget(self.limits.bodies_bytes_max)
        self._open: OrderedDict[str, tuple[Replica, Sequencer]] = OrderedDict()  # the last asked for last
        self._relief = Relief(lambda: [sequencer for _, sequencer in self._open.values()])
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._divergences = 0
        self._numerics: list[str] = []  # why the arithmetic of this machine cannot be trusted

    # Start and end

    async def start(self) -> None:
        """Open the store. One that cannot be reached is tried again in the background; one that would lose what it is
        given raises `StoreUnfit`."""
        self._numerics = numerics.complaints()
        for complaint in self._numerics:
            log.error("numerics", reason=complaint)
        try:
            await self.store.open()
        except (StoreUnavailable, StoreFull) as error:
            log.warning("store_unavailable", url=self.store.url, reason=str(error))
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        while True:
            await asyncio.sleep(STORE_RETRY_SECONDS)
            try:
                await self.store.open()
            except (StoreUnavailable, StoreFull):
                continue
            except StoreUnfit as error:
                log.error("store_unfit", url=self.store.url, reason=str(error))
                continue
            log.info("store_reached", url=self.store.url)
            return

    async def ready(self) -> list[str]:
        """Why this server should get no requests now; empty when it should."""
        reasons = [*(["the server is shutting down"] if self.draining else []), *self._numerics]
        try:
            await self.store.check()
        except (StoreUnavailable, StoreUnfit) as error:
            return [*reasons, f"the store at {self.store.url} is not usable: {error}"]
        if DURABILITY_LEVELS.index(self.store.durability) < DURABILITY_LEVELS.index(self._wanted):
            reasons.append(
                f"durability '{self._wanted}' is wanted, the store gives '{self.store.durability}': "
                "turn on its append-only file (appendonly yes, appendfsync everysec or always), or ask for less"
            )
        return reasons

    async def drain(self) -> None:
        """Take no new gradients, finish what is under way, leave snapshots, close."""
        self.draining = True
        await asyncio.gather(*(sequencer.drain() for _, sequencer in self._open.values()), return_exceptions=True)
        await self.close()

    async def close(self) -> None:
        """Drop everything in memory, at once. Who asks for a run from now on hears that the server goes."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        await self._relief.cancel()
        await asyncio.gather(*(sequencer.stop(DRAINING) for _, sequencer in self._open.values()))
        self._open.clear()
        await self.store.close()
        self._threads.close()

    # Runs

    async def create_run(self, name: str, spec: RunSpec) -> tuple[Replica, bool]:
        """Get or create, without a race. The second value: this call created it."""
        self._require_open()
        uid = self._new_uid()
        if self._held(name) is not None and await self._find(name) is None:
            # A deleted run leaves its record: this name was lost with the store. Never create it again silently.
            raise refuse("store-lost", f"the store no longer holds run '{name}': restore the store, or restart")
        try:
            creation = self._creation(spec, self.store.memory_limit).to_bytes()
            record = CatalogueRecord(name, uid, creation, genesis_hash(uid, creation), int(self._clock() * 1000))
            await self._find(name)  # a damaged record is not written over
            bound = await self.store.create(record)
        except StoreUnavailable as error:
            raise refuse("store-unavailable", f"the store does not answer: {error}") from error
        except StoreFull as error:
            raise refuse("backpressure", f"the store has no room: {error}") from error
        existing = Creation.from_bytes(bound.creation).spec.canonical()
        if bound.uid != uid and existing != spec.canonical():
            raise refuse(
                "run-exists",
                f"run '{name}' exists with another spec; it differs in {_difference(existing, spec.canonical())}: "
                "use its spec, or another name",
                existing=existing,
            )
        return await self._replica(bound), bound.uid == uid

    async def branch_run(self, name: str, branch: Branch, given: Mapping[str, Any]) -> tuple[Replica, bool]:
        """Get or create a run that starts from a checkpoint of another one. A retry completes a half-made branch;
        once it has its weights, the run and the checkpoint that it came from may be gone."""
        record = await self._find(name)
        if record is not None and not record.deleted:
            existing = Creation.from_bytes(record.creation).spec
            if existing.branch == branch:
                replica, _ = await self.create_run(name, RunSpec.branched(existing.canonical(), given))
                if (await replica.known_layout()) is not None:
                    return replica, False
        source = await self.open(branch.run)
        async with source.checkpoints.state(branch.checkpoint) as saved:
            replica, created = await self.create_run(name, RunSpec.branched(saved.spec, given))
            try:
                await replica.restores.adopt(saved, {"branch": branch.model_dump()}, first_only=True)
            except Refused as refused:  # that another request was faster is as good
                if refused.rejection.code != "precondition-failed":
                    raise
        return replica, created

    def _creation(self, spec: RunSpec, store_bytes: int | None) -> Creation:
        share = None if store_bytes is None else int(self.limits.snapshot_store_share * store_bytes)
        return Creation(spec, self.limits.snapshot_journal_bytes_min, self.limits.snapshot_state_factor, share)

    async def open(self, name: str, uid: str | None = None) -> Replica:
        """The replica of a living run. `uid`: the run that the client means, if it says."""
        replica = self._held(name)
        if replica is None or (uid is not None and replica.uid != uid):
            record = await self._find(name)
            if record is None:
                raise refuse("run-not-found", f"there is no run '{name}': create it with PUT /v1/runs/{name}")
            if record.deleted:
                raise refuse("run-deleted", f"run '{name}' was deleted: create it again with PUT /v1/runs/{name}")
            replica = await self._replica(record)
        if uid is not None and replica.uid != uid:
            detail = f"expected run {uid} as '{name}', it is run {replica.uid}: yours was deleted, or never was"
            raise refuse("run-deleted", detail, uid=replica.uid)
        self._open.move_to_end(name)
        return replica

    def _held(self, name: str) -> Replica | None:
        held = self._open.get(name)
        return None if held is None or held[0].gone is not None else held[0]

    def _require_open(self) -> None:
        if self._closed:
            raise Refused(DRAINING)

    async def _find(self, name: str) -> CatalogueRecord | None:
        self._require_open()
        try:
            record = await self.store.find(name)
            if record is not None:
                await self._require_sound(record)
        except StoreUnavailable as error:
            raise refuse("store-unavailable", f"the store does not answer: {error}") from error
        except StoreDamaged as error:
            raise refuse("quarantined", f"the store gave back other bytes than were written: {error}") from error
        return record

    async def _require_sound(self, record: CatalogueRecord) -> None:
        """Raises StoreDamaged for a record that is not the one that was written, and for the mark of a delete that
        the run itself does not bear."""
        if record.deleted:
            with contextlib.suppress(RunAbsent):
                await self.store.head(record.uid)
                raise StoreDamaged(f"the name '{record.name}' is marked deleted, and its run is not")
            return
        try:
            check_creation(record)
        except Damaged as error:
            raise StoreDamaged(str(error)) from error

    async def _replica(self, record: CatalogueRecord) -> Replica:
        await self._make_room()
        while (held := self._open.get(record.name)) is not None:  # looked at again after each wait: no run has two
            if held[0].gone is None and held[0].uid == record.uid:
                return held[0]
            # One of the two records is old, and nobody here knows which: whoever asks again is told.
            await self._forget(record.name, REOPENED)
        self._require_open()
        sequencer = Sequencer(
            record, self.store, self._shop, self.limits, self._clock, lambda: self.draining, self._retain,
            self._count_divergence,
        )  # fmt: skip
        replica = Replica(sequencer, self.store, self._shop, self.limits, self._budget, self._new_uid, self._relief.ask)
        self._open[record.name] = (replica, sequencer)
        return replica

    async def _make_room(self) -> None:
        """Drop idle runs from memory, those asked for longest ago first, while all states are too large together. They
        come back from the store at their next request. Runs that were deleted through another server go with them."""
        for name, each in tuple(self._open.items()):
            if each[0].gone is not None and self._open.get(name) is each:  # not a run that has the name by now
                await self._forget(name, each[0].gone)
        held = {name: sequencer.state_bytes for name, (_, sequencer) in self._open.items()}
        excess = sum(held.values()) - self.limits.states_bytes_max
        for name, size in held.items():
            if excess <= 0:
                return
            if size and name in self._open and self._open[name][1].idle:
                excess -= size
                await self._forget(name, REOPENED)

    async def _forget(self, name: str, why: Rejection) -> None:
        held = self._open.pop(name, None)
        if held is not None:
            await held[1].stop(why)

    async def delete_run(self, name: str, uid: str | None = None) -> None:
        """Delete a run for good. `uid` guards a late repetition from deleting the run that came after."""
        meant = await self._uid_to_delete(name, uid)
        try:
            deleted = await self.store.delete(name, meant)
        except StoreUnavailable as error:
            raise refuse("store-unavailable", f"the store does not answer: {error}") from error
        except StoreFull as error:
            raise refuse("backpressure", f"the store has no room: {error}") from error
        held = self._open.get(name)
        if held is not None and held[0].uid == meant:  # not a run that has the name by now
            await self._forget(name, Rejection("run-deleted", f"run '{name}' was deleted"))
        if not deleted:
            raise refuse("run-deleted", f"run '{name}' was deleted meanwhile")

    async def _uid_to_delete(self, name: str, uid: str | None) -> str:
        """Also of a run that cannot be opened: its record is damaged, and its operator wants to be rid of it."""
        try:
            return (await self.open(name, uid)).uid
        except Refused as refused:
            if refused.rejection.code != "quarantined":
                raise
            with contextlib.suppress(StoreUnavailable, StoreDamaged):
                record = await self.store.find(name)
                if record is not None and not record.deleted and uid in (None, record.uid):
                    return record.uid
            raise

    async def list_runs(self, after: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Name, uid and time of living runs, in name order; without those whose record is damaged. Fewer than `limit`
        are all that there are."""
        sound: list[CatalogueRecord] = []
        try:
            while len(sound) < limit and (page := await self.store.names(after=after, limit=limit - len(sound))):
                sound += [record for record in page if record.sound]
                after = page[-1].name
        except StoreUnavailable as error:
            raise refuse("store-unavailable", f"the store does not answer: {error}") from error
        return [{"name": record.name, "uid": record.uid, "created_at": record.created_at} for record in sound]

    def quarantined(self) -> list[str]:
        """Of every run that is set aside the reason."""
        reasons = (sequencer.quarantine.reason for _, sequencer in self._open.values())
        return [reason for reason in reasons if reason is not None]

    def _count_divergence(self) -> None:
        self._divergences += 1

    def holdings(self) -> Holdings:
        """How much this server holds now."""
        queues = [sequencer.queued for _, sequencer in self._open.values()]
        return Holdings(
            runs=len(self._open),
            state_bytes=sum(sequencer.state_bytes for _, sequencer in self._open.values()),
            queued=sum(queues),
            queued_most=max(queues, default=0),
            body_bytes=self._budget.held_bytes,
            divergences=self._divergences,
        )

    def describe_server(self) -> dict[str, Any]:
        """What a client may want to know of this server before it starts."""
        return {
            "store": {"kind": self.store.kind, "url": self.store.url},
            "durability": self.store.durability,
            "draining": self.draining,
            "runs_in_memory": len(self._open),
            "threads": self._threads.count,
        }


def _difference(there: dict[str, Any], asked: dict[str, Any]) -> str:
    """The fields that differ, `optimizer.lr: 0.1 there, 0.2 asked`, in name order."""
    found: list[str] = []
    for key in sorted(there.keys() | asked.keys()):
        one, other = there.get(key), asked.get(key)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found += [f"{key}.{part}" for part in _difference(one, other).split("; ")]
        else:
            found.append(f"{key}: {one!r} there, {other!r} asked")
    return "; ".join(found)
