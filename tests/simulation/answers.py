"""Invariants of answers: each is true of a moment between its request and its arrival.

The heads that the chain had in that time are known. So an answer is right when the rules, asked at one of these heads,
give the same: that is what "given only on the present head" means to a client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from gradserve.messages import Request, Response
from gradserve.problems import Rejection
from gradserve.specs import PushFields
from gradserve.weights import Weights
from gradserve.wire import Frame, decode_frame, frame_from_json, parse_json
from gradserve_service.core.control import Control
from gradserve_service.core.machine import Push, Register, decide

from .archive import Node
from .evidence import Evidence
from .ledger import Exchange
from .workers import RUN

PUSH = re.compile(r"/v1/runs/[^/]+/workers/([^/]+)/pushes/(\d+)")
WORKER = re.compile(r"/v1/runs/[^/]+/workers/([^/?]+)")
OF_THE_RUN = re.compile(rf"/v1/runs/{RUN}(?:[/?]|$)")
SLOTS = "/optimizer-state"
FILE = "/checkpoints/"
MEASURED = ("gradient_norm", "clip_scale")


def etags_are_unique(e: Evidence) -> Iterator[str]:
    """An ETag stands for one history and one vector of weights."""
    for etag, nodes in e.by_etag.items():
        if len(nodes) > 1:
            yield f"{etag} stands for {len(nodes)} histories"


def weights_are_replays(e: Evidence) -> Iterator[str]:
    """Weights that anybody was shown are those of a replay of their ETag's history, bit for bit."""
    for exchange, response in answered(e):
        path = exchange.request.path
        if response.status != 200 or not is_tensors(response) or path.endswith(SLOTS) or FILE in path:
            continue
        weights = Weights.of_response(response)
        nodes = e.by_etag.get(weights.etag, [])
        if not any(e.weights(node).tobytes() == weights.vector.tobytes() for node in nodes):
            yield f"{exchange.client} was shown other weights as {weights.etag}"


def weights_are_present(e: Evidence) -> Iterator[str]:
    """Weights, and the word that they are unchanged, are of a head that the chain had since they were asked for."""
    for exchange, response in answered(e):
        etag = response.headers.get("etag")
        if exchange.request.method != "GET" and etag in e.by_etag:
            continue  # of new weights, maybe of those that an earlier try has brought
        if etag is not None and response.status < 400 and FILE not in exchange.request.path:
            yield from _true_once(e, exchange, partial(_etag_is, etag), f"{response.status} {etag}")


def slots_are_replays(e: Evidence) -> Iterator[str]:
    """Slots that anybody was shown are those of a replay of the head that came with them, bit for bit."""
    for exchange, response in answered(e):
        if response.status != 200 or not exchange.request.path.endswith(SLOTS):
            continue
        node = e.archive.nodes[bytes.fromhex(response.headers["gradserve-head"])]
        if slots_in(response) != slots_of(e, node):
            yield f"{exchange.client} was shown other slots than those at {node.position}"


def rows_are_present(e: Evidence) -> Iterator[str]:
    """The list of workers, and what is told of a worker's last push, are of a head since they were asked for."""
    for exchange, response in answered(e):
        if exchange.request.method != "GET" or response.status not in (200, 404):
            continue
        if exchange.request.path.endswith("/workers") and response.status == 200:
            rows = response.json()["workers"]
            yield from _true_once(e, exchange, partial(_rows_are, rows), f"workers {rows}")
        elif match := PUSH.match(exchange.request.path):
            outcome = response.json()
            if outcome.get("code") == "run-not-found":
                continue
            yield from _true_once(e, exchange, partial(_last_is, match[1], int(match[2]), outcome), f"{outcome}")


