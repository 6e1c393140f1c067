"""A run, seen from a client."""

from __future__ import annotations

import re
import secrets
import socket
import uuid
from typing import TYPE_CHECKING, Any, get_args

from .errors import ValidationError
from .flows import (
    FirstWeights,
    RunKey,
    configure_flow,
    delete_flow,
    describe_flow,
    first_pull_flow,
    optimizer_state_flow,
    pull_flow,
)
from .session import OnStale, WorkerSession
from .weights import Weights
from .worker import Worker

if TYPE_CHECKING:
    from .client import Client


class Run:
    """One run of a server: its weights, its settings, its workers. Made by `client.run`.

    name, uid    which run (a later run of the same name has another uid: requests to this one are then refused)
    description  the run as it was when it was opened; `describe()` asks again
    """

    def __init__(
        self,
        client: Client,
        key: RunKey,
        description: dict[str, Any],
        *,
        first: FirstWeights | None = None,
        rank: int | None = None,
    ) -> None:
        self._client = client
        self._key = key
        self._first = first
        self._rank = rank
        self._held: Weights | None = None
        self.description = description

    @property
    def name(self) -> str:
        """Its name."""
        return self._key.name

    @property
    def uid(self) -> str:
        """What tells it from other runs of that name."""
        return self._key.uid

    def worker(
        self, name: str | None = None, *, on_stale: OnStale = "refresh", heartbeat_seconds: float | None = None
    ) -> Worker:
        """A worker of this run; use it as a context manager.

        name      the worker's identity across restarts (its cursor is kept under it); default `worker-<rank>`, or
                  a random name when the environment gives no rank. One living process a name: a newer one fences this
        on_stale  what to do when a gradient is refused as too old: `refresh` drops it and pulls, `resubmit` sends it
                  again as if computed at the current weights, `raise` raises `StaleGradient`
        heartbeat_seconds  how long it may be silent before it shows that it lives; default a third of its lease
        """
        if on_stale not in get_args(OnStale):
            raise ValidationError(f"on_stale: expected one of {', '.join(get_args(OnStale))}, came {on_stale!r}")
        metadata = {"host": socket.gethostname()}
        if self._rank is not None:
            metadata["rank"] = str(self._rank)
        session = WorkerSession(
            self._key,
            name or self._default_worker(),
            uuid.uuid4().hex,
            first=self._first,
            rank=self._rank or 0,
            metadata=metadata,
        )
        return Worker(self._client, session, on_stale=on_stale, heartbeat_seconds=heartbeat_seconds)

    def pull(self, *, wait_seconds: float = 0.0) -> Weights:
        """The current weights; with a wait, as soon as they are newer than those pulled last.

        A run without weights gets them from rank 0's `init`; otherwise this waits for them.
        """
        if self._held is None:
            self._held = self._client.drive(first_pull_flow(self._key, self._first, rank=self._rank or 0))
        else:
            self._held = self._client.drive(pull_flow(self._key, self._held, wait_seconds))
        return self._held

    def describe(self) -> dict[str, Any]:
        """The run now: state, version, step, spec, lr, workers, warnings. Raises `RunDeleted`."""
        self.description = self._client.drive(describe_flow(self._key))
        return self.description

    def configure(self, *, lr: float | None = None, **changes: Any) -> dict[str, Any]:
        """Change the run while it is running, as one entry of its journal; answers its new description.

        lr and `optimizer={…}` are merged into the optimizer; `schedule`, `clip`, `aggregation` and `staleness` are
        replaced whole (specs or dicts). Raises `ValidationError`.
        """
        optimizer = dict(changes.pop("optimizer", None) or {})
        if lr is not None:
            optimizer["lr"] = lr
        if optimizer:
            changes["optimizer"] = optimizer
        return self._configure(changes)

    def pause(self) -> None:
        """Refuse gradients until `resume`."""
        self._configure({"state": "paused"})

    def resume(self) -> None:
        """Take gradients again."""
        self._configure({"state": "running"})

    def close(self) -> None:
        """Take no more gradients, for good; the weights can be read."""
        self._configure({"state": "closed"})

    def delete(self) -> None:
        """Delete the run with all its weights and history. Deleting a deleted run is no error."""
        self._client.drive(delete_flow(self._key))

    def optimizer_state(self) -> Weights:
        """Every slot of the optimizer, by tensor: `exp_avg/w`, …"""
        return self._client.drive(optimizer_state_flow(self._key))

    def _configure(self, changes: dict[str, Any]) -> dict[str, Any]:
        plain = {name: _plain(value) for name, value in changes.items()}
        self.description = self._client.drive(configure_flow(self._key, plain, uuid.uuid4().hex))
        return self.description

    def _default_worker(self) -> str:
        if self._rank is not None:
            return f"worker-{self._rank}"
        host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:80].strip("-") or "worker"
        return f"{host}-{secrets.token_hex(4)}"

    def __repr__(self) -> str:
        return f"<Run {self.name!r} of {self._client.url}>"


def _plain(value: Any) -> Any:
    """Specs and collections of them as JSON-able values."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
