"""A run's side of the conversations, without I/O: what a client knows of a run, and what it may ask of it.

Every method that talks is a flow; `run.Run` drives them with threads, `async_run.AsyncRun` with asyncio.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from numpy.typing import ArrayLike

from .arguments import checked_count, checked_seconds, kind_of, plain
from .checkpoints import (
    Pieces,
    branch_flow,
    checkpoints_flow,
    delete_checkpoint_flow,
    download_flow,
    restore_flow,
    save_checkpoint_flow,
)
from .errors import ValidationError
from .flows import (
    RAW,
    FirstWeights,
    OpenedRun,
    RunKey,
    configure_flow,
    delete_flow,
    describe_flow,
    first_pull_flow,
    optimizer_state_flow,
    part_flow,
    pull_flow,
)
from .messages import Flow
from .records import Columns, history_flow, journal_flow, report_flow, statistics_flow, workers_flow
from .specs import Spec
from .weights import Weights


def random_key() -> str:
    """A name for one change, so that a late copy of its request is known again."""
    return uuid.uuid4().hex


class RunSession:
    """One run as a client has opened it.

    description  the run when it was last asked
    first        the weights to start it with, if this is rank 0
    """

    def __init__(
        self,
        opened: OpenedRun,
        *,
        first: FirstWeights | None = None,
        rank: int = 0,
        fresh_key: Callable[[], str] = random_key,
    ) -> None:
        self.key: RunKey = opened.key
        self.description = opened.description
        self.first = first
        self.rank = rank
        self._fresh_key = fresh_key
        self._held: dict[str, Weights] = {}  # the weights pulled last, and each average

    # -- weights

    def pull(self, which: str = RAW, wait_seconds: float = 0.0) -> Flow[Weights]:
        """The current weights, or an average of them; the very same object while they are unchanged."""
        wait = checked_seconds("wait_seconds", wait_seconds)
        if not isinstance(which, str):
            raise ValidationError(f"weights: expected a name such as 'raw' or 'average', came {kind_of(which)}")
        if which in self._held:
            self._held[which] = yield from pull_flow(self.key, self._held[which], wait, which)
        else:
            self._held[which] = yield from first_pull_flow(self.key, self.first, rank=self.rank, which=which)
        return self._held[which]

    def pull_part(self, names: Sequence[str], rows: ArrayLike | None) -> Flow[Weights]:
        """Some tensors, or some rows of one."""
        return part_flow(self.key, names, rows)

    def optimizer_state(self) -> Flow[Weights]:
        """Every slot by tensor."""
        return optimizer_state_flow(self.key)

    # -- settings

    def describe(self) -> Flow[dict[str, Any]]:
        """The run now."""
        self.description = yield from describe_flow(self.key)
        return self.description

    def configure(self, lr: Any, changes: Mapping[str, Any]) -> Flow[dict[str, Any]]:
        """One entry of the journal with all these changes."""
        optimizer = _merging(changes.get("optimizer"))
        changes = {name: plain(value, name) for name, value in changes.items() if name != "optimizer"}
        if lr is not None:
            optimizer["lr"] = plain(lr, "lr")
        if optimizer:
            changes["optimizer"] = optimizer
        if not changes:
            raise ValidationError("configure: expected a change (lr=…, schedule=…, state=…), came none")
        self.description = yield from configure_flow(self.key, changes, self._fresh_key())
        return self.description

    def delete(self) -> Flow[None]:
        """Delete the run."""
        return delete_flow(self.key)

    # -- records

    def history(self, series: str | Sequence[str] | None, since: int | None, max_points: int | None) -> Flow[Columns]:
        """Columns of one length."""
        return history_flow(self.key, series, checked_count("since", since), checked_count("max_points", max_points))

    def statistics(self) -> Flow[dict[str, Any]]:
        """Where training stands."""
        return statistics_flow(self.key)

    def journal(self, since: int) -> Flow[list[dict[str, Any]]]:
        """Headers of entries."""
        return journal_flow(self.key, checked_count("since", since) or 0)

    def report(self, values: Mapping[str, Any], version: int | None) -> Flow[None]:
        """Evaluation results."""
        return report_flow(self.key, values, checked_count("version", version), self._fresh_key())

    def workers(self) -> Flow[list[dict[str, Any]]]:
        """The roster."""
        return workers_flow(self.key)

    # -- checkpoints

    def checkpoint(self, name: str, content: Pieces = ()) -> Flow[dict[str, Any]]:
        """Keep the present state, or the given one, under a name."""
        return save_checkpoint_flow(self.key, name, content, self._fresh_key())

    def checkpoints(self) -> Flow[list[dict[str, Any]]]:
        """What is kept."""
        return checkpoints_flow(self.key)

    def download(self, checkpoint: str, into: BinaryIO) -> Flow[None]:
        """Its bytes."""
        return download_flow(self.key, checkpoint, into)

    def delete_checkpoint(self, name: str) -> Flow[None]:
        """Keep it no longer."""
        return delete_checkpoint_flow(self.key, name)

    def restore(self, checkpoint: str | None, version: int | None) -> Flow[dict[str, Any]]:
        """Go back."""
        return restore_flow(self.key, checkpoint, checked_count("version", version), self._fresh_key())

    def branch(self, name: str, checkpoint: str | None, settings: Mapping[str, Any]) -> Flow[RunSession]:
        """Go on from there under another name, as well."""
        given = {field: plain(value, field) for field, value in settings.items() if value is not None}
        opened = yield from branch_flow(self.key, name, checkpoint, given, self._fresh_key())
        return RunSession(opened, rank=self.rank, fresh_key=self._fresh_key)


def _merging(optimizer: Any) -> dict[str, Any]:
    """The fields of an optimizer that change: those that are named. `Adam(beta1=0.8)` leaves lr what it is."""
    if optimizer is None:
        return {}
    if isinstance(optimizer, str):
        return {"name": optimizer}
    if isinstance(optimizer, Spec):
        return {**optimizer.model_dump(include={"name"}), **optimizer.model_dump(mode="json", exclude_unset=True)}
    if isinstance(optimizer, Mapping):
        return dict(plain(optimizer, "optimizer"))
    raise ValidationError(f"optimizer: expected a spec or a dict of fields, came {kind_of(optimizer)}")
