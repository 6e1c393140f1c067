"""A worker: the synchronous driver of a `WorkerSession`, with a thread for heartbeats and one for `submit`."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from numpy.typing import ArrayLike

from .errors import Closed, Fenced, GradserveError, ServerUnreachable
from .gradients import Gradients, copied_gradients
from .member import LEAVE_SECONDS_MAX, Member, for_at_most
from .messages import Flow, T
from .session import OnStale, Spoken, WorkerSession
from .weights import PushResult, Weights

if TYPE_CHECKING:
    from .client import Client

LOG = logging.getLogger("gradserve")


class Submission(Future[Weights]):
    """A gradient on its way: `result()` waits for the new weights. `push` is what became of it, once it is done."""

    def __init__(self, worker: Worker, talk: Future[PushResult]) -> None:
        super().__init__()
        self._worker = worker
        self.push: PushResult | None = None
        self.collected = False  # has the caller seen how it ended?
        self.set_running_or_notify_cancel()  # what may be on the wire cannot be taken back
        talk.add_done_callback(self._ended)

    def result(self, timeout: float | None = None) -> Weights:
        """The weights after this gradient; raises what the push raised."""
        try:
            weights = super().result(timeout)
        finally:
            self.collected = self.done()
        self._worker._hand_out(weights)
        return weights

    def _ended(self, talk: Future[PushResult]) -> None:
        error = talk.exception()
        if error is not None:
            self.set_exception(error)
            return
        self.push = talk.result()
        assert self.push.weights is not None
        self.set_result(self.push.weights)


class Worker(Member):
    """One worker of a run: `with run.worker("w0") as worker: …`.

    It registers on entry, shows that it lives while gradients are being computed, and leaves on exit. Its pushes are in
    order, one at a time; each is applied exactly once, or the result says that it was not. A push that was interrupted
    or given up stays outstanding, and is delivered before the next one. `GradserveWarning` tells of
    a server that lost acknowledged work (see `session`); the work goes on.

    A gradient belongs to the weights that it was computed at. They are taken to be those that this worker handed out
    last; if they are others, say so with `base=weights`.
    """

    def __init__(
        self, client: Client, session: WorkerSession, *, on_stale: OnStale, heartbeat_seconds: float | None = None
    ) -> None:
        super().__init__(session, on_stale, heartbeat_seconds)
        self._client = client
        self._lock = threading.Lock()  # one conversation at a time
        self._pending: Submission | None = None
        self._thread: ThreadPoolExecutor | None = None  # of `submit`
        self._left = threading.Event()
        self._hurried = threading.Event()  # leaving because of an error, or of Ctrl-C: nobody waits for a server
        self._leave_by: float | None = None  # and then, on the monotonic clock

    # -- verbs

    def pull(self, *, wait_seconds: float = 0.0) -> Weights:
        """The current weights (the same object while they are unchanged); with a wait, once they are newer."""
        self._settle()
        weights = self._talk(self._session.pull(wait_seconds))
        self._hand_out(weights)
        return weights

    def pull_part(self, names: Sequence[str], rows: ArrayLike | None = None) -> Weights:
        """Some tensors of the current weights: whole, or with `rows` these rows of the one tensor that is named, in
        this order. Gradients without a base are then taken to be computed at them."""
        self._settle()
        weights = self._talk(self._session.pull_part(names, rows))
        self._hand_out(weights)
        return weights

    def push(self, gradients: Gradients, *, base: Weights | None = None, **fields: Unpack[Spoken]) -> PushResult:
        """Push one gradient: a dict of arrays, or the flat float32[N] vector in layout order.

        samples  how many samples it is the mean of (a weight in synchronous rounds), 1.0
        loss     for the run's history; one that is not finite is not sent
        cursor   where in the data this gradient ends: kept with it, and given back to a restarted worker
        loss_scale what the loss was multiplied with before its gradient was taken: the server divides by it in float32
        lr       only when the run's schedule is `client`: a number, or a dict of them by group
        on_stale this time, instead of the worker's

        Look at `result.weights`: it is set when the gradient was not applied and the work goes on from there.
        """
        self._settle()
        return self._push(gradients, base, False, fields)

    def step(self, gradients: Gradients, *, base: Weights | None = None, **fields: Unpack[Spoken]) -> Weights:
        """Push one gradient and get the new weights in the same round trip. Fields as in `push`.

        What became of the gradient is in `last_push`.
        """
        self._settle()
        self._push(gradients, base, True, fields)
        assert self._handed is not None
        return self._handed

    def submit(self, gradients: Gradients, *, base: Weights | None = None, **fields: Unpack[Spoken]) -> Submission:
        """`step` in the background: communication overlaps the next gradient. Fields as in `push`.

        The gradients are copied. If one is still on its way, this waits for it first: pushes are in order, one at a
        time. With overlap a gradient is usually computed at older weights than those handed out last: give its `base`.
        """
        self._settle()
        flow = self._flow(copied_gradients(gradients), base, True, fields)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"gradserve-submit-{self.name}")
        self._pending = Submission(self, self._thread.submit(self._drive, flow, self._hurried))
        return self._pending

    # -- life

    def start(self) -> Self:
        """Register, and begin to show that the worker lives. Done by `with`."""
        self._talk(self._session.register())
        threading.Thread(target=self._keep_alive, name=f"gradserve-{self.name}", daemon=True).start()
        return self

    def leave(self) -> None:
        """Wait for what is on its way, and leave the run. Done by `with`; where that ends with an error, nothing is
        tried again, and what is on its way has 10 s left (its thread ends when the client is closed).

        Raises what a `submit` raised whose result nobody asked for. Leaving twice is no error.
        """
        if os.getpid() != self._process:
            return  # a forked child: the worker is its parent's
        self._left.set()
        try:
            self._settle()
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=not self._hurried.is_set())
                self._thread = None
            self._depart()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._leave_by = time.monotonic() + LEAVE_SECONDS_MAX
            self._hurried.set()
        try:
            self.leave()
        except (GradserveError, TimeoutError):
            if error is None:
                raise
            LOG.warning("worker %s: leaving failed after %r", self.name, error, exc_info=True)

    # -- inside

    def _push(self, gradients: Gradients, base: Weights | None, want_weights: bool, fields: Spoken) -> PushResult:
        result = self._talk(self._flow(gradients, base, want_weights, fields))
        self._finish(result)
        return result

    def _talk(self, flow: Flow[T]) -> T:
        """One conversation, from the calling thread."""
        try:
            return self._drive(flow)
        finally:
            self._warn()

    def _drive(self, flow: Flow[T], given_up: threading.Event | None = None) -> T:
        """One conversation, from any thread. What there is to warn of waits for the caller's next word."""
        self._check()  # before the lock: in a forked child nobody would ever give it back
        with self._lock:
            self._check()
            self._spoke = True
            try:
                return self._client.drive(flow, given_up=given_up)
            except Fenced as error:
                self._fenced = error  # whatever comes next, this worker has been replaced
                raise

    def _settle(self) -> None:
        """Wait for the submission before: order is kept, and no failure passes unseen."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        error = pending.exception(self._seconds_left())
        if error is not None and not pending.collected:
            pending.collected = True
            raise error
        self.last_push = pending.push or self.last_push

    def _seconds_left(self) -> float | None:
        """To wait for what is on its way; None: as long as it takes."""
        return None if self._leave_by is None else max(0.0, self._leave_by - time.monotonic())

    def _keep_alive(self) -> None:
        """In a thread: a heartbeat whenever the worker was silent for a third of its lease."""
        pause = self._heartbeat_pause()
        patience = for_at_most(self._client.patience, pause)
        while not self._left.wait(pause):
            if self._spoke or not self._lock.acquire(blocking=False):
                self._spoke = False  # it has said something, or is saying it
                continue
            try:
                self._client.drive(self._session.heartbeat(), patience)
            except Fenced as error:
                self._fenced = error
                return
            except Closed:
                return
            except GradserveError as error:
                LOG.warning("worker %s: heartbeat: %s", self.name, error)
            finally:
                self._lock.release()

    def _depart(self) -> None:
        self._client.forget(self._session)
        if self._gone or self.generation is None or self._fenced is not None:
            self._gone = True
            return
        left = self._seconds_left()
        patience = for_at_most(self._client.patience, LEAVE_SECONDS_MAX if left is None else 0.0)
        free = self._lock.acquire(timeout=-1 if left is None else left)
        try:
            if not free:
                raise ServerUnreachable("a gradient is still on its way")
            self._client.drive(self._session.leave(), patience)
        except GradserveError as error:
            LOG.warning("worker %s: could not leave, the server will notice: %s", self.name, error)
        finally:
            if free:
                self._lock.release()
            self._gone = True
            self._warn()