def heads_are_present(e: Evidence) -> Iterator[str]:
    """A head that an answer names is one that the chain had since the request was sent."""
    for exchange, response in answered(e):
        named = response.headers.get("gradserve-head")
        if named is None and exchange.request.path.count("/") == 3 and response.status < 300:
            named = response.json().get("head") if response.body else None
        brought = exchange.request.method == "PUT" and exchange.request.path.endswith("/weights")
        if named is not None and not (brought and bytes.fromhex(named) in e.archive.nodes):
            yield from _true_once(e, exchange, partial(_head_is, named), f"head {named[:8]}")


def pushes_are_answered_by_the_chain(e: Evidence) -> Iterator[str]:
    """A push is answered with what the chain says of it, and refused only if the rules refuse it on a present head."""
    for exchange, response in answered(e):
        match = PUSH.match(exchange.request.path)
        if match is None or exchange.request.method != "PUT" or response.status == 429 or response.status >= 500:
            continue
        push = read_push(match[1], int(match[2]), exchange.request)
        if response.status == 200:
            outcome = read_outcome(response)
            yield from _true_once(e, exchange, partial(_recorded, e, push, outcome), f"push {push.sequence} {outcome}")
        else:
            yield from _refusal(e, exchange, push, response.json()["code"])


def registrations_are_answered_by_the_chain(e: Evidence) -> Iterator[str]:
    """A registration is answered with the worker's row as it is on the chain, or refused by the rules there."""
    for exchange, response in answered(e):
        match = WORKER.fullmatch(exchange.request.path)
        if match is None or exchange.request.method != "PUT" or response.status == 429 or response.status >= 500:
            continue
        worker, told = match[1], response.json()
        asked = parse_json(b"".join(bytes(piece) for piece in exchange.request.body))
        assert isinstance(asked, dict)
        request = Register(worker, asked["instance"], asked.get("generation"))
        if response.status == 200:
            yield from _true_once(e, exchange, partial(_row_is, worker, told), f"row {told}")
        else:
            yield from _refusal(e, exchange, request, told["code"])


ANSWER_INVARIANTS = (
    etags_are_unique,
    weights_are_replays,
    weights_are_present,
    slots_are_replays,
    rows_are_present,
    heads_are_present,
    pushes_are_answered_by_the_chain,
    registrations_are_answered_by_the_chain,
)


# How answers are read


def answered(e: Evidence) -> Iterator[tuple[Exchange, Response]]:
    """The attempts about the main run whose answers reached their clients."""
    return (
        (exchange, exchange.response)
        for exchange in e.ledger.exchanges
        if exchange.response is not None and OF_THE_RUN.match(exchange.request.path)
    )


def is_tensors(response: Response) -> bool:
    """Whether the body is a frame."""
    return "safetensors" in response.headers.get("content-type", "")


def slots_in(response: Response) -> dict[str, bytes]:
    """The slots of an answer, by `<slot>/<tensor>`."""
    frame = decode_frame(response.body)
    return {name: view.tobytes() for name, view in frame.layout.views(frame.vector()).items()}


def slots_of(e: Evidence, node: Node) -> dict[str, bytes]:
    """The slots at the end of a history, by `<slot>/<tensor>`."""
    arrays = e.state(node)[1]
    assert arrays.layout is not None
    return {
        f"{slot}/{name}": view.tobytes()
        for slot, vector in arrays.slots.items()
        for name, view in arrays.layout.views(vector).items()
    }


def read_push(worker: str, sequence: int, request: Request) -> Push:
    """The push of a request, as the rules see it."""
    body = b"".join(bytes(piece) for piece in request.body)
    frame: Frame
    if dict(request.headers)["Content-Type"] == "application/json":
        document = parse_json(body)
        assert isinstance(document, dict)
        frame, fields = frame_from_json(document.pop("gradients")), PushFields.model_validate(document)
    else:
        frame = decode_frame(body)
        fields = PushFields.from_metadata(frame.metadata)
    said = fields.model_dump()
    return Push(worker, sequence, frame.digest, frame.size, frame.dtype, frame.layout, **said)


