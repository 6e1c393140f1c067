"""The synchronous client: a thin driver over the flows."""

from __future__ import annotations

import logging
import os
import random
import ssl
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from numpy.typing import ArrayLike
from pydantic import ValidationError as SpecError

from .errors import Closed, Misuse, ServerUnreachable, ValidationError, from_refused
from .flows import FirstWeights, open_run_flow, runs_flow, server_flow
from .launcher import worker_metadata, worker_name, worker_rank
from .messages import Flow, Request, T
from .retry import Patience, RetryBudget, with_retries
from .run import Run
from .run_session import RunSession
from .servers import Servers
from .session import WorkerSession
from .specs import RunSpec, Spec, validation_refusal
from .transport import AsyncHttpTransport, HttpTransport

DEFAULT_URL = "http://127.0.0.1:8970"
USER_AGENT = f"gradserve/{version('gradserve')}"
LOG = logging.getLogger("gradserve")

Transport = TypeVar("Transport", HttpTransport, AsyncHttpTransport)


def connect(
    url: str | Sequence[str] | None = None,
    token: str | None = None,
    *,
    retry_seconds: float = 600.0,
    verify: ssl.SSLContext | bool = True,
) -> Client:
    """A client of the server at `url` (default `$GRADSERVE_URL`, then `http://127.0.0.1:8970`).

    url            several servers on one store: a list, or one text with commas (see `servers`)
    token          bearer token, default `$GRADSERVE_TOKEN`
    retry_seconds  how long one request is tried again while the server is away or busy, before the error is raised
    verify         for https: the certificates to trust, or False

    Nothing is sent yet. Use it as a context manager, or `close()` it. Raises `Misuse`.
    """
    return Client(url, token, retry_seconds=retry_seconds, verify=verify)


class Connection(Generic[Transport]):
    """What clients of both kinds hold: where the servers are, how patient to be, and a transport for each server."""

    # All clients' of this process: the second worker of a run must not take the first one's name, whoever made it.
    _sessions: ClassVar[weakref.WeakSet[WorkerSession]] = weakref.WeakSet()
    _naming: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        make: Callable[..., Transport],
        url: str | Sequence[str] | None,
        token: str | None,
        *,
        retry_seconds: float,
        verify: ssl.SSLContext | bool,
    ) -> None:
        urls = checked_urls(url or os.environ.get("GRADSERVE_URL") or DEFAULT_URL)
        bearer = checked_token(token or os.environ.get("GRADSERVE_TOKEN") or None)
        self.urls = urls
        self.patience = Patience(time.monotonic, random.random, seconds=checked_patience(retry_seconds))
        self.servers = Servers(urls, time.monotonic)
        self.retry_budget = RetryBudget()
        self.closed = False
        self._transports: list[Transport] = [make(each, bearer, user_agent=USER_AGENT, verify=verify) for each in urls]

    @property
    def url(self) -> str:
        """Where the servers are, in one text."""
        return ",".join(self.urls)

    @property
    def bytes_sent(self) -> int:
        """Bytes of the request bodies that this client has sent, repeated ones included."""
        return sum(transport.address.bytes_sent for transport in self._transports)

    @property
    def bytes_received(self) -> int:
        """Bytes of the bodies that it was answered."""
        return sum(transport.address.bytes_received for transport in self._transports)

    def talk(self, flow: Flow[T], patience: Patience | None) -> Flow[T]:
        """The conversation with its retries. Raises `Closed`."""
        if self.closed:
            raise Closed(f"this client of {self.url} is closed: connect again")
        return with_retries(flow, patience or self.patience, self.servers, self.retry_budget)

    def new_session(self, run: RunSession, name: str | None, rank: int | None) -> WorkerSession:
        """A worker's session under that name, or under one that no other of this process has in the run. Raises
        `ValidationError`."""
        with self._naming:
            taken = {session.worker for session in self._sessions if session.run == run.key}
            session = WorkerSession(
                run.key,
                worker_name(rank, taken) if name is None else name,
                uuid.uuid4().hex,
                first=run.first,
                rank=run.rank,
                metadata=worker_metadata(rank),
            )
            self._sessions.add(session)
        return session

    def forget(self, session: WorkerSession) -> None:
        """Its worker has left: the name is free."""
        with self._naming:
            self._sessions.discard(session)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.url}>"


