"""What can go wrong, as one tree.

    GradserveError
    ├── ServerUnreachable        no answer, or a broken one, for as long as the SDK is allowed to try
    ├── UnexpectedAnswer         an answer, but not one of this API (a proxy's page, another service)
    ├── Misuse                   what the SDK was given cannot be used: a URL, a token, a rank (a ValueError as well)
    ├── Closed                   the client is closed, or the worker has left
    │   └── Forked               this process is a forked child, and the worker is its parent's
    └── ProblemError             the server said no: `status`, `code`, `detail`, `extras`
        ├── Unauthorized · Forbidden · MalformedJson · ...      one class for each code
        ├── NotFound             ── RunNotFound, WorkerNotFound, PushNotFound, ...
        ├── Conflict             409: never retried blindly
        │   ├── RunExists · WeightsUninitialised · StaleGradient · HistoryRewound · Fenced · ...
        ├── Invalid              422: what was sent cannot be taken
        │   ├── ValidationError · LayoutMismatch · UnknownTensor · NonFiniteGradient · ...
        └── Unavailable          429 and 503: retried with the same sequence until the patience runs out
            ├── Backpressure · StoreUnavailable · Draining · ...

The codes are those of `gradserve.problems.PROBLEMS`; a test holds the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .problems import PROBLEMS, Refused

DETAIL_CHARACTERS_MAX = 300  # of a foreign answer quoted in an error: enough to know the proxy by


class GradserveError(Exception):
    """The root: `except gs.GradserveError` catches everything that this package raises on purpose."""


class GradserveWarning(UserWarning):
    """Something was lost on the way, and the work goes on: a `HistoryRewound` or `SequenceReused` that was survived."""


class ServerUnreachable(GradserveError):
    """No answer: the connection failed, broke or stayed silent. Drivers throw it into a flow; retries end in it."""


class UnexpectedAnswer(GradserveError):
    """An answer that is none of this API's: is the URL that of a Gradserve server?"""

    def __init__(self, status: int, detail: str) -> None:
        shown = detail[:DETAIL_CHARACTERS_MAX]
        super().__init__(f"status {status}, not from this API: {shown!r}; is the URL that of a Gradserve server?")
        self.status = status
        self.detail = detail


class Misuse(GradserveError, ValueError):
    """What the SDK was given, or found in the environment, cannot be used. Nothing was sent."""


class Closed(GradserveError):
    """Used after its end: the client is closed, or the worker has left."""


class Forked(Closed):
    """A worker made before `os.fork()`, used in the child: two processes must not push under one sequence."""


class ProblemError(GradserveError):
    """The server (or a check before sending) refused. Subclasses stand for one code each."""

    code: str = ""

    def __init__(
        self, detail: str, *, status: int = 0, code: str = "", extras: Mapping[str, Any] | None = None
    ) -> None:
        self.code = code or type(self).code
        super().__init__(f"{self.code}: {detail}")
        self.status = status or (PROBLEMS[self.code].status if self.code in PROBLEMS else 0)
        self.detail = detail
        self.extras = dict(extras or {})  # the typed members of the problem document: version, limit, tensor, …


class MalformedRequest(ProblemError):
    """400: the bytes are no HTTP request; a proxy in between may have damaged it."""

    code = "malformed-request"


class MalformedJson(ProblemError):
    """400: the body is not strict JSON."""

    code = "malformed-json"


class MalformedTensors(ProblemError):
    """400: the bytes are not a valid safetensors frame."""

    code = "malformed-tensors"


class HeadTooLarge(ProblemError):
    """431: path and headers are too large together."""

    code = "head-too-large"


class Unauthorized(ProblemError):
    """401: the token is missing or unknown. `gs.connect(token=…)` or `$GRADSERVE_TOKEN`."""

    code = "unauthorized"


class Forbidden(ProblemError):
    """403: the token lacks the scope that the detail names."""

    code = "forbidden"


class NotFound(ProblemError):
    """404: there is no such thing at that address."""

    code = "not-found"


class RunNotFound(NotFound):
    """404: no run of that name. Give `client.run` an optimizer to create it."""

    code = "run-not-found"


class WorkerNotFound(NotFound):
    """404: the run knows no worker of that name."""

    code = "worker-not-found"


class PushNotFound(NotFound):
    """404: that push's outcome is not kept; only a worker's last one is."""

    code = "push-not-found"


class CheckpointNotFound(NotFound):
    """404: no checkpoint of that name."""

    code = "checkpoint-not-found"


class VersionNotKept(NotFound):
    """404: that version can no longer be restored; `extras` names the kept range."""

    code = "version-not-kept"


class MethodNotAllowed(ProblemError):
    """405: the path does not take that method."""

    code = "method-not-allowed"


class NotAcceptable(ProblemError):
    """406: the server has no representation of the type asked for."""

    code = "not-acceptable"


class JsonTooLarge(NotAcceptable):
    """406: too many elements for JSON."""

    code = "json-too-large"


class Conflict(ProblemError):
    """409: the run's state does not allow it. Never retried blindly."""


