"""A worker's side of exactly once, without I/O: what it was told, what it says, and what it does when told otherwise.

A worker registers with a random instance and gets a *generation*. Its pushes carry a *sequence* 1, 2, 3, … that never
restarts; every answer gives the next one and a *receipt*, which the next push sends back. One push is outstanding at a
time, and a repeated request is the same request, so each gradient is applied once or the worker learns that it was not.

When the server's history no longer holds what the worker was told (it lost a tail, or another life of this worker used
the sequence), the outstanding gradient is *dropped*: sent under another sequence it could be applied twice. The worker
registers again, pulls, and goes on. A caller whose data can be rewound goes back to `cursor`, the place that the server
returned; one that cannot goes on where it is, which is the later of the two.

A push whose driver was interrupted or gave up may have arrived or not. It stays *outstanding*: before the next gradient
goes out, the same bytes are sent again under the same sequence, and the answer tells. If the next gradient is the same
one, that is all there is to send: a caller that repeats a push after an error repeats the request.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, TypeGuard, Unpack

from numpy.typing import ArrayLike
from pydantic import ValidationError as SpecError

from .arguments import checked_seconds
from .errors import (
    Fenced,
    Forbidden,
    GradserveError,
    HistoryRewound,
    MalformedRequest,
    MalformedTensors,
    ProblemError,
    RoundClosed,
    RunDeleted,
    SequenceReused,
    StaleGradient,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    ValidationError,
    WeightsUninitialised,
    from_refused,
)
from .flows import (
    ACCEPT_JSON,
    ACCEPT_TENSORS,
    JSON_MEDIA_TYPE,
    FirstWeights,
    RunKey,
    ask_json,
    checked_name,
    first_pull_flow,
    json_request,
    part_flow,
    pull_flow,
)
from .gradients import Gradients, gradient_layout, gradient_pieces
from .messages import Flow, Request, Response, ask
from .specs import PushFields, validation_refusal
from .weights import PushResult, Weights
from .wire import MEDIA_TYPE, decode_frame

OnStale = Literal["refresh", "resubmit", "raise"]


class Said(TypedDict, total=False):
    """What a worker may say of a gradient."""

    samples: float  # that it is the mean of (a weight in synchronous rounds), 1.0
    loss: float | None  # for the run's history; one that is not finite is not sent
    cursor: str | None  # where in the data it ends: kept with it, and given back to a restarted worker
    loss_scale: float | None  # what the loss was multiplied with: the server divides the gradient by it
    lr: float | Mapping[str, float] | None  # one, or one by group; only when the run's schedule is `client`


class Spoken(Said, total=False):
    """The same, and what to do this time if it is stale."""

    on_stale: OnStale


@dataclass(frozen=True, slots=True)
class _Outstanding:
    """A push that went out, and nothing was heard of it."""

    request: Request
    cursor: str | None

    @property
    def content(self) -> bytes:
        """The gradient itself: names, shapes and elements, without what is said of it."""
        return b"".join(decode_frame(b"".join(self.request.body), rows=True).stored())

    def copied(self) -> _Outstanding:
        """The same in memory of its own."""
        body = b"".join(self.request.body)
        return _Outstanding(dataclasses.replace(self.request, body=(body,)), self.cursor)


RESUBMITS_MAX = 32  # stale this often in a row: the gradient is slower than the run, and only the caller can cure that
# What says nothing of a push that may have arrived before: it was not looked at, or it was not what came.
NOT_OF_THE_PUSH = (Unauthorized, Forbidden, Unavailable, MalformedRequest, MalformedTensors)


class WorkerSession:
    """One worker of one run. Every method that talks is a flow; run one at a time (pushes are in order).

    instance   random, once for each process: handed in, as all chance is
    first      rank 0's weights to start the run with, and to start it again if the server loses its beginning
    notices    what was survived (a rewound history), in words; the driver takes them out and warns
    """

    def __init__(
        self,
        run: RunKey,
        worker: str,
        instance: str,
        *,
        first: FirstWeights | None = None,
        rank: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.run = run
        self.worker = checked_name("worker", worker)
        self.instance = instance
        self.first = first
        self.rank = rank
        self.metadata = dict(metadata or {})
        self.generation: int | None = None
        self.next_sequence = 1
        self.receipt: str | None = None
        self.cursor: str | None = None
        self.lease_seconds: float | None = None
        self.weights: Weights | None = None
        self.notices: list[str] = []
        self._outstanding: _Outstanding | None = None
        self._path = f"{run.path}/workers/{self.worker}"
        self._push_headers = (("Content-Type", MEDIA_TYPE), *run.guard)

    # -- membership

    def register(self) -> Flow[None]:
        """Join the run, or learn anew what the server knows of this instance. Raises `Fenced`."""
        self._adopt((yield from self._put_worker(generation=None)))

    def heartbeat(self) -> Flow[None]:
        """Show that the worker lives, and compare what the server knows of it with what the worker was told.

        A difference is a rewound history, found before a gradient is lost to it. Raises `Fenced`.
        """
        try:
            row = yield from self._put_worker(generation=self.generation)
        except HistoryRewound as error:
            yield from self._register_again(error)
            return
        told = (self.generation, self.next_sequence, self.receipt)
        known = (row["generation"], row["next_sequence"], row["receipt"])
        may_have_arrived = (self.next_sequence, self.next_sequence + 1)
        if self._outstanding and row["generation"] == self.generation and row["next_sequence"] in may_have_arrived:
            return  # its repetition, under its own sequence, will tell
        if known != told:
            difference = f"generation, next sequence and receipt are {known}, this worker was told {told}"
            yield from self._register_again(HistoryRewound(difference))

    def leave(self) -> Flow[None]:
        """Leave the run. It is checked as a push is, so that a lost acknowledgement is told even now."""
        if self._outstanding is not None:
            yield from self.register()  # whether it arrived is the server's to know
        for _ in range(RESUBMITS_MAX):
            error = yield from self._delete_worker()
            if error is None:
                self.generation = None
                return
            if not isinstance(error, HistoryRewound):
                raise error
            rewound = error
            yield from self._register_again(rewound)  # and what it registered with may be lost as well
        raise rewound

    # -- weights and gradients

    def pull(self, wait_seconds: float = 0.0) -> Flow[Weights]:
        """The current weights (the very same object while they are unchanged); with a wait, once they are newer.

        A run without weights gets them from rank 0; the other ranks wait for that.
        """
        wait = checked_seconds("wait_seconds", wait_seconds)
        try:
            self.weights = yield from pull_flow(self.run, self.weights, wait)
        except WeightsUninitialised as error:
            if self.weights is not None:
                self.notices.append(f"run {self.run.name!r} lost its weights, and starts again from the first: {error}")
            self.weights = yield from first_pull_flow(self.run, self.first, rank=self.rank)
        return self.weights

    def pull_part(self, names: Sequence[str], rows: ArrayLike | None) -> Flow[Weights]:
        """Some tensors, or some rows of one; the weights held stay what they are."""
        return part_flow(self.run, names, rows)

    def push(
        self,
        gradients: Gradients,
        *,
        base: Weights | None = None,
        want_weights: bool = False,
        on_stale: OnStale = "refresh",
        **fields: Unpack[Said],
    ) -> Flow[PushResult]:
        """Push one gradient, computed at `base` (None: the weights held, or the current ones if none are).

        The result says what became of it; with `want_weights` it brings the new weights in the same round trip.
        Raises the refusals that are the caller's to cure (`NonFiniteGradient`, `LayoutMismatch`, `RunPaused`, …); they
        leave no trace and use up no sequence. `StaleGradient` and `RoundClosed` only with `on_stale="raise"`.
        """
        if self.generation is None:
            yield from self.register()
        if base is None:
            base = self.weights or (yield from self.pull())
        push = _Outstanding(self._push_request(gradients, base, want_weights, fields), fields.get("cursor"))
        if self._outstanding is not None:
            if self._outstanding.content == push.content:
                push = self._outstanding  # the caller sends it again: as the request that it was
            else:
                yield from self._resolve(self._outstanding)
                request = self._push_request(gradients, base, want_weights, fields)
                push = _Outstanding(request, fields.get("cursor"))
        for _ in range(RESUBMITS_MAX):
            result = yield from self._send(push)
            if isinstance(result, PushResult):
                if want_weights and result.weights is None:  # sent before, by a push that did not ask for them
                    result = replace(result, weights=(yield from self.pull()))
                return result
            error = result
            if isinstance(error, HistoryRewound | SequenceReused | WeightsUninitialised):
                return (yield from self._drop(error))
            if not isinstance(error, StaleGradient | RoundClosed) or on_stale == "raise":
                raise error
            base = yield from self.pull()
            if on_stale == "refresh":
                return PushResult("refreshed", base.version, self.next_sequence, weights=base)
            request = self._push_request(gradients, base, want_weights, fields)
            push = _Outstanding(request, fields.get("cursor"))
        raise error

    # -- inside

    def _send(self, push: _Outstanding) -> Flow[PushResult | ProblemError]:
        """One push and what became of it: how it counted, or the refusal after which it never will.

        It stays outstanding where nobody said either: the driver was interrupted or gave up, or what answered did not
        look at the push (a proxy, a server that is busy or does not know the token). An earlier try may have arrived.
        """
        self._outstanding = push
        try:
            response = yield from ask(push.request)
            said = self._accepted(response, push.cursor) if response.status == 200 else response.error()
            if not isinstance(said, PushResult) and not _settles(said):
                raise said
        except BaseException:
            self._outstanding = push.copied()  # the caller's arrays are the caller's again
            raise
        self._outstanding = None
        return said

    def _resolve(self, push: _Outstanding) -> Flow[None]:
        """Learn what became of an outstanding push, by sending it once more.

        What is no word of the server may be the answer to this very body each time (a proxy's limit): then only the
        server's row of this worker can tell, and where that is not to be had either, the push stays outstanding.
        """
        try:
            error = yield from self._send(push)
        except (UnexpectedAnswer, MalformedRequest, MalformedTensors) as foreign:
            yield from self._register_again(foreign)
            self.notices[-1] += "; the gradient of an interrupted push counted if its sequence is behind that one"
            return
        if isinstance(error, PushResult):
            return
        if isinstance(error, Fenced | RunDeleted):
            raise error
        if isinstance(error, HistoryRewound | SequenceReused | WeightsUninitialised):
            yield from self._register_again(error)
            self.notices[-1] += "; the gradient of an interrupted push is dropped"
        else:
            self.notices.append(f"{error}; the gradient of an interrupted push was not applied")

    def _push_request(self, gradients: Gradients, base: Weights, want_weights: bool, said: Said) -> Request:
        layout = gradient_layout(None if base.part else base.layout, gradients)
        body = gradient_pieces(layout, gradients, self._push_fields(base, said).to_metadata())
        answer = (*ACCEPT_TENSORS, ("Prefer", "return=representation")) if want_weights else ACCEPT_JSON
        return Request("PUT", f"{self._path}/pushes/{self.next_sequence}", (*self._push_headers, *answer), body)

    def _push_fields(self, base: Weights, said: Said) -> PushFields:
        given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        if unknown := said.keys() - Said.__annotations__.keys():
            expected = ", ".join(Said.__annotations__)
            raise ValidationError(f"expected of a gradient only {expected}, came {', '.join(sorted(unknown))}")
        for name in given.keys() & {"samples", "loss", "loss_scale", "lr"}:
            given[name] = _number(name, given[name])
        if not math.isfinite(given.get("loss", 0.0)):
            del given["loss"]  # the gradient will show what is wrong, and the run's policy for it decides
        try:
            return PushFields(
                base_version=base.version, base=base.etag, generation=self.generation, after=self.receipt, **given
            )
        except SpecError as error:
            raise from_refused(validation_refusal(error)) from None

    def _accepted(self, response: Response, cursor: str | None) -> PushResult:
        """Adopt what the answer says, and only then count the push as done."""
        sequence, weights = self.next_sequence, self.weights
        try:
            if response.headers.get("content-type", "").startswith(JSON_MEDIA_TYPE):
                answer = response.json()
                result = PushResult.of_json(sequence, answer)
                following, receipt = int(answer["next_sequence"]), answer["receipt"]
            else:
                came = Weights.of_response(response)
                if weights is None or came.etag != weights.etag:
                    weights = came  # else a contribution changed nothing: the very same object, as from `pull`
                result = PushResult.of_headers(sequence, response, weights)
                following, receipt = (
                    int(response.header("gradserve-next-sequence")),
                    response.header("gradserve-receipt"),
                )
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(200, f"the outcome of a push without {error}") from error
        self.weights, self.next_sequence, self.receipt = weights, following, receipt
        self.cursor = cursor if cursor is not None else self.cursor
        return result

    def _drop(self, error: GradserveError) -> Flow[PushResult]:
        """Drop the outstanding gradient and go on from what the server has."""
        yield from self._register_again(error)
        self.notices[-1] += "; the outstanding gradient is dropped, it was not applied"
        weights = yield from self.pull()
        return PushResult("rewound", weights.version, self.next_sequence, weights=weights)

    def _register_again(self, error: GradserveError) -> Flow[None]:
        told = f"sequence {self.next_sequence} and receipt {self.receipt}"
        yield from self.register()
        self.notices.append(
            f"{error}; worker {self.worker!r} of run {self.run.name!r} was told {told}, the server has sequence "
            f"{self.next_sequence} and receipt {self.receipt}, cursor {self.cursor!r}: going on from there"
        )

    def _put_worker(self, generation: int | None) -> Flow[dict[str, Any]]:
        body: dict[str, Any] = {"instance": self.instance, "metadata": self.metadata}
        if generation is not None:
            body["generation"] = generation
        return (yield from ask_json(json_request("PUT", self._path, body, self.run.guard)))

    def _delete_worker(self) -> Flow[GradserveError | None]:
        told = {"generation": self.generation, "next_sequence": self.next_sequence, "after": self.receipt}
        query = "&".join(f"{name}={value}" for name, value in told.items() if value is not None)
        response = yield from ask(Request("DELETE", f"{self._path}?{query}", (*ACCEPT_JSON, *self.run.guard)))
        return response.error() if response.status >= 300 else None

    def _adopt(self, row: Mapping[str, Any]) -> None:
        self._outstanding = None  # from here on the sequence is the server's
        try:
            self.generation = int(row["generation"])
            self.next_sequence = int(row["next_sequence"])
            self.receipt = row["receipt"]
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(200, f"registration without {error}") from error
        self.cursor = row.get("cursor")
        self.lease_seconds = row.get("lease_seconds")


def _settles(error: GradserveError) -> TypeGuard[ProblemError]:
    """Does this refusal say that the push was looked at and is not applied?"""
    return isinstance(error, ProblemError) and not isinstance(error, NOT_OF_THE_PUSH)


def _number(name: str, value: Any) -> Any:
    """A float, from a NumPy scalar as from an int; for groups one each. Raises `ValidationError`."""
    if isinstance(value, Mapping) and name == "lr":
        return {str(group): _number(f"lr.{group}", each) for group, each in value.items()}
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValidationError(f"{name}: expected a number, came {type(value).__name__}") from None
