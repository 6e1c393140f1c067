"""Invariants of states that were kept, brought back and branched from, and of the changes that people asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from gradserve.messages import Request
from gradserve_service.core.checkpoint import SavedState, decode_checkpoint
from gradserve_service.core.control import Control

from .answers import FILE, answered
from .archive import Bindings, Node
from .evidence import Evidence, makes_weights
from .ledger import Exchange

LISTED = ("name", "version", "step", "position", "etag", "bytes", "created_at")


def checkpoints_are_replays(e: Evidence) -> Iterator[str]:
    """A checkpoint is the state that a replay gives at its position, bit for bit."""
    for uid, record, file in e.archive.checkpoints:
        saved = decode_checkpoint(memoryview(file))
        if saved.position is None:
            continue  # imported
        nodes = e.at_position.get((uid, saved.position), [])
        if not any(e.state(node)[0].etag == saved.etag and _is_state(e, saved, node) for node in nodes):
            yield f"checkpoint '{record.name}' of {saved.position} differs from the replay"


def checkpoints_stay(e: Evidence) -> Iterator[str]:
    """A name of a checkpoint stands for one state until it is deleted, or lost with a tail of the store."""
    runs: dict[str, list[Bindings]] = {}
    for bindings in e.archive.bindings:
        runs.setdefault(bindings.uid, []).append(bindings)
    for uid, states in runs.items():
        for before, after in pairwise(states):
            for name in before.names.keys() & after.names.keys():
                if before.names[name] != after.names[name] and not after.lost:
                    yield f"checkpoint '{name}' of {uid} became another"


def checkpoints_are_answered(e: Evidence) -> Iterator[str]:
    """What is listed, made and read of checkpoints is what their names stood for since the request was sent."""
    files = {record.object.id: file for _, record, file in e.archive.checkpoints}
    for exchange, response in answered(e):
        method, path = exchange.request.method, exchange.request.path
        if "/checkpoints" not in path or method == "DELETE" or response.status not in (200, 201):
            continue
        moments = list(_bindings_while(e, exchange))
        name = path.rpartition("/")[2]
        if FILE not in path:
            listed = response.json()["checkpoints"]
            true = any([_item(names[name]) for name in sorted(names)] == listed for names in moments)
        elif method == "PUT":
            true = any(name in names and _item(names[name]) == response.json() for names in moments)
        else:
            true = any(name in names and files[names[name].object.id] == response.body for names in moments)
        if not true:
            yield f"{exchange.client}: {method} {path} {response.status} is nothing that was there"


def restores_bring_states(e: Evidence) -> Iterator[str]:
    """A restored run has the weights, the slots and the step of the state that was asked for."""
    kept: dict[tuple[str, str], list[SavedState]] = {}
    for uid, record, file in e.archive.checkpoints:
        kept.setdefault((e.archive.names[uid], record.name), []).append(decode_checkpoint(memoryview(file)))
    versions: dict[tuple[str, int], list[Node]] = {}
    for node in e.archive.nodes.values():
        if makes_weights(node):
            versions.setdefault((node.uid, e.state(node)[0].version), []).append(node)
    for node in e.archive.nodes.values():
        source = node.header.get("source")
        if source is None:
            continue
        if "version" in source:
            found = any(_same_arrays(e, node, other) for other in versions.get((node.uid, source["version"]), []))
        else:
            asked = source.get("branch") or {"run": e.archive.names[node.uid], **source}
            found = any(_is_state(e, saved, node, settings=False) for saved in kept[asked["run"], asked["checkpoint"]])
        if not found:
            yield f"entry {node.position} of {e.archive.names[node.uid]} brings something else than {source}"


def restores_are_answered(e: Evidence) -> Iterator[str]:
    """A restore is answered with where the run stood behind it, also when it is asked for again."""
    for exchange, response in answered(e):
        if not exchange.request.path.endswith("/restore") or response.status != 200:
            continue
        told, key = response.json(), dict(exchange.request.headers)["Idempotency-Key"]
        nodes = [node for (_, at), found in e.at_position.items() if at == told["position"] for node in found]
        if not any(node.header.get("key") == key and _stands(e.state(node)[0], told) for node in nodes):
            yield f"{exchange.client}: restore {key} was answered with {told}"


def branches_begin_once(e: Evidence) -> Iterator[str]:
    """A branch begins with its checkpoint, and nothing sets it back to that later."""
    for history in e.histories:
        if not history or e.archive.is_main(history[0].uid):
            continue
        again = [node.position for node in history if "branch" in node.header.get("source", ())]
        if again != [1]:
            yield f"{e.archive.names[history[0].uid]} was set to its beginning at {again}"
    begun = {node.uid for node in e.archive.nodes.values() if node.position}
    yield from (f"the branch {uid} was answered and has no weights" for uid in e.ledger.branched if uid not in begun)


def changes_stand(e: Evidence) -> Iterator[str]:
    """A change that was answered with success is on a chain, as the kind of change that was asked for."""
    carried: dict[str, set[tuple[str, int]]] = {}
    for node in e.archive.nodes.values():
        if key := node.header.get("key"):
            carried.setdefault(key, set()).add((_kind(node), node.tick))
    for exchange, response in answered(e):
        key = dict(exchange.request.headers).get("Idempotency-Key")
        wanted = _asked(exchange.request)
        if key is None or wanted is None or response.status >= 300:
            continue
        assert exchange.end is not None
        heads = e.heads_while(exchange.begin, exchange.end)
        if wanted == "configure" and any(e.state(node)[0].state == "closed" for node in heads):
            continue  # that a closed run is as it was asked to be needs no entry
        if not any(kind == wanted and tick < exchange.end for kind, tick in carried.get(key, ())):
            yield f"{wanted} {key} was answered {response.status}, and no entry is of it"


def rates_are_those_meant(e: Evidence) -> Iterator[str]:
    """An update has the rate that its push names, or the one that settings and reports gave at that moment, and is
    counted with the samples that its worker said."""
    for history in e.histories:
        counted = 0.0
        for node in history:
            assert node.parent is not None
            if "source" in node.header:
                counted = node.header["state"]["samples_seen"]  # what was seen goes with the state
            if node.header["kind"] != "push":
                continue
            gradient, header = e.ledger.gradients[node.header["digest"]], node.header
            counted += _samples_applied(header)
            said = (gradient.samples, gradient.loss)
            if gradient.instance is not None and (header["samples"], header["loss"]) != said:
                yield f"entry {node.position} has samples {header['samples']}, its worker said {gradient.samples}"
            wanted = gradient.lr if gradient.lr is not None else _rate(e, node.parent)
            if header["update"] is not None and header["update"]["lr"] != wanted:
                yield f"entry {node.position} has the rate {header['update']} instead of {wanted}"
            if e.state(node)[0].samples_seen != counted:
                yield f"after entry {node.position} {e.state(node)[0].samples_seen} samples are counted, {counted} came"


def batches_are_complete(e: Evidence) -> Iterator[str]:
    """A batch becomes an update with the push that reaches its target, not before; new weights leave nothing of it."""
    for history in e.histories:
        waiting: list[float] = []  # samples of the contributions
        for node in history:
            header, (control, _) = node.header, e.state(node)
            if header["kind"] == "load":
                waiting = []
            if header["kind"] == "push":
                waiting.append(header["samples"])
                wanted = control.spec.accumulate
                if wanted is None:
                    complete = True
                elif wanted.pushes is not None:
                    complete = len(waiting) >= wanted.pushes
                else:
                    complete = sum(waiting) >= (wanted.samples or 0.0)
                if complete != (header["outcome"] == "applied"):
                    yield f"entry {node.position} is {header['outcome']} with {waiting} of {wanted}"
                waiting = [] if complete else waiting
            if (control.batch.pushes, control.batch.samples) != (len(waiting), sum(waiting)):
                yield f"after entry {node.position} the batch is {control.batch}, {waiting} came"


def closed_for_good(e: Evidence) -> Iterator[str]:
    """Nothing but reports, arrivals and departures comes behind the closing of a run."""
    for history in e.histories:
        closed = False
        for node in history:
            if closed and node.header["kind"] not in ("report", "join", "leave"):
                yield f"{node.header['kind']} at {node.position}, and the run was closed"
            closed = closed or node.header.get("state") == "closed"


STATE_INVARIANTS = (
    checkpoints_are_replays,
    checkpoints_stay,
    checkpoints_are_answered,
    restores_bring_states,
    restores_are_answered,
    branches_begin_once,
    changes_stand,
    rates_are_those_meant,
    batches_are_complete,
    closed_for_good,
)


# How they are read


def _is_state(e: Evidence, saved: SavedState, node: Node, *, settings: bool = True) -> bool:
    """Whether a kept state is that at the end of a history; `settings`: also its spec and its schedule's state."""
    control, arrays = e.state(node)
    if arrays.weights is None or saved.weights.tobytes() != arrays.weights.tobytes():
        return False
    if saved.step != arrays.step or control.step != arrays.step:
        return False
    slots = _equal_slots(saved.slots, arrays.slots)
    if not settings:
        return slots and (saved.updates, saved.samples_seen) == (control.updates, control.samples_seen)
    same = (dict(saved.memory), saved.plateau) == (arrays.memory, control.plateau)
    seen = (saved.updates, saved.samples_seen) == (control.updates, control.samples_seen)
    return (
        slots and same and seen and saved.spec == control.spec.canonical() and saved.slots.keys() == arrays.slots.keys()
    )


