"""What workers of both kinds hold: identity, the weights handed out, and the checks before a word is said."""

from __future__ import annotations

import dataclasses
import os
import warnings
from typing import Any, get_args

from .errors import Closed, Fenced, Forked, GradserveWarning, ValidationError
from .gradients import Gradients
from .messages import Flow
from .retry import Patience
from .session import OnStale, Spoken, WorkerSession
from .weights import PushResult, Weights

LEASE_SECONDS = 30.0  # assumed until the server names its own
LEAVE_SECONDS_MAX = 10.0  # a server that is away notices by itself that the worker is gone


class Member:
    """A worker, as far as it needs no I/O. The drivers are `Worker` and `AsyncWorker`."""

    def __init__(self, session: WorkerSession, on_stale: OnStale, heartbeat_seconds: float | None) -> None:
        if on_stale not in get_args(OnStale):
            raise ValidationError(f"on_stale: expected one of {', '.join(get_args(OnStale))}, came {on_stale!r:.80}")
        if heartbeat_seconds is not None and not (
            isinstance(heartbeat_seconds, int | float) and 0 < heartbeat_seconds < float("inf")
        ):
            raise ValidationError(f"heartbeat_seconds: expected seconds > 0, came {heartbeat_seconds!r:.80}")
        self._session = session
        self._on_stale = on_stale
        self._heartbeat_seconds = heartbeat_seconds
        self._process = os.getpid()
        self._handed: Weights | None = None
        self._fenced: Fenced | None = None
        self._gone = False
        self._spoke = False  # since the last heartbeat was due
        self.last_push: PushResult | None = None

    @property
    def name(self) -> str:
        """Its name in the run."""
        return self._session.worker

    @property
    def generation(self) -> int | None:
        """Which life of this name it is; None before it is registered."""
        return self._session.generation

    @property
    def cursor(self) -> str | None:
        """Where in the data the last gradient in the journal ended: where a restarted worker goes on."""
        return self._session.cursor

    @property
    def notices(self) -> list[str]:
        """What was survived and not yet warned of."""
        return self._session.notices

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.name!r} of run {self._session.run.name!r}, generation {self.generation}>"

    # -- inside

    def _check(self) -> None:
        """May this worker still speak? Raises `Forked`, `Closed`, `Fenced`."""
        if os.getpid() != self._process:
            raise Forked(
                f"worker {self.name!r} is that of process {self._process}, this is its forked child {os.getpid()}: "
                "make one here, with run.worker() under another name"
            )
        if self._gone:
            raise Closed(f"worker {self.name!r} has left run {self._session.run.name!r}: make another one")
        if self._fenced is not None:
            raise self._fenced

    def _flow(self, gradients: Gradients, base: Weights | None, want_weights: bool, fields: Spoken) -> Flow[PushResult]:
        if base is not None and not isinstance(base, Weights):
            raise ValidationError(f"base: expected Weights that a worker was given, came {type(base).__name__}")
        spoken: dict[str, Any] = {"on_stale": self._on_stale, **fields}
        if spoken["on_stale"] not in get_args(OnStale):
            came = spoken["on_stale"]
            raise ValidationError(f"on_stale: expected one of {', '.join(get_args(OnStale))}, came {came!r:.80}")
        return self._session.push(gradients, base=base or self._handed, want_weights=want_weights, **spoken)

    def _finish(self, result: PushResult) -> None:
        self.last_push = result
        if result.weights is not None:
            self._hand_out(result.weights)

    def _hand_out(self, weights: Weights) -> None:
        """From now on gradients without a base are taken to be computed at these."""
        self._handed = weights
        self._warn()

    def _warn(self) -> None:
        """Notices become warnings in the caller's thread, after the state is whole again."""
        while self._session.notices:
            warnings.warn(self._session.notices.pop(0), GradserveWarning, stacklevel=4)

    def _heartbeat_pause(self) -> float:
        return self._heartbeat_seconds or (self._session.lease_seconds or LEASE_SECONDS) / 3


def for_at_most(patience: Patience, seconds: float) -> Patience:
    """The same manner of coming again, for a shorter time."""
    return dataclasses.replace(patience, seconds=min(seconds, patience.seconds))
