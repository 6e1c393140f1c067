"""One run on this server, as the floors above see it: requests in, answers or `Refused` out."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradserve.problems import Refused, Rejection, refuse
from gradserve.specs import PushFields, RunChanges
from gradserve.wire import Frame, Layout, check_user_names

from ..core.control import Control, WorkerRow
from ..core.gradient import non_finite_tensors
from ..core.machine import (
    Answered,
    Append,
    Configure,
    Leave,
    Load,
    Look,
    Register,
    Report,
    Request,
    Verdict,
    decide,
    made,
)
from ..core.repeats import Made
from ..limits import Limits
from ..store.protocols import RunAbsent, Store, StoreDamaged, StoreFull, StoreUnavailable
from ..store.records import Head, ObjectRef
from .averages import RAW, average_etag, newer_average
from .budget import Budget
from .checkpoints import Checkpoints
from .descriptions import run_json, slots_by_tensor, worker_json
from .heads import HeadReads
from .past import Past
from .proposals import Proposal, push_request
from .published import Published, PushAnswer
from .recovery import State, Workshop
from .restores import Restores
from .sequencer import Sequencer

T = TypeVar("T")


class Replica:
    """Validates and measures what comes, proposes it to the run's task, and words the answers."""

    def __init__(
        self,
        sequencer: Sequencer,
        store: Store,
        shop: Workshop,
        limits: Limits,
        budget: Budget,
        new_key: Callable[[], str],
        relieve: Callable[[], None] = lambda: None,
    ) -> None:
        self._relieve = relieve
        self._sequencer = sequencer
        self._store = store
        self._shop = shop
        self._limits = limits
        self._budget = budget
        self._new_key = new_key
        self._withdrawing: set[asyncio.Task[None]] = set()
        self._heads = HeadReads(store, sequencer.run.uid)
        self.past = Past(sequencer, store, shop, self._look_at, self._fresh)
        self.checkpoints = Checkpoints(
            sequencer.run.uid, store, shop, budget, sequencer.now, self._look_at, self._store_errors,
            sequencer.feed.tell_checkpoint,
        )  # fmt: skip
        self.restores = Restores(sequencer, store, shop, limits, budget, new_key, self._upload, self._store_errors)

    @property
    def name(self) -> str:
        return self._sequencer.run.name

    @property
    def uid(self) -> str:
        return self._sequencer.run.uid

    @property
    def gone(self) -> Rejection | None:
        """Why this run is no more, once that is known."""
        return self._sequencer.gone

    @property
    def published(self) -> Published | None:
        return self._sequencer.published

    @property
    def layout(self) -> Layout | None:
        """The tensors of the run; None before its first weights."""
        return None if self.published is None else self.published.layout

    async def known_layout(self) -> Layout | None:
        """The tensors of the run, also where this server has yet to restore it; None before its first weights."""
        return self.layout or (await self._present()).control.layout

    # Bodies

    async def check_room(self) -> None:
        """Refuse gradients while the store is nearly full: what it needs to recover must still fit. Settings,
        registrations and reads pass."""
        with self._store_errors():
            share = await self._store.memory_pressure()
        if share > self._limits.store_memory_share_relief:
            self._relieve()
        if share > self._limits.store_memory_share_max:
            raise refuse(
                "backpressure",
                f"the store uses {share:.0%} of its memory limit, gradients are taken up to "
                f"{self._limits.store_memory_share_max:.0%}: send the same again later, or give it more memory",
            )

    @contextlib.contextmanager
    def accept_body(self, size: int) -> Iterator[None]:
        """Hold `size` bytes of the server's budget while a body is read and answered. Refused before a byte is read
        when the server, the run's queue or the store is at its limit: a refusal must stay cheap."""
        if self._sequencer.queued >= self._limits.queue_pushes_max:
            seconds = min(
                self._limits.retry_after_seconds_max, math.ceil(self._sequencer.queued * self._sequencer.pace)
            )
            raise refuse(
                "backpressure",
                f"{self._sequencer.queued} pushes wait for run '{self.name}': send the same again in {seconds} s",
                retry_after_seconds=max(1, seconds),
            )
        with self._budget.hold(size):
            yield

    def receive_buffer(self, size: int) -> memoryview:
        """`size` writable bytes for a body; the memory is reused when nothing refers to it any more."""
        return self._shop.buffers.lend(-(-size // 4)).data.cast("B")[:size]

    # Gradients

    async def push(self, worker: str, sequence: int, frame: Frame, fields: PushFields) -> PushAnswer:
        """One gradient. Returns once its entry is journaled and applied (or was before)."""
        said = (worker, sequence, frame, fields)
        if self._goes_early(*said):
            # Both take time and neither needs the other: the payload travels while its norm is taken.
            uploading = asyncio.create_task(self._upload(frame))
            try:
                proposal = await self._measured(*said)
                ref, proposal.timings["store"] = await asyncio.shield(uploading)
            except BaseException:
                uploading.add_done_callback(self._withdraw)
                raise
            proposal.object = ref
        else:
            proposal = await self._measured(*said)
        verdict = await self._propose(proposal)
        published = self.published
        if published is None:
            raise refuse("store-unavailable", "the server rebuilds this run from its journal: send the same again")
        outcome = self._outcome(proposal, verdict)
        return PushAnswer(outcome, published, proposal.timings)

    async def _measured(self, worker: str, sequence: int, frame: Frame, fields: PushFields) -> Proposal:
        """Measure the gradient before the queue. Whether it fits the run is decided in the queue: the layout of now may
        not be the layout of then (the first weights may be in the same batch), and earlier rows of the table speak
        first."""
        started = perf_counter()
        scale = fields.loss_scale
        gradient = await self._shop.gradient(frame, scale)
        non_finite: tuple[str, ...] = ()
        if not gradient.finite:
            non_finite = await self._shop.run(
                frame.layout.parameters, lambda _: tuple(non_finite_tensors(frame, loss_scale=scale))
            )
        push = push_request(worker, sequence, frame, fields, frame.digest, non_finite)
        return self._proposal(push, frame=frame, gradient=gradient, timings={"ingest": perf_counter() - started})

    def _goes_early(self, worker: str, sequence: int, frame: Frame, fields: PushFields) -> bool:
        """Whether the payload goes to the store before the queue, so that it travels while the push before it is
        applied: when it is large, and would be accepted now (its digest and numbers are still unknown)."""
        state = self._sequencer.state
        if frame.size <= self._limits.inline_payload_bytes_max or state is None:
            return False
        return isinstance(decide(state.control, push_request(worker, sequence, frame, fields), 0), Append)

    async def _upload(self, frame: Frame) -> tuple[ObjectRef, float]:
        started = perf_counter()
        with self._store_errors():
            return await self._store.put_object(self.uid, frame.stored()), perf_counter() - started

    def _withdraw(self, uploading: asyncio.Task[tuple[ObjectRef, float]]) -> None:
        """Remove what was uploaded for a push that came to nothing before the queue."""
        if uploading.cancelled() or uploading.exception() is not None:
            return
        task = asyncio.create_task(self._discard(uploading.result()[0]))
        self._withdrawing.add(task)
        task.add_done_callback(self._withdrawing.discard)

    async def _discard(self, ref: ObjectRef) -> None:
        with contextlib.suppress(StoreUnavailable, StoreFull, StoreDamaged, RunAbsent):
            await self._store.discard_object(self.uid, ref)

    def _outcome(self, proposal: Proposal, verdict: Verdict) -> dict[str, Any]:
        row = proposal.row
        assert row is not None
        assert row.outcome is not None
        outcome = self._with_results(row.outcome)
        if isinstance(verdict, Answered):
            outcome = {**outcome, "outcome": "duplicate", "original": outcome}
        return {
            **outcome,
            "durability": self._store.durability,
            "next_sequence": row.next_sequence,
            "receipt": row.receipt,
        }

    def _with_results(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """The recorded outcome with what `update` measured, null where that is kept no longer; rows have `finite` and
        `batch` only where there is something to say."""
        state = self._sequencer.state
        norm = scale = None
        if state is not None and outcome["outcome"] == "applied":
            norm, scale = state.arrays.history.result(outcome["version"])
        return {"finite": True, "batch": None, **outcome, "gradient_norm": norm, "clip_scale": scale}

    async def push_outcome(self, worker: str, sequence: int) -> dict[str, Any]:
        """The recorded outcome of a worker's last push."""
        row = self._known_worker(await self._present(), worker)
        if row.outcome is None or row.last_sequence != sequence:
            raise refuse(
                "push-not-found",
                f"push {sequence} of worker '{worker}' is not kept: the last one was {row.last_sequence}",
                next_sequence=row.next_sequence,
            )
        return {
            **self._with_results(row.outcome),
            "durability": self._store.durability,
            "next_sequence": row.next_sequence,
            "receipt": row.receipt,
        }

    # Workers

    async def register(
        self, worker: str, instance: str, generation: int | None, metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Join, come back, or say "still here"."""
        proposal = self._proposal(Register(worker, instance, generation))
        await self._propose(proposal)
        row, control = proposal.row, self._control()
        assert row is not None
        live = control.live_workers()
        return {
            **worker_json(worker, row),
            "version": control.shown_version,
            "rank": live.index(worker) if worker in live else None,
            "world_size": len(live),
            "lease_seconds": self._limits.lease_seconds,
        }

    async def leave(self, worker: str, generation: int | None, next_sequence: int | None, after: str | None) -> None:
        """Leave the run; the row stays, so that a late duplicate of a push is still known."""
        await self._propose(self._proposal(Leave(worker, generation, next_sequence, after)))

    async def workers(self) -> list[dict[str, Any]]:
        """All rows, by name."""
        rows = (await self._present()).control.workers
        return [worker_json(name, row) for name, row in sorted(rows.items())]

    # Weights

    async def load(
        self,
        frame: Frame,
        *,
        if_none_match: str | None = None,
        if_match: str | None = None,
        idempotency_key: str | None = None,
    ) -> Made:
        """Set the weights. The same request again hears what the first one made."""
        check_user_names(frame.layout)
        digest, non_finite = await self._shop.run(
            frame.layout.parameters, lambda _: (frame.digest, tuple(non_finite_tensors(frame, squares=False)))
        )
        load = Load(
            layout=frame.layout,
            digest=digest,
            size=frame.size,
            codec=frame.dtype,
            non_finite=non_finite,
            if_none_match=if_none_match,
            if_match=if_match,
            idempotency_key=idempotency_key,
            own_key=self._new_key(),
        )
        return made(await self._propose(self._proposal(load, frame=frame)))

    async def check_precondition(self, if_none_match: str | None) -> None:
        """Answer `If-None-Match: *` before a body is read: of eight workers that offer weights, seven need not."""
        if if_none_match == "*" and (state := await self._present()).control.initialised:
            etag = state.control.etag
            raise refuse("precondition-failed", f"expected no weights yet, the run is at {etag}", etag=etag)

    async def weights(
        self, *, of: str = RAW, if_none_match: str | None = None, wait_seconds: float = 0.0
    ) -> Published | None:
        """The newest weights, or an average of them; None when they still are the ones named, after the wait."""
        deadline = asyncio.get_running_loop().time() + min(wait_seconds, self._limits.wait_seconds_max)
        while True:
            head = await self._fresh()
            newest = self.published
            if of != RAW and newest is not None:
                newest = await self._look_at(lambda state: newer_average(state, of, if_none_match))
            if newest is not None and newest.etag != if_none_match:
                return newest
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            with self._store_errors():
                await self._store.wait(self.uid, after=head.position, seconds=left)
        if self.published is None:
            raise refuse("weights-uninitialised", "the run has no weights yet: PUT …/weights first")
        return None

    async def etag(self, of: str) -> str | None:
        """The present ETag of the weights, or of an average of them; None before the first. May be behind the head."""
        if of == RAW or self.published is None:
            return self.published.etag if self.published else None
        return await self._look_at(lambda state: average_etag(state, of))

    async def optimizer_state(self) -> tuple[Layout, NDArray[np.float32], dict[str, str]]:
        """Every slot by tensor, `<slot>/<tensor>`, as one vector behind one layout (a copy, of one moment)."""
        seen = await self._look_at(slots_by_tensor)
        if seen is None:
            raise refuse("weights-uninitialised", "the run has no weights yet: PUT …/weights first")
        return seen

    # Settings and description

    async def configure(self, changes: RunChanges, idempotency_key: str | None = None) -> dict[str, Any]:
        """Change settings, in order with the gradients; answers the run as it is then."""
        await self._propose(self._proposal(Configure(changes, idempotency_key, self._new_key())))
        return run_json(self._sequencer.run, self._state(), self._store.durability)

    async def report(
        self, values: Mapping[str, float], version: int | None, idempotency_key: str | None = None
    ) -> None:
        """Values that were measured outside, put into the order of the run."""
        await self._propose(self._proposal(Report(values, version, idempotency_key, self._new_key())))

    async def describe(self) -> dict[str, Any]:
        """The run, as GET answers it."""
        return run_json(self._sequencer.run, await self._present(), self._store.durability)

    # The way through the queue

    def _proposal(self, request: Request, **brings: Any) -> Proposal:
        return Proposal(request, asyncio.get_running_loop().create_future(), **brings)

    async def _propose(self, proposal: Proposal) -> Verdict:
        verdict = await self._sequencer.propose(proposal)
        if isinstance(verdict, Rejection):
            raise Refused(verdict)
        return verdict

    async def _fresh(self) -> Head:
        """Return once this server's state is known to be the store's, by the head (returned) read after the call."""
        with self._store_errors():
            head = await self._heads.read()
        published = self.published
        if published is None or published.head != head.hash.hex():
            await self._propose(self._proposal(Look()))
        return head

    async def _present(self) -> State:
        """The state at the head, by way of the queue: control and arrays of one position."""
        await self._propose(self._proposal(Look()))
        return self._state()

    async def _look_at(self, look: Callable[[State], T]) -> T:
        """What the look sees of the state at the head, between two entries."""
        proposal = self._proposal(Look(), look=look)
        await self._propose(proposal)
        seen: T = proposal.seen
        return seen

    def _state(self) -> State:
        if self._sequencer.state is None:
            raise refuse("store-unavailable", "the server rebuilds this run from its journal: send the same again")
        return self._sequencer.state

    def _control(self) -> Control:
        return self._state().control

    def _known_worker(self, state: State, worker: str) -> WorkerRow:
        if worker not in state.control.workers:
            raise refuse("worker-not-found", f"run '{self.name}' knows no worker '{worker}'")
        return state.control.workers[worker]

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        """What the store says outside the queue, in the words of the table."""
        try:
            yield
        except StoreUnavailable as error:
            raise refuse("store-unavailable", f"the store does not answer: {error}") from error
        except StoreFull as error:
            raise refuse("backpressure", f"the store has no room: {error}") from error
        except StoreDamaged as error:
            raise refuse("quarantined", f"the store gave back other bytes than were written: {error}") from error
        except RunAbsent as error:
            raise Refused(self._sequencer.vanished(error.deleted)) from error


def check_weights(frame: Frame) -> None:
    """Refuse what cannot be a run's weights, before a run is created for them."""
    check_user_names(frame.layout)
    if not frame.layout.names:
        raise refuse("validation-error", "weights: expected one tensor at least, none came")
    if bad := non_finite_tensors(frame, squares=False):
        raise refuse("validation-error", f"weights: expected finite numbers, NaN or Infinity came in {', '.join(bad)}")
