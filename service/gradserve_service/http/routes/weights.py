"""Weights: read by everyone, set by the first worker, replaced by whoever may."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.types import Send

from gradserve.problems import Refused, refuse
from gradserve.wire import MEDIA_TYPE, Frame, decode_frame, frame_from_json, parse_json
from gradserve_service.replica import AVERAGE_NAMES, RAW, Made, Published, Replica

from ..answers import Headers, Selection, send_empty, send_json, send_tensors, weights_headers
from ..bodies import as_object, read_body
from ..hot import hot_route, open_run
from ..media import JSON, Form, answer_type, body_form, parse_dtype
from ..parameters import Incoming, idempotency_key, known_etag, parse_preferences, parse_rows
from ..ranges import wanted_range
from ..waits import Waits

__all__ = ["WEIGHTS_PATH", "routes"]

WEIGHTS_PATH = "/v1/runs/{run}/weights"


async def pull_weights(incoming: Incoming, send: Send) -> None:
    """GET and HEAD: the published weights, or an average of them; with If-None-Match only newer ones; with Prefer:
    wait=N once they come."""
    media_type = answer_type(incoming.header(b"accept"), MEDIA_TYPE)
    query = incoming.query("dtype", "names", "rows", "weights")
    dtype, of = parse_dtype(query), _which(query.get("weights", RAW))
    names = query["names"].split(",") if "names" in query else None
    rows = parse_rows(query["rows"], names) if "rows" in query else None
    run = await open_run(incoming)
    wait_seconds = parse_preferences(incoming.header(b"prefer")).wait_seconds or 0.0
    listed = incoming.header(b"if-none-match")
    held = None if listed is None else known_etag(listed, await run.etag(of))
    published = await _weights(incoming, run, of, held, wait_seconds)
    if published is None:
        await send_empty(send, status=304, headers=_unchanged_headers(run, held))
        return
    if rows is not None and names is not None:
        selection = Selection.of_rows(published.layout, published.weights, dtype=dtype, name=names[0], rows=rows)
    else:
        selection = Selection.of(published.layout, published.weights, dtype=dtype, names=names)
    headers = _version_headers(published)
    head_only = incoming.scope["method"] == "HEAD"
    if media_type == JSON:
        document = {"version": published.version, "weights": selection.to_json()}
        await send_json(send, document, headers=headers, head_only=head_only)
    else:
        part = wanted_range(
            incoming.header(b"range"), incoming.header(b"if-range"), published.etag, selection.body_bytes
        )
        headers.append((b"accept-ranges", b"bytes"))
        await send_tensors(send, selection, media_type=media_type, headers=headers, part=part, head_only=head_only)


async def load_weights(incoming: Incoming, send: Send) -> None:
    """PUT: set the weights, 201 for the first, 200 for others. A precondition is checked before the body is read."""
    form, _ = body_form(incoming)
    incoming.query()
    if_none_match = incoming.header(b"if-none-match")
    if_match = incoming.header(b"if-match")
    key = idempotency_key(incoming)
    run = await open_run(incoming)
    await _check_preconditions(run, if_none_match, if_match, repeats=key is not None)
    with ExitStack() as budget:
        frame = _decode(form, await read_body(incoming, run, form, budget))
        made = await run.load(frame, if_none_match=if_none_match, if_match=if_match, idempotency_key=key)
    document = {"version": made.version, "etag": made.etag, "step": made.step}
    await send_json(send, document, status=201 if made.first else 200, headers=_version_headers(made))


routes = [hot_route(WEIGHTS_PATH, GET=pull_weights, PUT=load_weights)]


def _which(name: str) -> str:
    """The weights themselves, or an average of them. Raises `validation-error`."""
    if name not in (RAW, *AVERAGE_NAMES):
        expected = ", ".join((RAW, *AVERAGE_NAMES))
        raise refuse("validation-error", f"weights: expected one of {expected}; came {name[:40]!r}")
    return name


async def _weights(
    incoming: Incoming, run: Replica, of: str, held: str | None, wait_seconds: float
) -> Published | None:
    if wait_seconds == 0.0:
        return await run.weights(of=of, if_none_match=held)
    waits: Waits = incoming.app.state.waits
    return await waits.hold(
        lambda: run.weights(of=of, if_none_match=held, wait_seconds=wait_seconds),
        requests_max=incoming.limits.waiting_requests_max,
    )


def _version_headers(published: Published | Made) -> Headers:
    return [*weights_headers(published), (b"gradserve-version", b"%d" % published.version)]


def _unchanged_headers(run: Replica, held: str | None) -> Headers:
    """What a 304 repeats: the ETag that still holds."""
    published = run.published
    if published is None or published.etag != held:  # newer ones came between the verdict and this line
        return [(b"etag", (held or "").encode())]
    return _version_headers(published)


async def _check_preconditions(run: Replica, if_none_match: str | None, if_match: str | None, *, repeats: bool) -> None:
    """Refuse before the body is read: of eight workers that bring the first weights, seven need not send them. Whether
    a request with a key (`repeats`) was carried out before is known behind its body only."""
    if if_none_match not in (None, "*"):
        raise refuse("validation-error", f"If-None-Match: expected * with PUT; came {if_none_match!r}; use If-Match")
    if repeats:
        return
    await run.check_precondition(if_none_match)
    if if_match is None:
        return
    current = await _current_etag(run)
    if current is None or if_match not in ("*", current):
        where = current or "no weights yet"
        raise refuse("precondition-failed", f"expected ETag {if_match}, the run is at {where}", etag=current)


async def _current_etag(run: Replica) -> str | None:
    try:
        published = await run.weights()
    except Refused as refused:
        if refused.rejection.code != "weights-uninitialised":
            raise
        return None
    return None if published is None else published.etag


def _decode(form: Form, body: bytes | memoryview) -> Frame:
    """The tensors of the body. Raises `malformed-…`, `too-large`, `validation-error`."""
    if form == "safetensors":
        return decode_frame(body)
    document = as_object(parse_json(body))
    if set(document) != {"weights"}:
        raise refuse("validation-error", f'body: expected {{"weights": {{…}}}}; came {sorted(document)[:5]}')
    return frame_from_json(document["weights"])