def read_outcome(response: Response) -> dict[str, Any]:
    """The outcome that an answer to a push tells, from its body or its headers."""
    if not is_tensors(response):
        answer: dict[str, Any] = response.json()
        return {"next_sequence": answer["next_sequence"], "receipt": answer["receipt"],
                **(answer.get("original") or answer)}  # fmt: skip
    headers = response.headers
    return {
        "version": int(headers["gradserve-version"]),
        "next_sequence": int(headers["gradserve-next-sequence"]),
        "receipt": headers["gradserve-receipt"],
    }


def _etag_is(etag: str, control: Control) -> bool:
    return control.etag == etag


def _head_is(head: str, control: Control) -> bool:
    return control.head.hex() == head


def _recorded(e: Evidence, push: Push, outcome: dict[str, Any], control: Control) -> bool:
    row = control.row(push.worker)
    if row.outcome is None or (row.last_sequence, row.last_digest) != (push.sequence, push.digest):
        return False
    recorded = {**row.outcome, "next_sequence": row.next_sequence, "receipt": row.receipt}
    results = e.state(e.archive.nodes[control.head])[1].history.result(outcome["version"])
    measured = {} if results == (None, None) else dict(zip(MEASURED, results, strict=True))
    return all(outcome[key] == recorded[key] for key in recorded.keys() & outcome.keys()) and all(
        outcome.get(key) in (None, value) for key, value in measured.items()
    )


def _refused(request: Push | Register, code: str, control: Control) -> bool:
    verdict = decide(control, request, 0)
    return isinstance(verdict, Rejection) and verdict.code == code


def _refusal(e: Evidence, exchange: Exchange, request: Push | Register, code: str) -> Iterator[str]:
    """The rules refuse the request; or there is no such run, which is not for them to say."""
    assert exchange.end is not None
    meant = dict(exchange.request.headers).get("Gradserve-Run")
    gone = [uid for uid, tick in e.archive.deleted.items() if tick <= exchange.end]
    if code == "run-deleted":
        if not gone or (meant is not None and meant not in gone):
            yield f"{exchange.client}: run {meant} is said to be deleted, {gone} are"
    elif code != "run-not-found" or exchange.begin > e.archive.heads[0][0]:
        yield from _true_once(e, exchange, partial(_refused, request, code), f"{code} {request}")


def _rows_are(told: list[dict[str, Any]], control: Control) -> bool:
    names = [row["name"] for row in told]
    return names == sorted(control.workers) and all(_row_is(row["name"], row, control) for row in told)


def _last_is(worker: str, sequence: int, told: dict[str, Any], control: Control) -> bool:
    row = control.row(worker)
    if "code" in told:
        return row.last_sequence != sequence or row.outcome is None
    recorded = {**(row.outcome or {}), "next_sequence": row.next_sequence, "receipt": row.receipt}
    return row.last_sequence == sequence and all(told[key] == value for key, value in recorded.items())


def _row_is(worker: str, told: dict[str, Any], control: Control) -> bool:
    row = control.row(worker)
    shown = (told["generation"], told["next_sequence"], told["receipt"], told["cursor"])
    return shown == (row.generation, row.next_sequence, row.receipt, row.cursor)


def _true_once(e: Evidence, exchange: Exchange, holds: Callable[[Control], bool], what: str) -> Iterator[str]:
    return true_once(e, exchange, lambda node: holds(e.state(node)[0]), what)


def true_once(e: Evidence, exchange: Exchange, holds: Callable[[Node], bool], what: str) -> Iterator[str]:
    """Nothing if it holds at one of the heads of the exchange's time, else the contradiction."""
    assert exchange.end is not None
    heads: list[Node] = list(e.heads_while(exchange.begin, exchange.end))
    if not any(holds(node) for node in heads):
        request = exchange.request
        yield (
            f"{exchange.client}: {request.method} {request.path} (ticks {exchange.begin}-{exchange.end}, heads "
            f"{heads[0].position}-{heads[-1].position}): {what}"
        )
