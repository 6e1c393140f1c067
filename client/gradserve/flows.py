"""The conversations about servers and runs, as generators without I/O (see `messages`).

What a worker says is in `session`. Drivers wrap these in `retry.with_retries`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import (
    LayoutMismatch,
    PreconditionFailed,
    RunDeleted,
    UnexpectedAnswer,
    ValidationError,
    WeightsUninitialised,
    from_refused,
)
from .messages import Flow, Headers, Request, Response, Sleep, ask
from .problems import Refused
from .weights import Weights
from .wire import MEDIA_TYPE, Layout, encode_frame

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
JSON_MEDIA_TYPE = "application/json"
POLL_SECONDS = 30.0  # one long-poll: proxies cut idle connections near 60
FIRST_WEIGHTS_SECONDS_MAX = 600.0  # how long a worker waits for rank 0 to upload the first weights
RAW = "raw"  # the weights themselves, not an average of them
BETWEEN_POLLS_SECONDS = 0.5  # against a server that answers a long-poll at once

ACCEPT_JSON = (("Accept", JSON_MEDIA_TYPE),)
ACCEPT_TENSORS = (("Accept", f"{MEDIA_TYPE}, {JSON_MEDIA_TYPE};q=0.1"),)  # problems and plain outcomes may be JSON


def checked_name(kind: str, name: str) -> str:
    """The name, if it is one that the API takes. Raises `ValidationError`."""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise ValidationError(
            f"{kind} name: expected 1-100 of A-Z a-z 0-9 . _ - starting with a letter or digit, came {name!r}"
        )
    return name


@dataclass(frozen=True, slots=True)
class RunKey:
    """Which run: its name, and the uid that tells it from earlier and later runs of that name."""

    name: str
    uid: str

    @property
    def path(self) -> str:
        """Where the run is."""
        return f"/v1/runs/{self.name}"

    @property
    def guard(self) -> Headers:
        """The header of every request that changes the run: a retried DELETE must not kill its successor."""
        return (("Gradserve-Run", self.uid),)


@dataclass(frozen=True, slots=True)
class FirstWeights:
    """The weights that a run starts from, in a copy of their own: uploaded again if the server loses its beginning."""

    layout: Layout
    vector: NDArray[np.float32]

    @classmethod
    def of(cls, tensors: Mapping[str, ArrayLike], argument: str = "init") -> FirstWeights:
        """From a dict of arrays; float64 is rounded to float32, shapes are kept. Raises `ValidationError`."""
        if not isinstance(tensors, Mapping):
            raise ValidationError(f"{argument}: expected a dict of arrays, came {type(tensors).__name__}")
        for name, tensor in tensors.items():
            if isinstance(tensor, Mapping):
                raise ValidationError(f"tensor {name!r}: expected an array, came a dict; name it 'outer.inner'")
        try:
            layout = Layout.of({name: np.shape(tensor) for name, tensor in tensors.items()})
            return cls(layout, layout.flatten(tensors))
        except Refused as refused:
            raise from_refused(refused) from None
        except (TypeError, ValueError, RuntimeError) as error:  # what a foreign array says when it cannot become one
            raise ValidationError(f"{argument}: expected arrays of real numbers: {error}") from None


@dataclass(slots=True)
class OpenedRun:
    """A run as it was found or made."""

    key: RunKey
    description: dict[str, Any] = field(default_factory=dict)


def server_flow() -> Flow[dict[str, Any]]:
    """What the server is: version, limits, store, durability."""
    return (yield from ask_json(Request("GET", "/v1/server", ACCEPT_JSON)))


def runs_flow(state: str | None = None) -> Flow[list[dict[str, Any]]]:
    """All runs, page after page, in name order."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        query = "&".join(f"{key}={quote(value)}" for key, value in (("state", state), ("page_token", token)) if value)
        page = yield from ask_json(Request("GET", f"/v1/runs?{query}" if query else "/v1/runs", ACCEPT_JSON))
        found += page["runs"]
        token = page.get("next_page_token") or ""
        if not token:
            return found


