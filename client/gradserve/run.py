"""A run, seen from a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from .checkpoints import FilePath, checkpoint_content, whole_file
from .records import Columns
from .run_session import RunSession
from .session import OnStale
from .watch import Watch
from .weights import Weights
from .worker import Worker

if TYPE_CHECKING:
    from .client import Client


class RunFacts:
    """What a `Run` and an `AsyncRun` know without asking.

    name, uid    which run (a later run of the same name has another uid: requests to this one are then refused)
    description  the run when it was last asked; `describe()` asks again
    """

    _session: RunSession

    @property
    def name(self) -> str:
        """Its name."""
        return self._session.key.name

    @property
    def uid(self) -> str:
        """What tells it from other runs of that name."""
        return self._session.key.uid

    @property
    def description(self) -> dict[str, Any]:
        """State, version, step, spec, lr, workers, warnings, as last answered."""
        return self._session.description

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, uid {self.uid}>"


class Run(RunFacts):
    """One run of a server: its weights, its settings, its workers, its past. Made by `client.run`."""

    def __init__(self, client: Client, session: RunSession, *, rank: int | None = None) -> None:
        self._client = client
        self._session = session
        self._rank = rank

    def worker(
        self, name: str | None = None, *, on_stale: OnStale = "refresh", heartbeat_seconds: float | None = None
    ) -> Worker:
        """A worker of this run; use it as a context manager.

        name      the worker's identity across restarts (its cursor is kept under it); default `worker-<rank>`, or
                  `<host>-<process id>` when the environment gives no rank. One living process a name: a newer one
                  fences this
        on_stale  what to do when a gradient is refused as too old: `refresh` drops it and pulls, `resubmit` sends it
                  again as if computed at the current weights, `raise` raises `StaleGradient`
        heartbeat_seconds  how long it may be silent before it shows that it lives; default a third of its lease
        """
        session = self._client.new_session(self._session, name, self._rank)
        return Worker(self._client, session, on_stale=on_stale, heartbeat_seconds=heartbeat_seconds)

    # -- weights

    def pull(self, *, weights: str = "raw", wait_seconds: float = 0.0) -> Weights:
        """The current weights; with a wait, as soon as they are newer than those pulled last.

        weights  `raw`, or `average` for the average of them that the run keeps (also by its name: `ema`, `swa`, `slow`;
                 `x`, `ax`: the optimizer's own). Raises `ValidationError` where it keeps none. Gradients are computed
                 at the raw ones

        A run without weights gets them from rank 0's `init`; otherwise this waits for them.
        """
        return self._client.drive(self._session.pull(weights, wait_seconds))

    def pull_part(self, names: Sequence[str], rows: ArrayLike | None = None) -> Weights:
        """Some tensors of the current weights, a part of what `pull` gives: whole, or with `rows` these rows of the one
        tensor that is named, in this order. Nothing is kept for `pull`."""
        return self._client.drive(self._session.pull_part(names, rows))

    def optimizer_state(self) -> Weights:
        """Every slot of the optimizer, by tensor: `exp_avg/w`, …"""
        return self._client.drive(self._session.optimizer_state())

    # -- settings

    def describe(self) -> dict[str, Any]:
        """The run now: state, version, step, spec, lr, workers, warnings. Raises `RunDeleted`."""
        return self._client.drive(self._session.describe())

    def configure(self, *, lr: float | None = None, **changes: Any) -> dict[str, Any]:
        """Change the run while it is running, as one entry of its journal; answers its new description.

        lr and `optimizer={…}` are merged into the optimizer; `schedule`, `clip`, `aggregation`, `staleness`,
        `accumulate`, `groups` and `average` are replaced whole (specs or dicts). NumPy's scalars are numbers. Raises
        `ValidationError`.
        """
        return self._client.drive(self._session.configure(lr, changes))

    def pause(self) -> None:
        """Refuse gradients until `resume`."""
        self.configure(state="paused")

    def resume(self) -> None:
        """Take gradients again."""
        self.configure(state="running")

    def close(self) -> None:
        """Take no more gradients, for good; the weights can be read."""
        self.configure(state="closed")

    def delete(self) -> None:
        """Delete the run with all its weights and history. Deleting a deleted run is no error."""
        self._client.drive(self._session.delete())

    # -- records

    def history(
        self, series: str | Sequence[str] | None = None, *, since: int | None = None, max_points: int | None = None
    ) -> Columns:
        """What happened, as NumPy columns of one length: version, step, loss, lr, gradient_norm, update_norm, ….

        series      only these: names, `metrics/<name>` of what was reported, `gradient_norm/<tensor>`
        since       only what came after that version
        max_points  thinned out to at most so many

        Whole numbers are int64; a column with gaps is float64 with NaN in them.
        """
        return self._client.drive(self._session.history(series, since, max_points))

    def statistics(self) -> dict[str, Any]:
        """Where training stands: samples seen, epoch, norms of each tensor, effective learning rate, warnings."""
        return self._client.drive(self._session.statistics())

    def journal(self, since: int = 0) -> list[dict[str, Any]]:
        """The headers of the kept entries with a position > `since`: who did what, in order."""
        return self._client.drive(self._session.journal(since))

    def watch(self, since: int | None = None) -> Watch:
        """An iterator over what happens: `for event in run.watch(): …`. It ends when the run or the client is closed.

        since  a position: first what came after it; None: only what is new
        """
        return Watch(self._client, self._session, since)

    def report(self, values: Mapping[str, Any], *, version: int | None = None) -> None:
        """Put evaluation results (`{"accuracy": 0.93}`) into the history; `reduce_on_plateau` may follow one of them.

        version  that was evaluated; None: the current one
        """
        self._client.drive(self._session.report(values, version))

    def workers(self) -> list[dict[str, Any]]:
        """The roster: who works for the run, and when each was heard of."""
        return self._client.drive(self._session.workers())

    # -- checkpoints

    def checkpoint(self, name: str) -> dict[str, Any]:
        """Keep weights, optimizer state and step under that name. If the name is taken, it stays what it was."""
        return self._client.drive(self._session.checkpoint(name))

    def checkpoints(self) -> list[dict[str, Any]]:
        """What is kept: name, version, step, position, etag, bytes, created_at."""
        return self._client.drive(self._session.checkpoints())

    def download(self, checkpoint: str, path: FilePath) -> Path:
        """Write a checkpoint into a safetensors file. The file appears when it is whole."""
        with whole_file(path) as file:
            self._client.drive(self._session.download(checkpoint, file))
        return Path(path)

    def upload_checkpoint(self, name: str, source: FilePath | Mapping[str, ArrayLike]) -> dict[str, Any]:
        """Make a checkpoint of a safetensors file, or of a dict of arrays. The run itself stays as it is."""
        return self._client.drive(self._session.checkpoint(name, checkpoint_content(source)))

    def delete_checkpoint(self, name: str) -> None:
        """Keep it no longer. Deleting what is not there is no error."""
        self._client.drive(self._session.delete_checkpoint(name))

    def restore(self, checkpoint: str | None = None, *, version: int | None = None) -> dict[str, Any]:
        """Go back to a checkpoint, or to a version that is still kept. Workers go on; the version goes on rising.

        Raises `CheckpointNotFound`, `VersionNotKept` (which names the kept range).
        """
        return self._client.drive(self._session.restore(checkpoint, version))

    def branch(self, name: str, checkpoint: str | None = None, **settings: Any) -> Run:
        """A new run that starts where a checkpoint of this one stands; None: where this run stands now (by a
        checkpoint of that moment, which is deleted again). Raises `RunExists` where the name is taken.

        settings  as in `client.run`; what is not given is inherited
        """
        return Run(self._client, self._client.drive(self._session.branch(name, checkpoint, settings)), rank=self._rank)
