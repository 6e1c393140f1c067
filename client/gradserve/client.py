"""The synchronous client: a thin driver over the flows."""

from __future__ import annotations

import logging
import os
import random
import ssl
import time
from collections.abc import Mapping
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike
from pydantic import ValidationError as SpecError

from .errors import ServerUnreachable, ValidationError, from_refused
from .flows import FirstWeights, open_run_flow, runs_flow, server_flow
from .launcher import worker_rank
from .messages import Flow, Request, T
from .retry import Patience, with_retries
from .run import Run
from .specs import RunSpec, Spec, validation_refusal
from .transport import HttpTransport

DEFAULT_URL = "http://127.0.0.1:8970"
USER_AGENT = f"gradserve/{version('gradserve')}"
LOG = logging.getLogger("gradserve")


def connect(
    url: str | None = None,
    token: str | None = None,
    *,
    retry_seconds: float = 600.0,
    verify: ssl.SSLContext | bool = True,
) -> Client:
    """A client of the server at `url` (default `$GRADSERVE_URL`, then `http://127.0.0.1:8970`).

    token          bearer token, default `$GRADSERVE_TOKEN`
    retry_seconds  how long one request is tried again while the server is away or busy, before the error is raised
    verify         for https: the certificates to trust, or False

    Nothing is sent yet. Use it as a context manager, or `close()` it.
    """
    return Client(
        url or os.environ.get("GRADSERVE_URL") or DEFAULT_URL,
        token or os.environ.get("GRADSERVE_TOKEN") or None,
        retry_seconds=retry_seconds,
        verify=verify,
    )


class Client:
    """A connection pool to one server. Made by `connect`; safe to share between threads."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        retry_seconds: float = 600.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.url = url
        self.patience = Patience(time.monotonic, random.random, seconds=retry_seconds)
        self._transport = HttpTransport(url, token, user_agent=USER_AGENT, verify=verify)

    def run(
        self,
        name: str,
        init: Mapping[str, ArrayLike] | None = None,
        *,
        optimizer: Spec | Mapping[str, Any] | str | None = None,
        spec: RunSpec | Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Run:
        """Get the run of that name, or create it; the first worker's weights win, without a race.

        init       the weights to start from: a dict of arrays. Used if the run has none and this is rank 0 (no rank
                   in the environment counts as 0); the other ranks wait in their first pull
        optimizer  a spec (`gs.AdamW(lr=3e-3)`), a name (`"adamw"`) or a dict; without one the run must exist
        fields     schedule, clip (one or several), aggregation, staleness, non_finite: the fields of a `RunSpec`
        spec       all of that in one, instead

        Raises `RunExists` when the run was created with another spec, `RunNotFound`, `ValidationError` and
        `LayoutMismatch` when the run's weights are of other names or shapes than `init`.
        """
        body = run_spec(spec, {"optimizer": optimizer, **fields})
        first = FirstWeights.of(init) if init is not None else None
        rank = worker_rank()
        opened = self.drive(open_run_flow(name, body, first, rank=rank or 0))
        return Run(self, opened.key, opened.description, first=first, rank=rank)

    def runs(self, state: str | None = None) -> list[dict[str, Any]]:
        """All runs (or those `running`, `paused`, `closed`), in name order."""
        return self.drive(runs_flow(state))

    def server(self) -> dict[str, Any]:
        """What the server is: version, limits, store, durability."""
        return self.drive(server_flow())

    def drive(self, flow: Flow[T], patience: Patience | None = None) -> T:
        """Hold the conversation: send each request, sleep each pause, and give what the flow returns."""
        talk = with_retries(flow, patience or self.patience)
        try:
            step = next(talk)
            while True:
                if isinstance(step, Request):
                    try:
                        response = self._transport.send(step)
                    except ServerUnreachable as error:
                        step = talk.throw(error)
                    else:
                        step = talk.send(response)
                else:
                    LOG.warning("%s; trying again in %.1f s", step.reason, step.seconds)
                    time.sleep(step.seconds)
                    step = talk.send(None)
        except StopIteration as stop:
            answer: T = stop.value
            return answer
        finally:
            talk.close()

    @property
    def bytes_sent(self) -> int:
        """Bytes of the request bodies that this client has sent, repeated ones included."""
        return self._transport.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes of the bodies that it was answered."""
        return self._transport.bytes_received

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"


def run_spec(spec: RunSpec | Mapping[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """The canonical JSON of a spec, or of a spec's fields; None when nothing is asked for. Raises `ValidationError`."""
    given = {name: value for name, value in fields.items() if value is not None}
    if spec is not None and given:
        raise ValidationError(f"expected spec or its fields, came spec and {', '.join(given)}")
    if spec is None and not given:
        return None
    try:
        return RunSpec.model_validate(given if spec is None else spec).canonical()
    except SpecError as error:
        raise from_refused(validation_refusal(error)) from None
