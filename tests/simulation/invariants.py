"""What must hold, whatever went wrong. One function, one sentence; each yields what contradicts it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from gradserve.weights import Weights
from gradserve.wire import decode_frame
from gradserve_service.core.arrays import Arrays
from gradserve_service.core.control import SUPERSEDED_KEPT
from gradserve_service.core.image import decode_image

from .answers import ANSWER_INVARIANTS, slots_in, slots_of
from .disk import named_objects
from .evidence import Evidence, makes_weights, pushes
from .ledger import Gradient
from .records import RECORD_INVARIANTS, watchers_hear_the_end
from .states import STATE_INVARIANTS

if TYPE_CHECKING:
    from .world import World

Invariant = Callable[[Evidence], Iterator[str]]
SHOWN_EACH = 3  # contradictions of one sentence that are worth reading


def chained(e: Evidence) -> Iterator[str]:
    """Positions are contiguous and each hash is made of the one before."""
    yield from e.archive.complaints


def applied_once(e: Evidence) -> Iterator[str]:
    """No gradient is on a chain twice."""
    for history in e.histories:
        seen: dict[str, int] = {}
        for node in pushes(history):
            digest = node.header["digest"]
            if digest in seen:
                yield f"gradient {digest[:8]} of {node.header['worker']} at {seen[digest]} and {node.position}"
            seen[digest] = node.position


def changed_once(e: Evidence) -> Iterator[str]:
    """No change of settings and no new weights are on a chain twice, or on that of another run."""
    for history in e.histories:
        seen: set[str] = set()
        for node in history:
            kind, key = node.header["kind"], node.header.get("key")
            fresh = kind == "load" and "source" not in node.header  # two restores may bring the same state
            names = {name for name in (key, node.header["digest"] if fresh else None) if name}
            if any(e.ledger.keys.get(name, node.uid) != node.uid for name in names):
                yield f"{kind} {key} at {node.position} was meant for another run"
            if names & seen:
                yield f"{kind} {min(names & seen)} again at {node.position}"
            seen |= names


def deleted_as_asked(e: Evidence) -> Iterator[str]:
    """Only a run that was asked to go is deleted, and a name stands for the same run until then."""
    yield from (
        f"run {uid} was deleted, nobody asked for that" for uid in e.archive.deleted if uid not in e.ledger.deletions
    )
    living = [uid for uid, run in e.disk.contents.runs.items() if not run.deleted and e.archive.is_main(uid)]
    if len(living) > 1:
        yield f"{len(living)} runs have one name"


def acknowledged_or_told(e: Evidence) -> Iterator[str]:
    """An acknowledged gradient is on the final chain, or its worker was told of the loss."""
    yield from (f"gradient {digest[:8]}: {why}" for digest, why in untold(e))


def untold(e: Evidence) -> Iterator[tuple[str, str]]:
    """Acknowledged gradients that are lost and nobody was told."""
    kept = {node.header["digest"] for node in pushes(e.final)}
    sequences = {(node.header["worker"], node.header["sequence"]) for node in pushes(e.final)}
    for digest, gradient in e.ledger.gradients.items():
        if gradient.acknowledged is None or digest in kept:
            continue
        lost = e.lost_at(digest)
        if lost is None:
            yield digest, f"{gradient.worker} was told {gradient.outcome}, and it never was on the chain"
            continue
        if gradient.worker in e.ledger.gone and lost > e.ledger.asked_to_leave(gradient.worker):
            continue  # nobody is left who could be told
        # Who sends no `after` cannot be told when another of its gradients has taken the lost one's sequence.
        if not _told(e, gradient) and (gradient.says_after or (gradient.worker, gradient.sequence) not in sequences):
            yield digest, f"push {gradient.sequence} of {gradient.worker} is lost, and the worker was not told"


def _told(e: Evidence, gradient: Gradient) -> bool:
    """Whether the worker learned where the run stands while the gradient was lost: the process that had its
    acknowledgement (and has it still when it is told), or the one that replaced it. What a late copy brings back then
    and the store loses again is no news to it."""
    assert gradient.acknowledged is not None
    known = gradient.acknowledged
    notices = [notice for notice in e.ledger.notices if notice.worker == gradient.worker]
    replaced = any(n.kind == "fenced" and n.instance == gradient.instance and n.tick > known for n in notices)
    return any(
        e.off_chain_between(gradient.digest, e.ledger.began(notice), notice.tick)
        for notice in notices
        if notice.kind in ("registered", "rewound") and (notice.tick > known or replaced)
    )


def no_false_alarm(e: Evidence) -> Iterator[str]:
    """Nobody is told of a loss before something is lost."""
    if e.rewound or e.archive.deleted:
        return
    for exchange in e.ledger.exchanges:
        if exchange.response is not None and b"history-rewound" in bytes(exchange.response.body):
            yield f"{exchange.client}: {exchange.request.method} {exchange.request.path}: {exchange.response.error()}"


def items_in_order(e: Evidence) -> Iterator[str]:
    """A worker that follows its cursor has each of its items on the final chain once, in order, none left out."""
    for worker, done in e.ledger.items_done.items():
        items = [int(node.header["cursor"]) for node in pushes(e.final) if node.header["worker"] == worker]
        if items != list(range(1, done + 1)):
            yield f"{worker} has done {done} items, the chain has {items}"


def computed_at_this_history(e: Evidence) -> Iterator[str]:
    """A gradient is applied only on a history that made the weights which it was computed at."""
    for history in e.histories:
        versions = {e.state(node)[0].version: node for node in history if makes_weights(node)}
        for node in pushes(history):
            gradient = e.ledger.gradients[node.header["digest"]]
            if gradient.base_bytes is None:
                continue
            base = versions[node.header["base"]]
            if base.position >= node.position or e.weights(base).tobytes() != gradient.base_bytes:
                yield f"entry {node.position}: version {node.header['base']} here is not {gradient.base_etag} there"


def not_older_than_allowed(e: Evidence) -> Iterator[str]:
    """No gradient is older than the staleness rule allows, or than weights that were replaced since."""
    for history in e.histories:
        floor = 0
        for node in history:
            if node.header["kind"] == "load":
                floor = e.state(node)[0].version
            if node.header["kind"] != "push":
                continue
            assert node.parent is not None
            control = e.state(node.parent)[0]
            limit = control.spec.staleness.max_staleness
            lag = control.version - node.header["base"]
            if node.header["base"] < floor or (limit is not None and lag > limit):
                yield f"entry {node.position} was computed {lag} versions ago; limit {limit}, weights came at {floor}"


def fenced(e: Evidence) -> Iterator[str]:
    """Nothing of a process is applied once its successor has joined, and nobody that is remembered joins anew."""
    for history in e.histories:
        present: dict[str, str] = {}
        joined: dict[str, int] = {}
        for node in history:
            worker = node.header.get("worker", "")
            if node.header["kind"] == "join":
                instance, generation = node.header["instance"], node.header["generation"]
                before = joined.get(instance, generation)
                if before != generation and generation - before <= SUPERSEDED_KEPT + 1:
                    yield f"{instance} joined as generation {before} and again as {generation}"
                joined[instance] = generation
                present[worker] = instance
            elif node.header["kind"] == "push":
                instance = e.ledger.gradients[node.header["digest"]].instance
                if instance is not None and present.get(worker, instance) != instance:
                    yield f"entry {node.position} is a push of {instance}, {present[worker]} had taken over"


def snapshots_are_replays(e: Evidence) -> Iterator[str]:
    """A published image is the state that a replay of its history gives, bit for bit."""
    for snapshot, image in e.archive.images:
        node = e.archive.nodes.get(snapshot.hash)
        if node is None:
            yield f"the snapshot at {snapshot.position} is of a history that never was"
            continue
        control, arrays = e.state(node)
        read, held = decode_image(memoryview(image), control.uid, control.creation.to_bytes(), snapshot.digest)
        if read != control:
            yield f"the control state in the snapshot at {snapshot.position} differs from the replay"
        if _told_by(held) != _told_by(arrays):
            yield f"the history in the snapshot at {snapshot.position} differs from the replay"
        pairs = [(held.weights, arrays.weights), *((held.slots[name], arrays.slots[name]) for name in arrays.slots)]
        if _batch_of(held) != _batch_of(arrays):
            yield f"the open batch in the snapshot at {snapshot.position} differs from the replay"
        if not all(_same(one, other) for one, other in pairs):
            yield f"weights or slots in the snapshot at {snapshot.position} differ from the replay"


def always_recoverable(e: Evidence) -> Iterator[str]:
    """At any moment a server can start from the newest snapshot, or from the one before, and the journal behind it."""
    yield from e.disk.unrecoverable


def payloads_are_there(e: Evidence) -> Iterator[str]:
    """Every entry that is kept has its payload, and it is the one that was journaled."""
    for run in e.disk.contents.runs.values():
        for position, record in run.entries.items():
            header = e.archive.nodes[record.hash].header
            if not header.get("size"):
                continue
            kept = None if record.object is None else run.objects.get(record.object.id)
            content = bytes(record.inline) if record.object is None else kept.content if kept else b""
            if not content or decode_frame(content).digest != header["digest"]:
                yield f"the payload of entry {position} is missing or another"


def nothing_left_over(e: Evidence) -> Iterator[str]:
    """When all has come to rest, every object is named by an entry, a snapshot or a checkpoint."""
    for run in e.disk.contents.runs.values():
        named = named_objects(run)
        for name, kept in e.disk.living(run).items():
            if name not in named or kept.expires_at is not None:
                yield f"{name} ({len(kept.content)} bytes) stays and nothing names it"


def journal_is_trimmed(e: Evidence) -> Iterator[str]:
    """In quiet times snapshots follow each other, and the journal behind the one before the newest goes."""
    due = [node.position for node in e.final if node.tick > e.quiet_from
           and e.state(node)[0].snapshot_position == node.position]  # fmt: skip
    runs = e.disk.contents.runs.items()
    for run in [run for uid, run in runs if not run.deleted and e.archive.is_main(uid)]:
        newest = run.snapshots[0].position if run.snapshots else 0
        previous = run.snapshots[1].position if len(run.snapshots) > 1 else 0
        if len(due) > 1 and newest < due[-2]:
            yield f"snapshots were due at {due}, the newest is of {newest}"
        if run.entries and newest and min(run.entries) <= previous and due and newest >= due[0]:
            yield f"the journal begins with {min(run.entries)}, the snapshot before the newest is of {previous}"


def servers_agree(e: Evidence) -> Iterator[str]:
    """At the end all servers show the head of the chain, with the weights and slots of its replay, bit for bit."""
    control, arrays = e.state(e.archive.head)
    for shown in e.shown:
        answers = [shown[part] for part in ("run", "weights", "slots")]
        if any(answer.status != 200 for answer in answers):
            yield f"{shown['server']} answers {[answer.status for answer in answers]}"
            continue
        run, weights = answers[0].json(), Weights.of_response(answers[1])
        if (run["head"], run["version"], weights.etag) != (control.head.hex(), control.version, control.etag):
            yield f"{shown['server']} is at {run['position']} {weights.etag}, the chain at {control.position}"
        if not _same(weights.vector, arrays.weights):
            yield f"{shown['server']} has other weights than the replay"
        if slots_in(answers[2]) != slots_of(e, e.archive.head):
            yield f"{shown['server']} has other slots than the replay"


INVARIANTS: tuple[Invariant, ...] = (
    chained,
    applied_once,
    changed_once,
    deleted_as_asked,
    acknowledged_or_told,
    no_false_alarm,
    items_in_order,
    computed_at_this_history,
    not_older_than_allowed,
    fenced,
    snapshots_are_replays,
    always_recoverable,
    payloads_are_there,
    nothing_left_over,
    journal_is_trimmed,
    *ANSWER_INVARIANTS,
    *STATE_INVARIANTS,
    *RECORD_INVARIANTS,
    servers_agree,
)

OFTEN_WRONG = b"the state that this server computes from the journal was not the published one"

# Not of damaged journals:
OF_WHOLE_JOURNALS = (payloads_are_there, nothing_left_over, journal_is_trimmed, watchers_hear_the_end)


def violations_of(world: World) -> list[str]:
    """Everything that contradicts an invariant, as `sentence: what`."""
    evidence = world.evidence()
    faults = [f"no server fails by itself: {what}" for what in faults_of_its_own(world)]
    if not world.archive.heads:
        return faults
    found: list[str] = []
    for invariant in INVARIANTS:
        if world.mix.rot_seconds and invariant in OF_WHOLE_JOURNALS:
            continue
        sentence = " ".join((invariant.__doc__ or "").split()).rstrip(".")
        try:
            contradictions = list(dict.fromkeys(invariant(evidence)))
        except Exception as error:  # noqa: BLE001 - what cannot even be looked at contradicts it
            contradictions = [f"cannot be looked at: {error!r}"]
        found += [f"{sentence}: {what}" for what in contradictions[:SHOWN_EACH]]
    return found + faults


def faults_of_its_own(world: World) -> Iterator[str]:
    """What no server may do, whatever the store and the network do."""
    for server in world.servers:
        yield from (f"{server.name}: {what}" for what in server.faults_of_its_own[:SHOWN_EACH])
    yield from world.loop.complaints[:SHOWN_EACH]
    if world.mix.rot_seconds:
        return  # there it may, and must
    told = {"state_diverged"} if world.mix.bits_flipped else set[str]()  # there it has to be
    loud = [line for line in world.logged if line["log_level"] in ("error", "critical") and line["event"] not in told]
    for line in loud[:SHOWN_EACH]:
        yield f"{line['event']} {line.get('reason', '')} {line.get('exc_info', line.get('exception', ''))!s:.2000}"
    for exchange in world.ledger.exchanges:
        body = b"" if exchange.response is None else bytes(exchange.response.body)
        # What computes wrongly again and again has to stand aside, and does.
        set_aside = b'"quarantined"' in body and not (world.mix.bits_flipped and OFTEN_WRONG in body)
        if set_aside or (exchange.response is not None and exchange.response.status == 500):
            yield f"{exchange.request.method} {exchange.request.path}: {body[:200]!r}"
            return


def _told_by(arrays: Arrays) -> tuple[str, list[tuple[str, bytes]], str]:
    """History and memory as text and bytes: there a NaN equals a NaN."""
    history = arrays.history
    tables = [(name, table.tobytes()) for name, table in history.vectors()]
    return json.dumps(history.to_json()), tables, json.dumps(arrays.memory)


def _batch_of(arrays: Arrays) -> object:
    batch = arrays.accumulator
    return batch and (batch.total.tobytes(), batch.to_json())


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.tobytes() == other.tobytes()
