"""The one task of a run: take what waits, decide, append, apply, answer.

Everything that changes a run goes through this queue in order. A batch is decided on tentative control state, appended
in one call and adopted when the append succeeded; so there are no locks, many small pushes share one round trip, and a
client that hangs up cancels nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from time import perf_counter
from traceback import format_exception
from typing import TypeVar

import structlog

from gradserve.problems import Refused, Rejection, refuse

from ..core.control import Control
from ..core.entries import ChainBroken
from ..core.machine import Append, Look, Verdict, advance, decide
from ..limits import Limits
from ..store.protocols import RunAbsent, Store, StoreDamaged, StoreFull, StoreUnavailable
from ..store.records import (
    Appended,
    CatalogueRecord,
    Head,
    HeadMoved,
    ObjectsMissing,
    Record,
)
from .events import Feed, Held
from .proposals import Decided, Proposal, name_objects, record_of, take_back
from .published import Published
from .quarantine import Quarantine
from .recovery import Damaged, State, Workshop, catch_up, restore
from .snapshots import Retain, Snapshots, freeze

T = TypeVar("T")
log = structlog.get_logger("gradserve.replica")
DRAINING = Rejection("draining", "the server is shutting down: send the same again, another one will answer")


class Sequencer:
    """Owns the state of one run on this server."""

    def __init__(
        self,
        run: CatalogueRecord,
        store: Store,
        shop: Workshop,
        limits: Limits,
        clock: Callable[[], float],
        draining: Callable[[], bool],
        retain: Retain,
        count_divergence: Callable[[], None],
    ) -> None:
        self.run = run
        self.published: Published | None = None
        self.state: State | None = None
        self.feed = Feed()
        self.gone: Rejection | None = None  # the run is no more: every later request hears this
        self._store = store
        self._shop = shop
        self._limits = limits
        self._clock = clock
        self._draining = draining
        self._snapshots = Snapshots(run, store, shop, retain, self._diverged)
        self._count_divergence = count_divergence
        self._diverged_at: int | None = None
        self._queue: deque[Proposal] = deque()
        self._waiting = asyncio.Event()
        self._idle = asyncio.Event()  # nothing queued, and no batch on its way
        self._idle.set()
        self.pace = 0.0  # seconds a request, of the latest batches
        self._in_doubt = True  # the state may be behind the store's
        self.quarantine = Quarantine(run.name, limits, self._look_again)
        self._task = asyncio.create_task(self._work(), name=f"run {run.name}")

    # What the replica calls

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def state_bytes(self) -> int:
        """Bytes of weights and slots in memory."""
        return 0 if self.state is None else self.state.arrays.state_bytes

    @property
    def idle(self) -> bool:
        """Nothing queued, no batch and no snapshot on its way."""
        return self._idle.is_set() and self._snapshots.idle

    def now(self) -> int:
        """Milliseconds since the epoch: kept as a fact, never a rule."""
        return int(self._clock() * 1000)

    async def propose(self, proposal: Proposal) -> Verdict:
        """Put the request in the queue and wait for its verdict; a caller that goes away leaves it there."""
        if self.gone is not None:
            raise Refused(self.gone)
        self._put(proposal)
        return await asyncio.shield(proposal.answer)

    def _put(self, proposal: Proposal) -> None:
        self._queue.append(proposal)
        self._idle.clear()
        self._waiting.set()

    @property
    def gain_of_snapshot(self) -> int:
        """Bytes of journal behind the last snapshot, less those of a snapshot."""
        state = self.state
        if state is None or not state.control.initialised:  # there is no snapshot of a run without weights
            return 0
        return self._snapshots.journal_behind(state.control) - state.arrays.state_bytes

    async def drain(self) -> None:
        """Answer what is queued, then leave a snapshot so that the next start is quick."""
        await self._idle.wait()
        await self.leave_snapshot()

    async def leave_snapshot(self, *, cuts: bool = False) -> bool:
        """A snapshot of the state at the head, whether one is due or not: is there one? `cuts`: the journal, by it."""
        await self._snapshots.finish()
        if self.state is None or self.gone is not None or not self.state.control.initialised:
            return False
        # Frozen by the run's task, as any look at a whole state: a late reader may still make it catch up.
        look = Proposal(Look(), asyncio.get_running_loop().create_future(), look=freeze)
        refused = isinstance(await self.propose(look), Rejection)
        return not refused and await self._snapshots.write(self.state or look.seen, look.seen, cuts=cuts)

    async def stop(self, why: Rejection) -> None:
        """End the task. What is still queued, and whoever still holds this run, hears why."""
        self.gone = self.gone or why
        self.feed.end()
        self.quarantine.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, self._snapshots.cancel(), return_exceptions=True)
        self._refuse_all(self._queue, why)

    # The task

    async def _work(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._limits.batch_entries_max))]
                began = perf_counter()
                try:
                    await self._settle(batch)
                except asyncio.CancelledError:
                    self._refuse_all(batch, self.gone or DRAINING)
                    raise
                self.pace += ((perf_counter() - began) / len(batch) - self.pace) / 8
            self._idle.set()

    async def _settle(self, batch: list[Proposal]) -> None:
        """Answer every proposal of the batch: with a verdict, or with the reason why there is none now."""
        waiting = batch
        try:
            if self.gone is not None:
                raise Refused(self.gone)
            for _ in range(self._limits.decide_again_max):
                waiting = await self._round(waiting)
                self.quarantine.recovered()
                if not waiting:
                    return
            raise refuse("backpressure", "other servers were faster at this run each time: send the same again")
        except StoreUnavailable as error:
            self._in_doubt = True
            rejection = Rejection("store-unavailable", f"the store does not answer: {error}")
        except StoreFull as error:
            rejection = Rejection("backpressure", f"the store has no room: {error}")
        except RunAbsent as error:
            rejection = self.vanished(error.deleted)
        except StoreDamaged as damage:
            self._drop_state()
            self.quarantine.set_aside(str(damage))
            rejection = self.quarantine.refusal().rejection
        except Refused as refused:
            rejection = refused.rejection
        except Exception as error:  # noqa: BLE001 - the edge of the task: half-written state must not live on
            self._crashed(error)
            rejection = Rejection("store-unavailable", "the server rebuilds this run from its journal: send it again")
        self._refuse_all(batch, rejection)
        for proposal in batch:
            await self._discard(proposal)

    async def _round(self, batch: list[Proposal]) -> list[Proposal]:
        """Decide the batch once; returns the proposals that have to be decided again."""
        brought = self.state is None or self._in_doubt  # to a head that was read after all of them had come
        state = await self._present_state()
        tentative = state.control.fork()
        decided: Decided = []
        records: list[Record] = []
        for proposal in batch:
            verdict = self._verdict(tentative, proposal)
            if isinstance(verdict, Append):
                records.append(await record_of(proposal, verdict.entry, self._store, self.run.uid, self._limits))
                advance(tentative, verdict.entry)
            proposal.row = tentative.row(getattr(proposal.request, "worker", ""))
            decided.append((proposal, verdict))
            if proposal.look is not None or (records and tentative.snapshot_position == tentative.position):
                break  # the look, or the snapshot, is to be of exactly this position
        if (records or not brought) and not await self._stands(state, records, decided):
            return batch
        state.control = tentative
        try:
            await self._apply(state, decided)
        except BaseException:
            self.state, self._in_doubt = None, True  # control is ahead of arrays: neither may be used again
            raise
        return batch[len(decided) :]

    def _verdict(self, tentative: Control, proposal: Proposal) -> Verdict:
        verdict = decide(tentative, proposal.request, self.now())
        if isinstance(verdict, Append) and self._draining():
            return DRAINING
        return verdict

    async def _stands(self, state: State, records: list[Record], decided: Decided) -> bool:
        """Whether the verdicts hold: their entries are on the chain or, where there are none, the chain still ends
        where they were decided. If not, the next round decides again on a state closer to the store's."""
        if not records:
            return self._at(state, await self._store.head(self.run.uid))
        named = name_objects(decided)
        started = perf_counter()
        try:
            result = await self._store.append(self.run.uid, Head(state.control.position, state.control.head), records)
        except StoreFull:
            take_back(named)
            for proposal, _ in decided:
                await self._discard(proposal)
            raise
        except StoreUnavailable:
            # A lost reply and a lost race are the same case: the head tells. But this append may still run.
            result, named = HeadMoved(await self._store.head(self.run.uid)), []
        for proposal, _ in decided:
            proposal.timings["store"] = proposal.timings.get("store", 0.0) + perf_counter() - started
        if isinstance(result, Appended):
            return True
        if isinstance(result, HeadMoved) and result.head.hash == records[-1].hash:
            return True
        take_back(named)
        if isinstance(result, HeadMoved):
            self._at(state, result.head)
            return False
        if isinstance(result, ObjectsMissing):
            for proposal, _ in decided:
                if proposal.object is not None and proposal.object.id in result.ids:
                    # Written again, under another id, from the body held here; nothing can name what is incomplete.
                    proposal.object, proposal.object_named = None, False
            return False
        raise RunAbsent(self.run.uid, deleted=result.deleted)

    def _at(self, state: State, head: Head) -> bool:
        """Whether the state is the store's. If it is behind, catching up is due; if the store's chain is not longer
        and yet another, the store lost a tail, and what is held here is a history that no longer exists."""
        if head.hash == state.control.head:
            return True
        self._in_doubt = True
        if head.position <= state.control.position:
            self.state = None
            self.feed.end()
        return False

    async def _present_state(self) -> State:
        """The state, restored or caught up where it may be behind."""
        if self.state is not None and not self._in_doubt:
            return self.state
        differed = 0
        for _ in range(self._limits.decide_again_max):
            held = Held(self.feed)
            state = await self._caught_up(held) or await self._restored()
            agrees = await self._snapshots.agree(state, restored=state is not self.state)
            if agrees:
                break
            self.state = None
            differed += agrees is not None
            if differed == self._limits.crashes_max:
                self.quarantine.set_aside(
                    f"{differed} times in a row the state that this server computes from the journal was "
                    "not the published one: suspect the memory or the processor of a server"
                )
                raise self.quarantine.refusal()
        else:
            raise refuse("store-unavailable", "snapshots come faster than this server can follow: send it again")
        if state is not self.state and (state.damaged or state.control.snapshot_position > state.restored_from):
            await self._snapshots.start(state)  # it was due and never published, or is damaged
        if state is self.state:
            held.release()  # else it was measured on a state that was lost, or found to be wrong
        state.diverged_at = self._diverged_at
        self.state, self._in_doubt = state, False
        self.feed.skip_to(state.control.position)
        self._publish(state, state.control.position, state.control.head)
        return state

    async def _caught_up(self, held: Held) -> State | None:
        """The state held, with what the journal has behind it; None where it cannot be continued."""
        state = self.state
        if state is None:
            return None
        head = await self._store.head(self.run.uid)
        if not self._at(state, head) and self.state is state:
            try:
                await catch_up(self._store, state, self._shop, self._limits.catch_up_entries, head, held.tell)
            except ChainBroken as error:
                log.warning("history_differs", run=self.run.name, reason=str(error))
                self.feed.end()
                self.state = None
        return self.state

    async def _restored(self) -> State:
        self.published = None
        self.quarantine.check()
        tries, reason = 0, Exception()
        for _ in range(self._limits.decide_again_max):
            before = await self._store.head(self.run.uid)
            try:
                state = await restore(self._store, self.run, self._shop, self._limits.catch_up_entries)
            except ChainBroken as error:
                if await self._store.head(self.run.uid) != before:
                    continue  # appended to or rewound while it was read: that says nothing of what is there now
                reason = error  # or the range was trimmed meanwhile, and there is a newer snapshot now
            except Damaged as error:
                tries, reason = self._limits.crashes_max, error
            else:
                for snapshot in state.damaged:
                    log.warning("image_damaged", run=self.run.name, position=snapshot.position)
                return state
            if (tries := tries + 1) >= self._limits.crashes_max:
                break
        else:
            raise refuse("store-unavailable", "the run's history changed each time while it was read: send it again")
        log.error("run_cannot_be_rebuilt", run=self.run.name, reason=str(reason))
        self.quarantine.set_aside(f"it cannot be rebuilt from its journal: {reason}")
        raise self.quarantine.refusal()

    # After the append

    async def _apply(self, state: State, decided: Decided) -> None:
        appended = False
        for proposal, verdict in decided:
            if isinstance(verdict, Append):
                appended = True
                started = perf_counter()
                await self._shop.apply(state.arrays, verdict.entry, proposal.frame, proposal.gradient)
                proposal.timings["apply"] = perf_counter() - started
                self._publish(state, verdict.entry.position, verdict.entry.hash)
                self.feed.tell(verdict.entry.header, state.arrays.history)
            elif isinstance(verdict, Rejection):
                worker = getattr(proposal.request, "worker", None)
                self.feed.tell_rejection(worker, verdict, state.control.shown_version, self.now())
            if proposal.look is not None:
                verdict = await self._looked(state, proposal, verdict)
            if not proposal.answer.done():
                proposal.answer.set_result(verdict)
            await self._discard(proposal)
        if appended and state.control.snapshot_position == state.control.position:
            await self._snapshots.start(state)

    async def _looked(self, state: State, proposal: Proposal, verdict: Verdict) -> Verdict:
        """Let the proposal look. What goes wrong there is its own affair: the state is whole."""
        assert proposal.look is not None
        try:
            proposal.seen = await self._look(state, proposal.look)
        except Refused as refused:
            return refused.rejection
        except MemoryError:
            return Rejection("backpressure", "the server has no memory for a copy of this run's state now")
        return verdict

    async def _discard(self, proposal: Proposal) -> None:
        """Remove an uploaded payload that no entry came to name. If that fails, the store's own sweep gets it."""
        if proposal.object is not None and not proposal.object_named:
            with contextlib.suppress(StoreUnavailable, StoreFull, StoreDamaged, RunAbsent):
                await self._store.discard_object(self.run.uid, proposal.object)
            proposal.object = None

    async def _look(self, state: State, look: Callable[[State], T]) -> T:
        return await self._shop.run(state.parameters, lambda _: look(state))

    def _publish(self, state: State, position: int, head: bytes) -> None:
        """Let readers see the arrays as they are now, by one assignment. The control state may be some entries ahead:
        the head that goes with the weights is the one of the entry just applied."""
        control, arrays = state.control, state.arrays
        if arrays.weights is not None and arrays.layout is not None:
            self.published = Published(
                weights=arrays.weights,
                layout=arrays.layout,
                version=arrays.version,
                etag=control.etags[arrays.version],
                position=position,
                head=head.hex(),
                step=arrays.step,
            )

    # When it goes wrong

    def _refuse_all(self, proposals: list[Proposal] | deque[Proposal], rejection: Rejection) -> None:
        for proposal in proposals:
            if not proposal.answer.done():
                proposal.answer.set_result(rejection)

    def vanished(self, deleted: bool) -> Rejection:
        """The store holds nothing of this run: what that means for whoever asks."""
        self.state = self.published = None
        self.feed.end()
        if deleted:
            self.gone = Rejection("run-deleted", f"run '{self.run.name}' was deleted")
            return self.gone
        # Not for ever: the operator may bring the store back as it was. It is never created again silently.
        self._in_doubt = True
        return Rejection("store-lost", f"the store no longer holds run '{self.run.name}': restore the store")

    def _diverged(self, state: State, position: int) -> None:
        """Two servers made different states of one journal, so one of them computed wrongly. The published one counts,
        for recovery begins with it: what is held here goes, and is restored before anything else is answered."""
        log.error("state_diverged", run=self.run.name, position=position)
        self._count_divergence()
        state.wrong = True
        self._diverged_at = position
        if self.state is state:
            self.state = self.published = None
            self._in_doubt = True
            self.feed.end()
            self._put(Proposal(Look(), asyncio.get_running_loop().create_future()))  # a batch may be on its way

    def _crashed(self, error: Exception) -> None:
        self._drop_state()
        aside = self.quarantine.failed(type(error).__name__)
        # As text: with exc_info a renderer may show local variables, and a gradient is one of them.
        text = "".join(format_exception(error))
        log.error("run_state_dropped", run=self.run.name, quarantined=aside, exception=text)

    def _drop_state(self) -> None:
        self.state, self._in_doubt = None, True

    def _look_again(self) -> None:
        """A look like any other, by nobody: if the run can be rebuilt by now, it is."""
        if self.gone is None:
            self._put(Proposal(Look(), asyncio.get_running_loop().create_future()))