class RunExists(Conflict):
    """409: a run of that name has another spec; the detail says what differs."""

    code = "run-exists"


class WeightsUninitialised(Conflict):
    """409: the run has no weights yet. Give rank 0 `init=` in `client.run`."""

    code = "weights-uninitialised"


class StaleGradient(Conflict):
    """409: computed at weights older than the run allows. Pull, and compute it again."""

    code = "stale-gradient"


class RoundClosed(Conflict):
    """409: the gradient's round is closed. Pull, and compute it again."""

    code = "round-closed"


class HistoryRewound(Conflict):
    """409: the server's history lost what this worker was told. Workers recover from it by themselves and warn."""

    code = "history-rewound"


class Fenced(Conflict):
    """409: a newer instance of this worker has taken over. This one must stop."""

    code = "fenced"


class RunPaused(Conflict):
    """409: the run is paused. `run.resume()` lifts it."""

    code = "run-paused"


class RunClosed(Conflict):
    """409: the run takes no more gradients; its weights can be read."""

    code = "run-closed"


class LrOwnedByServer(Conflict):
    """409: a learning rate came with the gradient, but the run's schedule is the server's."""

    code = "lr-owned-by-server"


class RunDeleted(ProblemError):
    """410: the run was deleted (a run of that name today is another one)."""

    code = "run-deleted"


class PreconditionFailed(ProblemError):
    """412: the weights are not the ones that If-Match or If-None-Match named."""

    code = "precondition-failed"


class TooLarge(ProblemError):
    """413: the body is over the limit that the detail names."""

    code = "too-large"


class UnsupportedMediaType(ProblemError):
    """415: the route does not read that content type."""

    code = "unsupported-media-type"


class Invalid(ProblemError):
    """422: understood, and not acceptable as it is."""


class ValidationError(Invalid, ValueError):
    """422: a value is out of its bounds or of the wrong kind (a ValueError as well); the detail names each field."""

    code = "validation-error"


class LayoutMismatch(Invalid):
    """422: a tensor's shape differs from the run's; the detail has both."""

    code = "layout-mismatch"


class UnknownTensor(Invalid):
    """422: the run has no tensor of that name."""

    code = "unknown-tensor"


class DtypeUnsupported(Invalid):
    """422: not float32, bfloat16 or float16."""

    code = "dtype-unsupported"


class NonFiniteGradient(Invalid):
    """422: NaN or Infinity in the gradient; `extras` names the tensors. The sequence is not used up."""

    code = "non-finite-gradient"


class SequenceReused(Invalid):
    """422: that sequence number already carried another gradient. Workers recover from it by themselves and warn."""

    code = "sequence-reused"


class Unavailable(ProblemError):
    """429 and 503: come again. Raised only after the SDK's patience ran out."""


class Backpressure(Unavailable):
    """429: the server is at one of its limits."""

    code = "backpressure"


class WorkerTooFast(Unavailable):
    """429: too far ahead of the slowest worker."""

    code = "worker-too-fast"


class QuotaExceeded(Unavailable):
    """429: a quota is used up."""

    code = "quota-exceeded"


class Starting(Unavailable):
    """503: the server is starting."""

    code = "starting"


class StoreUnavailable(Unavailable):
    """503: the server cannot reach its store."""

    code = "store-unavailable"


class Draining(Unavailable):
    """503: the server is shutting down; its successor answers."""

    code = "draining"


class StoreLost(Unavailable):
    """503: the store came back without this run. An operator has to restore it."""

    code = "store-lost"


class Quarantined(Unavailable):
    """503: the run is set aside after repeated failures."""

    code = "quarantined"


def _kinds(root: type[ProblemError]) -> Iterator[type[ProblemError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _kinds(kind)


BY_CODE: dict[str, type[ProblemError]] = {kind.code: kind for kind in _kinds(ProblemError) if kind.code}
_STANDARD_MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def problem(code: str, detail: str, *, status: int = 0, extras: Mapping[str, Any] | None = None) -> ProblemError:
    """The exception for one code; one of a newer server becomes a `ProblemError` or `Unavailable`."""
    other = Unavailable if status == 429 or status >= 500 else ProblemError
    return BY_CODE.get(code, other)(detail, status=status, code=code, extras=extras)


def from_refused(refused: Refused) -> ProblemError:
    """A refusal by the shared code of floor 0, before anything was sent, as the error that the server would cause."""
    rejection = refused.rejection
    return problem(rejection.code, rejection.detail, extras=rejection.extras)


def from_answer(status: int, body: bytes | memoryview) -> GradserveError:
    """The exception for a refusing answer: its problem document, or `UnexpectedAnswer` when it has none."""
    text = bytes(body).decode("utf-8", "replace")
    try:
        document = json.loads(text)
        code, detail = document["code"], document["detail"]
    except (ValueError, TypeError, KeyError):
        return UnexpectedAnswer(status, text)
    extras = {name: value for name, value in document.items() if name not in _STANDARD_MEMBERS}
    return problem(str(code), str(detail), status=status, extras=extras)
