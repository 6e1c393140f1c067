"""A worker for asyncio: the driver of a `WorkerSession` with a task for heartbeats. Many fit into one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from numpy.typing import ArrayLike

from .errors import Closed, Fenced, GradserveError
from .gradients import Gradients
from .member import LEAVE_SECONDS_MAX, Member, for_at_most
from .messages import Flow, T
from .session import OnStale, Spoken, WorkerSession
from .weights import PushResult, Weights

if TYPE_CHECKING:
    from .async_client import AsyncClient

LOG = logging.getLogger("gradserve")


class AsyncWorker(Member):
    """One worker of a run: `async with run.worker("w0") as worker: …`. What its verbs mean is told at `Worker`.

    A cancelled push may have arrived or not: it stays outstanding, and is delivered before the next one. To overlap
    communication with computing, make a task of `step`; gradients must stay unchanged until it is done.
    """

    def __init__(
        self, client: AsyncClient, session: WorkerSession, *, on_stale: OnStale, heartbeat_seconds: float | None = None
    ) -> None:
        super().__init__(session, on_stale, heartbeat_seconds)
        self._client = client
        self._lock = asyncio.Lock()  # one conversation at a time
        self._heartbeats: asyncio.Task[None] | None = None

    # -- verbs

    async def pull(self, *, wait_seconds: float = 0.0) -> Weights:
        """The current weights (the same object while they are unchanged); with a wait, once they are newer."""
        weights = await self._talk(self._session.pull(wait_seconds))
        self._hand_out(weights)
        return weights

    async def pull_part(self, names: Sequence[str], rows: ArrayLike | None = None) -> Weights:
        """Some tensors, or some rows of one; as `Worker.pull_part`."""
        weights = await self._talk(self._session.pull_part(names, rows))
        self._hand_out(weights)
        return weights

    async def push(self, gradients: Gradients, *, base: Weights | None = None, **fields: Unpack[Spoken]) -> PushResult:
        """Push one gradient."""
        return await self._push(gradients, base, False, fields)

    async def step(self, gradients: Gradients, *, base: Weights | None = None, **fields: Unpack[Spoken]) -> Weights:
        """Push one gradient and get the new weights in the same round trip."""
        result = await self._push(gradients, base, True, fields)
        assert result.weights is not None
        return result.weights

    # -- life

    async def start(self) -> Self:
        """Register, and begin to show that the worker lives. Done by `async with`."""
        await self._talk(self._session.register())
        self._heartbeats = asyncio.create_task(self._keep_alive(), name=f"gradserve-{self.name}")
        return self

    async def leave(self) -> None:
        """Leave the run. Done by `async with`. Leaving twice is no error."""
        heartbeats, self._heartbeats = self._heartbeats, None
        if heartbeats is not None:
            heartbeats.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await heartbeats
        await self._depart()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.leave()

    # -- inside

    async def _push(self, gradients: Gradients, base: Weights | None, want_weights: bool, fields: Spoken) -> PushResult:
        async with self._lock:  # two tasks of one worker: the second is computed at what was handed out until then
            result = await self._drive(self._flow(gradients, base, want_weights, fields))
        self._finish(result)
        return result

    async def _talk(self, flow: Flow[T]) -> T:
        async with self._lock:
            return await self._drive(flow)

    async def _drive(self, flow: Flow[T]) -> T:
        self._check()
        self._spoke = True
        try:
            return await self._client.drive(flow)
        except Fenced as error:
            self._fenced = error  # whatever comes next, this worker has been replaced
            raise
        finally:
            self._warn()

    async def _keep_alive(self) -> None:
        """A heartbeat whenever the worker was silent for a third of its lease."""
        pause = self._heartbeat_pause()
        patience = for_at_most(self._client.patience, pause)
        while True:
            await asyncio.sleep(pause)
            if self._spoke or self._lock.locked():
                self._spoke = False  # it has said something, or is saying it
                continue
            try:
                async with self._lock:
                    await self._client.drive(self._session.heartbeat(), patience)
            except Fenced as error:
                self._fenced = error
                return
            except Closed:
                return
            except GradserveError as error:
                LOG.warning("worker %s: heartbeat: %s", self.name, error)

    async def _depart(self) -> None:
        self._client.forget(self._session)
        if self._gone or self.generation is None or self._fenced is not None or os.getpid() != self._process:
            self._gone = True
            return
        try:
            async with self._lock:
                self._gone = True
                await self._client.drive(self._session.leave(), for_at_most(self._client.patience, LEAVE_SECONDS_MAX))
        except GradserveError as error:
            LOG.warning("worker %s: could not leave, the server will notice: %s", self.name, error)
        finally:
            self._warn()