class Client(Connection[HttpTransport]):
    """Connections to one server, or to several on one store. Made by `connect`; safe to share between threads.

    A forked child opens connections of its own.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        token: str | None = None,
        *,
        retry_seconds: float = 600.0,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        super().__init__(HttpTransport, url, token, retry_seconds=retry_seconds, verify=verify)

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
        fields     schedule, clip (one or several), aggregation, staleness, accumulate, non_finite, …: as in `RunSpec`
        spec       all of that in one, instead

        Raises `RunExists` when the run was created with another spec, `RunNotFound`, `ValidationError` and
        `LayoutMismatch` when the run's weights are of other names or shapes than `init`.
        """
        asked = AskedRun.of(name, init, spec, {"optimizer": optimizer, **fields})
        return Run(self, self.drive(asked.open()), rank=asked.rank)

    def runs(self, state: str | None = None) -> list[dict[str, Any]]:
        """All runs (or those `running`, `paused`, `closed`), in name order."""
        return self.drive(runs_flow(state))

    def server(self) -> dict[str, Any]:
        """What the server is: version, limits, store, durability."""
        return self.drive(server_flow())

    def drive(self, flow: Flow[T], patience: Patience | None = None, *, given_up: threading.Event | None = None) -> T:
        """Hold the conversation: send each request, sleep each pause, and give what the flow returns.

        given_up  when it is set nothing is tried again: what had no answer then has none
        """
        talk = self.talk(flow, patience)
        try:
            step = next(talk)
            while True:
                if isinstance(step, Request):
                    try:
                        response = self._transports[step.server].send(step)
                    except ServerUnreachable as error:
                        if self.closed:
                            raise Closed(f"this client of {self.url} was closed meanwhile") from error
                        step = talk.throw(error)
                    else:
                        step = talk.send(response)
                else:
                    LOG.warning("%s; trying again in %.1f s", step.reason, step.seconds)
                    if given_up is None:
                        time.sleep(step.seconds)
                    elif given_up.wait(step.seconds):
                        raise ServerUnreachable(f"given up: {step.reason}")
                    step = talk.send(None)
        except StopIteration as stop:
            answer: T = stop.value
            return answer
        finally:
            talk.close()

    def close(self) -> None:
        """Close all connections; whoever watches a run stops. Closing twice is no error."""
        self.closed = True
        for transport in self._transports:
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class AskedRun:
    """What `client.run` was asked for, read and checked: the same for clients of both kinds."""

    name: str
    spec: dict[str, Any] | None
    first: FirstWeights | None
    rank: int | None

    @classmethod
    def of(
        cls,
        name: str,
        init: Mapping[str, ArrayLike] | None,
        spec: RunSpec | Mapping[str, Any] | None,
        fields: Mapping[str, Any],
    ) -> AskedRun:
        """Raises `ValidationError`, and `Misuse` for a rank that is none."""
        return cls(name, run_spec(spec, fields), None if init is None else FirstWeights.of(init), worker_rank())

    def open(self) -> Flow[RunSession]:
        """Get or create it."""
        opened = yield from open_run_flow(self.name, self.spec, self.first, rank=self.rank or 0)
        return RunSession(opened, first=self.first, rank=self.rank or 0)


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


def checked_urls(given: str | Sequence[str]) -> tuple[str, ...]:
    """The URLs, each once, in their order. Each transport checks its own. Raises `Misuse`."""
    pieces: Sequence[Any] = given.split(",") if isinstance(given, str) else given
    if not isinstance(pieces, list | tuple) or not all(isinstance(piece, str) for piece in pieces):
        raise Misuse(f"url: expected a URL or a list of URLs, came {type(given).__name__}")
    urls = tuple(dict.fromkeys(piece.strip() for piece in pieces if piece.strip()))
    if not urls:
        raise Misuse("expected a URL like http://host:8970, came none")
    return urls


def checked_token(token: Any) -> str | None:
    """The token without the line end that files have. Raises `Misuse`, which never shows the token."""
    if token is None:
        return None
    if not isinstance(token, str):
        raise Misuse(f"token: expected text, came {type(token).__name__}")
    bare = token.strip()
    if not bare:
        raise Misuse("token: expected one, came only spaces; leave it out for a server without tokens")
    if not all("!" <= character <= "~" for character in bare):
        raise Misuse("token: expected printable ASCII without spaces or line breaks inside")
    return bare


def checked_patience(seconds: Any) -> float:
    """Seconds ≥ 0, infinity included. Raises `Misuse`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise Misuse(f"retry_seconds: expected a number ≥ 0, came {seconds!r:.80}")
    return float(seconds)