def _same_arrays(e: Evidence, node: Node, other: Node) -> bool:
    (control, arrays), (_, source) = e.state(node), e.state(other)
    assert arrays.weights is not None
    assert source.weights is not None
    return (
        arrays.weights.tobytes() == source.weights.tobytes()
        and _equal_slots(source.slots, arrays.slots)
        and (arrays.step, control.step) == (source.step, source.step)
        and all(arrays.memory[name] == source.memory[name] for name in arrays.memory.keys() & source.memory.keys())
    )


def _equal_slots(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether what both keep is the same: the average of one run may be none of the other's settings."""
    return all(one[name].tobytes() == other[name].tobytes() for name in one.keys() & other.keys())


def _bindings_while(e: Evidence, exchange: Exchange) -> Iterator[Any]:
    """What the main run's names stood for at the moments of an exchange."""
    assert exchange.end is not None
    moments = [bindings for bindings in e.archive.bindings if e.archive.is_main(bindings.uid)]
    for number, bindings in enumerate(moments):
        over = moments[number + 1].tick if number + 1 < len(moments) else exchange.end + 1
        if bindings.tick <= exchange.end and over > exchange.begin:
            yield bindings.names


def _item(record: Any) -> dict[str, Any]:
    about = json.loads(record.about)
    shown = {**about, "name": record.name, "bytes": record.object.size, "created_at": record.created_at}
    return {name: shown[name] for name in LISTED}


def _stands(control: Control, told: dict[str, Any]) -> bool:
    return all(told[name] == getattr(control, name) for name in ("version", "etag", "step", "position"))


def _samples_applied(header: Any) -> float:
    """Samples that are counted with the entry's update: its batch's, or its own."""
    if header["update"] is None:
        return 0.0
    return float(header.get("batch", header)["samples"])


def _kind(node: Node) -> str:
    return "restore" if "source" in node.header else str(node.header["kind"])


def _asked(request: Request) -> str | None:
    """The kind of entry that a request asks for; None where it asks for none."""
    table = {"/restore": "restore", "/metrics": "report", "/weights": "load"}
    if request.method == "PATCH":
        return "configure"
    return None if request.method == "GET" else table.get("/" + request.path.rpartition("/")[2])


def _rate(e: Evidence, node: Node) -> float:
    """The optimizer's rate at that moment; a plateau's scale is counted from the reports, anew."""
    control = e.state(node)[0]
    schedule = control.spec.schedule
    if schedule is None or schedule.name == "client":
        return control.spec.optimizer.lr
    return control.spec.optimizer.lr * control.plateau.scale
