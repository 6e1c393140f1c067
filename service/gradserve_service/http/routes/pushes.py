"""The hot path: a gradient in, an outcome out, and the new weights with it when they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from pydantic import ValidationError
from starlette.types import Send

from gradserve.problems import refuse
from gradserve.specs import PushFields, validation_refusal
from gradserve.wire import JSON_ELEMENTS_MAX, MEDIA_TYPE, Frame, Layout, decode_frame, frame_from_json, parse_json
from gradserve_service.replica import PushAnswer

from ..answers import VARY, Headers, Selection, send_json, send_tensors, weights_headers
from ..bodies import as_object, read_body
from ..hot import hot_route, open_run
from ..json_text import encode_json
from ..media import JSON, Form, answer_type, body_form, parse_dtype
from ..metrics import Metrics
from ..parameters import Incoming, parse_count, parse_preferences

__all__ = ["PUSH_PATH", "routes"]

PUSH_PATH = "/v1/runs/{run}/workers/{worker}/pushes/{sequence}"

# The version is the one that this push made; the weights of the answer may be newer, their ETag says so.
_OUTCOME_HEADERS = (
    (b"gradserve-version", "version"),
    (b"gradserve-step", "step"),
    (b"gradserve-outcome", "outcome"),
    (b"gradserve-staleness", "staleness"),
    (b"gradserve-lr", "lr"),
    (b"gradserve-gradient-norm", "gradient_norm"),
    (b"gradserve-clip-scale", "clip_scale"),
    (b"gradserve-durability", "durability"),
    (b"gradserve-next-sequence", "next_sequence"),
    (b"gradserve-receipt", "receipt"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The answer that a push asks for: with weights or without, and in which form."""

    representation: bool
    media_type: str
    dtype: str


async def push_gradient(incoming: Incoming, send: Send) -> None:
    """PUT: validate what the headers say, read, decode, let the run decide and apply, answer."""
    worker, sequence = _address(incoming)
    form, media_type = body_form(incoming)
    wanted = _wanted(incoming, media_type)
    run = await open_run(incoming)
    await run.check_room()
    if wanted.representation and wanted.media_type == JSON:
        _check_json_fits(await run.known_layout())
    with ExitStack() as budget:
        started = perf_counter()
        body = await read_body(incoming, run, form, budget)
        received = perf_counter()
        frame, fields = _decode(form, body)
        decoded = perf_counter()
        answer = await run.push(worker, sequence, frame, fields)
    timings = {"receive": received - started, "decode": decoded - received, **answer.timings}
    metrics: Metrics = incoming.app.state.metrics
    metrics.push(answer.outcome["outcome"], timings)
    await _send_answer(send, incoming.path_params["run"], answer, wanted, timings)


async def push_outcome(incoming: Incoming, send: Send) -> None:
    """GET: what became of the worker's last push. Raises `push-not-found` for any other."""
    worker, sequence = _address(incoming)
    incoming.query()
    run = await open_run(incoming)
    outcome = await run.push_outcome(worker, sequence)
    await send_json(send, outcome, head_only=incoming.scope["method"] == "HEAD")


routes = [hot_route(PUSH_PATH, PUT=push_gradient, GET=push_outcome)]


def _address(incoming: Incoming) -> tuple[str, int]:
    """Worker and sequence from the path."""
    sequence = parse_count("sequence", incoming.path_params["sequence"], least=1)
    return incoming.name("worker"), sequence


def _wanted(incoming: Incoming, body_media_type: str) -> Wanted:
    """Checked before the body is read: a gradient must not be applied for an answer that cannot be given."""
    accept = incoming.header(b"accept")
    representation = parse_preferences(incoming.header(b"prefer")).representation
    media_type = answer_type(accept, body_media_type)
    return Wanted(representation, media_type, parse_dtype(incoming.query("dtype")))


def _check_json_fits(layout: Layout | None) -> None:
    if layout is not None and layout.parameters > JSON_ELEMENTS_MAX:
        raise refuse(
            "json-too-large",
            f"JSON holds at most {JSON_ELEMENTS_MAX} elements, the weights have {layout.parameters}: "
            f"accept {MEDIA_TYPE}; nothing was applied",
            limit=JSON_ELEMENTS_MAX,
        )


def _decode(form: Form, body: bytes | memoryview) -> tuple[Frame, PushFields]:
    """The gradients and what is said about them. Raises `malformed-…`, `validation-error`."""
    try:
        if form == "safetensors":
            frame = decode_frame(body, rows=True)
            return frame, PushFields.from_metadata(frame.metadata)
        fields = as_object(parse_json(body))
        if "gradients" not in fields:
            raise refuse("validation-error", 'body: expected {"gradients": {…}}; it has no "gradients"')
        return frame_from_json(fields.pop("gradients"), rows=True), PushFields.model_validate(fields)
    except ValidationError as exc:
        raise validation_refusal(exc) from None


async def _send_answer(send: Send, run: str, answer: PushAnswer, wanted: Wanted, timings: dict[str, float]) -> None:
    headers = _outcome_headers(answer.outcome)
    published = answer.published
    if not wanted.representation:
        headers += [(b"gradserve-head", published.head.encode()), VARY, _server_timing(timings)]
        await send_json(send, answer.outcome, headers=headers)
        return
    started = perf_counter()
    headers += weights_headers(published)
    headers.append((b"content-location", b"/v1/runs/%s/weights" % run.encode()))
    selection = Selection.of(published.layout, published.weights, dtype=wanted.dtype, names=None)
    if wanted.media_type == JSON:
        document = {**answer.outcome, "weights": selection.to_json()}
        headers.append(_server_timing({**timings, "encode": perf_counter() - started}))
        await send_json(send, document, headers=headers)
        return
    headers.append(_server_timing({**timings, "encode": perf_counter() - started}))
    await send_tensors(send, selection, media_type=wanted.media_type, headers=headers)


def _outcome_headers(outcome: Mapping[str, Any]) -> Headers:
    headers = [
        (name, str(outcome[key]).encode())
        for name, key in _OUTCOME_HEADERS
        if isinstance(outcome.get(key), (str, int, float))
    ]
    headers.append((b"gradserve-finite", b"true" if outcome["finite"] else b"false"))
    if outcome["batch"] is not None:
        headers.append((b"gradserve-batch", encode_json(outcome["batch"])))
    return headers


def _server_timing(seconds: Mapping[str, float]) -> tuple[bytes, bytes]:
    """Server-Timing: where the time went, in milliseconds."""
    return b"server-timing", ", ".join(f"{name};dur={value * 1e3:.3f}" for name, value in seconds.items()).encode()