def open_run_flow(
    name: str, spec: Mapping[str, Any] | None, first: FirstWeights | None, *, rank: int
) -> Flow[OpenedRun]:
    """Get or create the run, and let the first worker's weights win.

    Without a spec the run must exist. Rank 0 uploads `first` if the run has no weights; that somebody else was faster
    is as good. The other ranks leave it to their first pull, which waits. Raises `RunExists` (another spec),
    `RunNotFound`, `LayoutMismatch` (the run's weights are not of these names and shapes).
    """
    path = f"/v1/runs/{checked_name('run', name)}"
    if spec is None:
        description = yield from ask_json(Request("GET", path, ACCEPT_JSON))
    else:
        description = yield from ask_json(json_request("PUT", path, spec))
    key = RunKey(name, str(description["uid"]))
    if first is not None and not description["initialised"] and rank == 0:
        yield from upload_flow(key, first)
        description = yield from describe_flow(key)
    if first is not None and description["initialised"]:
        _check_layout(name, first.layout, description)
    return OpenedRun(key, description)


def upload_flow(run: RunKey, first: FirstWeights) -> Flow[bool]:
    """Upload weights if the run has none. True: these are the run's; False: another worker was first."""
    headers = (("Content-Type", MEDIA_TYPE), ("If-None-Match", "*"), *ACCEPT_JSON, *run.guard)
    body = tuple(encode_frame(first.layout, first.vector))
    response = yield from ask(Request("PUT", f"{run.path}/weights", headers, body))
    if response.status < 300:
        return True
    error = response.error()
    if isinstance(error, PreconditionFailed):
        return False
    raise error


def describe_flow(run: RunKey) -> Flow[dict[str, Any]]:
    """The run today. Raises `RunDeleted` when a later run has its name."""
    description = yield from ask_json(Request("GET", run.path, ACCEPT_JSON))
    if description["uid"] != run.uid:
        raise RunDeleted(f"run {run.name!r} was deleted and created again since this client opened it; open it anew")
    return description


def configure_flow(run: RunKey, changes: Mapping[str, Any], idempotency_key: str) -> Flow[dict[str, Any]]:
    """PATCH the run; answers its new description. The key makes a late copy of the request harmless."""
    extra = (("Idempotency-Key", idempotency_key), *run.guard)
    return (yield from ask_json(json_request("PATCH", run.path, changes, extra)))


def delete_flow(run: RunKey) -> Flow[None]:
    """Delete the run. That it is deleted already is as good: the answer to an earlier try may have been lost."""
    response = yield from ask(Request("DELETE", run.path, (*ACCEPT_JSON, *run.guard)))
    if response.status >= 300 and not isinstance(error := response.error(), RunDeleted):
        raise error


def weights_request(run: RunKey, held: Weights | None = None, wait_seconds: float = 0.0, which: str = RAW) -> Request:
    """GET the weights or an average of them, unless they are still the held ones; with a wait, once they are others."""
    headers: Headers = (*ACCEPT_TENSORS, *run.guard)  # a later run of the name has other weights
    if held is not None:
        headers += (("If-None-Match", held.etag),)
    if wait_seconds > 0:
        headers += (("Prefer", f"wait={wait_seconds:g}"),)
    query = "" if which == RAW else f"?weights={quote(which, safe='')}"
    return Request("GET", f"{run.path}/weights{query}", headers, wait_seconds=wait_seconds)


def pull_flow(run: RunKey, held: Weights | None = None, wait_seconds: float = 0.0, which: str = RAW) -> Flow[Weights]:
    """The current weights, or an average of them; the held ones when they are still current at the end of the wait.

    Raises `WeightsUninitialised` when there are none, `ValidationError` when the run keeps no such average.
    """
    response = yield from ask(weights_request(run, held, wait_seconds, which))
    return read_weights(response, held)


