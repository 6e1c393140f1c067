"""A run, seen from an asyncio client: the verbs of `Run`, awaited. What they mean is told there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from .async_worker import AsyncWorker
from .checkpoints import FilePath, checkpoint_content, whole_file
from .records import Columns
from .run import RunFacts
from .run_session import RunSession
from .session import OnStale
from .watch import AsyncWatch
from .weights import Weights

if TYPE_CHECKING:
    from .async_client import AsyncClient


class AsyncRun(RunFacts):
    """One run of a server, for asyncio. Made by `await client.run(…)`."""

    def __init__(self, client: AsyncClient, session: RunSession, *, rank: int | None = None) -> None:
        self._client = client
        self._session = session
        self._rank = rank

    def worker(
        self, name: str | None = None, *, on_stale: OnStale = "refresh", heartbeat_seconds: float | None = None
    ) -> AsyncWorker:
        """A worker of this run; use it as a context manager."""
        session = self._client.new_session(self._session, name, self._rank)
        return AsyncWorker(self._client, session, on_stale=on_stale, heartbeat_seconds=heartbeat_seconds)

    # -- weights

    async def pull(self, *, weights: str = "raw", wait_seconds: float = 0.0) -> Weights:
        """The current weights, or an average of them; with a wait, once they are newer than those pulled last."""
        return await self._client.drive(self._session.pull(weights, wait_seconds))

    async def pull_part(self, names: Sequence[str], rows: ArrayLike | None = None) -> Weights:
        """Some tensors, or some rows of one; as `Run.pull_part`."""
        return await self._client.drive(self._session.pull_part(names, rows))

    async def optimizer_state(self) -> Weights:
        """Every slot of the optimizer, by tensor: `exp_avg/w`, …"""
        return await self._client.drive(self._session.optimizer_state())

    # -- settings

    async def describe(self) -> dict[str, Any]:
        """The run now: state, version, step, spec, lr, workers, warnings. Raises `RunDeleted`."""
        return await self._client.drive(self._session.describe())

    async def configure(self, *, lr: float | None = None, **changes: Any) -> dict[str, Any]:
        """Change the run while it is running, as one entry of its journal; answers its new description."""
        return await self._client.drive(self._session.configure(lr, changes))

    async def pause(self) -> None:
        """Refuse gradients until `resume`."""
        await self.configure(state="paused")

    async def resume(self) -> None:
        """Take gradients again."""
        await self.configure(state="running")

    async def close(self) -> None:
        """Take no more gradients, for good; the weights can be read."""
        await self.configure(state="closed")

    async def delete(self) -> None:
        """Delete the run with all its weights and history. Deleting a deleted run is no error."""
        await self._client.drive(self._session.delete())

    # -- records

    async def history(
        self, series: str | Sequence[str] | None = None, *, since: int | None = None, max_points: int | None = None
    ) -> Columns:
        """What happened, as NumPy columns of one length: version, step, loss, lr, gradient_norm, update_norm, …."""
        return await self._client.drive(self._session.history(series, since, max_points))

    async def statistics(self) -> dict[str, Any]:
        """Where training stands: samples seen, epoch, norms of each tensor, effective learning rate, warnings."""
        return await self._client.drive(self._session.statistics())

    async def journal(self, since: int = 0) -> list[dict[str, Any]]:
        """The headers of the kept entries with a position > `since`: who did what, in order."""
        return await self._client.drive(self._session.journal(since))

    def watch(self, since: int | None = None) -> AsyncWatch:
        """An iterator over what happens: `async for event in run.watch(): …`. It ends with the run or the client."""
        return AsyncWatch(self._client, self._session, since)

    async def report(self, values: Mapping[str, Any], *, version: int | None = None) -> None:
        """Put evaluation results (`{"accuracy": 0.93}`) into the history."""
        await self._client.drive(self._session.report(values, version))

    async def workers(self) -> list[dict[str, Any]]:
        """The roster: who works for the run, and when each was heard of."""
        return await self._client.drive(self._session.workers())

    # -- checkpoints

    async def checkpoint(self, name: str) -> dict[str, Any]:
        """Keep weights, optimizer state and step under that name. If the name is taken, it stays what it was."""
        return await self._client.drive(self._session.checkpoint(name))

    async def checkpoints(self) -> list[dict[str, Any]]:
        """What is kept: name, version, step, position, etag, bytes, created_at."""
        return await self._client.drive(self._session.checkpoints())

    async def download(self, checkpoint: str, path: FilePath) -> Path:
        """Write a checkpoint into a safetensors file. The file appears when it is whole."""
        with whole_file(path) as file:
            await self._client.drive(self._session.download(checkpoint, file))
        return Path(path)

    async def upload_checkpoint(self, name: str, source: FilePath | Mapping[str, ArrayLike]) -> dict[str, Any]:
        """Make a checkpoint of a safetensors file, or of a dict of arrays. The run itself stays as it is."""
        return await self._client.drive(self._session.checkpoint(name, checkpoint_content(source)))

    async def delete_checkpoint(self, name: str) -> None:
        """Keep it no longer. Deleting what is not there is no error."""
        await self._client.drive(self._session.delete_checkpoint(name))

    async def restore(self, checkpoint: str | None = None, *, version: int | None = None) -> dict[str, Any]:
        """Go back to a checkpoint, or to a version that is still kept. Workers go on; the version goes on rising."""
        return await self._client.drive(self._session.restore(checkpoint, version))

    async def branch(self, name: str, checkpoint: str | None = None, **settings: Any) -> AsyncRun:
        """A new run that starts where a checkpoint of this one stands; None: where this run stands now."""
        session = await self._client.drive(self._session.branch(name, checkpoint, settings))
        return AsyncRun(self._client, session, rank=self._rank)