def part_flow(run: RunKey, names: Sequence[str], rows: ArrayLike | None = None) -> Flow[Weights]:
    """Some tensors of the current weights; with `rows` these rows of the one tensor that is named, in this order.

    Raises `UnknownTensor`, `ValidationError`, `WeightsUninitialised`.
    """
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        raise ValidationError(f"names: expected a list of tensor names, came {names!r:.80}")
    if unfit := next((name for name in names if "," in name), None):
        raise ValidationError(
            f"names: a name with a comma cannot be asked for alone, came {unfit!r:.80}: pull them all"
        )
    query = f"names={','.join(quote(name, safe='') for name in names)}"
    if rows is not None:
        ids = np.asarray(rows)
        if len(names) != 1 or ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            came = f"{ids.dtype} of shape {list(ids.shape)} of {len(names)} tensors"
            raise ValidationError(f"rows: expected a vector of row ids of one tensor, came {came}")
        query += f"&rows={','.join(map(str, ids.tolist()))}"
    response = yield from ask(Request("GET", f"{run.path}/weights?{query}", (*ACCEPT_TENSORS, *run.guard)))
    if response.status == 200:
        return Weights.of_response(response, part=True)
    raise response.error()


def read_weights(response: Response, held: Weights | None) -> Weights:
    """The weights that an answer to `weights_request` brings or confirms; raises its refusal."""
    if response.status == 200:
        return Weights.of_response(response)
    if response.status == 304 and held is not None:
        return held
    raise response.error()


def first_pull_flow(run: RunKey, first: FirstWeights | None, *, rank: int, which: str = RAW) -> Flow[Weights]:
    """The current weights of a run that may have none yet: rank 0 uploads its own, the others wait for them.

    Raises `WeightsUninitialised` after ten minutes without any.
    """
    for wait_seconds in _polls():
        try:
            return (yield from pull_flow(run, wait_seconds=wait_seconds, which=which))
        except WeightsUninitialised as error:
            if rank == 0 and first is not None:
                yield from upload_flow(run, first)
            elif wait_seconds > 0:
                yield Sleep(BETWEEN_POLLS_SECONDS, f"{error}; waiting for rank 0 to upload them")
    raise WeightsUninitialised(
        f"run {run.name!r} got no weights in {FIRST_WEIGHTS_SECONDS_MAX:.0f} s; "
        "expected rank 0 to call client.run(…, init=params)"
    )


def optimizer_state_flow(run: RunKey) -> Flow[Weights]:
    """Every slot of the optimizer by tensor, named `<slot>/<tensor>`."""
    response = yield from ask(Request("GET", f"{run.path}/optimizer-state", (*ACCEPT_TENSORS, *run.guard)))
    return read_weights(response, None)


def _polls() -> Iterator[float]:
    yield 0.0  # at first without a wait: usually they are there, or rank 0 has to bring them
    waited = 0.0
    while waited < FIRST_WEIGHTS_SECONDS_MAX:
        yield POLL_SECONDS
        waited += POLL_SECONDS


def json_request(method: str, path: str, body: Mapping[str, Any], extra: Headers = ()) -> Request:
    """A request with a JSON body."""
    content = json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    return Request(method, path, (("Content-Type", JSON_MEDIA_TYPE), *ACCEPT_JSON, *extra), (content,))


def ask_json(request: Request) -> Flow[dict[str, Any]]:
    """One request and the JSON object that it is answered with; raises its refusal."""
    response = yield from ask(request)
    if response.status >= 300:
        raise response.error()
    answer = response.json()
    if not isinstance(answer, dict):
        raise UnexpectedAnswer(response.status, str(answer))
    return answer


def _check_layout(name: str, layout: Layout, description: Mapping[str, Any]) -> None:
    """The first worker's weights won: are they at least of the shapes that this worker computes with?"""
    there = {tensor["name"]: tuple(tensor["shape"]) for tensor in description["tensors"]}
    here = dict(zip(layout.names, layout.shapes, strict=True))
    for tensor in sorted(there.keys() | here.keys()):
        if there.get(tensor) != here.get(tensor):
            raise LayoutMismatch(
                f"run {name!r} exists with other tensors: {tensor!r} is {there.get(tensor, 'absent')} there, "
                f"{here.get(tensor, 'absent')} in init; use its shapes, or another name"
            )
