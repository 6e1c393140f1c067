"""Invariants of what readers and watchers are told of a run's past."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from gradserve_service.core.series import select
from gradserve_service.http.json_text import encode_json
from gradserve_service.replica.events import events_of
from gradserve_service.replica.recovery import State
from gradserve_service.replica.statistics import statistics_json

from .answers import answered, true_once
from .archive import Node
from .evidence import Evidence
from .ledger import Told, Watched

MEASURED = frozenset({"gradient_norm", "update_norm", "clip_scale"})  # null where they are kept no longer
NO_ENTRY = frozenset({"gap", "warning", "checkpoint"})


def histories_are_replays(e: Evidence) -> Iterator[str]:
    """The history that anybody was shown is that of a replay, row for row."""
    for exchange, response in answered(e):
        if exchange.request.path.endswith("/history") and response.status == 200:
            shown = response.json()
            yield from true_once(e, exchange, partial(_history_is, e, shown), f"{len(shown['version'])} rows")


def statistics_are_replays(e: Evidence) -> Iterator[str]:
    """The statistics that anybody was shown are those of a replay."""
    for exchange, response in answered(e):
        if exchange.request.path.endswith("/statistics") and response.status == 200:
            yield from true_once(e, exchange, partial(_statistics_are, e, response.json()), f"{response.json()}")


def journals_are_chains(e: Evidence) -> Iterator[str]:
    """A journal that anybody was shown is the chain up to a present head, entry by entry, from where it is kept."""
    for exchange, response in answered(e):
        if not exchange.request.path.endswith("/journal") or response.status != 200:
            continue
        lines = bytes(response.body).splitlines()
        hashes = [json.loads(line)["hash"] for line in lines]
        for line, before, after in zip(lines[1:], hashes, hashes[1:], strict=False):
            header = line[: line.rindex(b',"hash"')] + b"}"
            if hashlib.sha256(bytes.fromhex(before) + header).hexdigest() != after:
                yield f"{exchange.client} was shown a journal that breaks behind {before[:8]}"
        if hashes:
            last = bytes.fromhex(hashes[-1])
            yield from true_once(e, exchange, partial(_ends_in, last), f"journal up to {last.hex()[:8]}")


def events_are_entries(e: Evidence) -> Iterator[str]:
    """Every event tells of an entry that was on the chain, as it was; within one connection in their order."""
    for watched in e.ledger.watched:
        connection = position = -1
        for told in watched.told:
            if told.connection != connection:
                connection, position = told.connection, -1
            if told.kind == "gap":
                position = -1
            if not _is_of_entry(told):
                continue
            if position >= 0 and told.fields["position"] != position + 1:
                yield f"{watched.name}: {told.fields['position']} came behind {position}"
            position = told.fields["position"]
            nodes = [node for (_, at), found in e.at_position.items() if at == position for node in found]
            if not any(_tells_of(e, told, node) for node in nodes):
                yield f"{watched.name}: {told.kind} {dict(told.fields)} is no entry"


def events_are_complete(e: Evidence) -> Iterator[str]:
    """While nothing is lost, a watcher is told of each entry once, in order, or of the gap where some are gone."""
    if e.rewound or e.archive.deleted:
        return
    for watched in e.ledger.watched:
        reached = last = 0
        for told in watched.told:
            position = told.fields.get("position")
            if told.kind == "gap":
                if position not in (reached, last):
                    yield f"{watched.name}: a gap from {position}, {reached} was reached"
                reached = told.fields["kept_from"] - 1
            elif _is_of_entry(told):
                if position != reached + 1:
                    yield f"{watched.name}: {told.kind} {position} came, {reached} was reached"
                reached = last = position


def watchers_hear_the_end(e: Evidence) -> Iterator[str]:
    """A watcher is told that the run was closed."""
    if e.archive.deleted or not any(node.header.get("state") == "closed" for node in e.final):
        return
    yield from (_unended(watched) for watched in e.ledger.watched if not watched.closed)


RECORD_INVARIANTS = (
    histories_are_replays,
    statistics_are_replays,
    journals_are_chains,
    events_are_entries,
    events_are_complete,
    watchers_hear_the_end,
)


# How they are read


def _ends_in(last: bytes, node: Node) -> bool:
    return node.hash == last


def _history_is(e: Evidence, shown: dict[str, list[Any]], node: Node) -> bool:
    arrays = e.state(node)[1]
    names = () if arrays.layout is None else arrays.layout.names
    columns = select(arrays.history, names)
    return shown == {
        name: [None if value != value else value for value in values.tolist()] for name, values in columns.items()
    }


def _statistics_are(e: Evidence, shown: dict[str, Any], node: Node) -> bool:
    """A server may add what happened to itself alone."""
    expected = json.loads(encode_json(statistics_json(State(*e.state(node)), None)))
    warnings = [warning for warning in shown["warnings"] if not warning.startswith("state_diverged")]
    return bool({**shown, "warnings": warnings} == expected)


def _is_of_entry(told: Told) -> bool:
    """Whether the event stands for an entry, and not for something beside the journal."""
    return told.kind not in NO_ENTRY and (told.kind != "rejection" or "outcome" in told.fields)


def _tells_of(e: Evidence, told: Told, node: Node) -> bool:
    if node.parent is None:
        return False
    *_, event = events_of(node.header, e.state(node)[1].history)
    expected = json.loads(encode_json(event.fields))
    if event.kind != told.kind or expected.keys() != told.fields.keys():
        return False
    return all(value == expected[name] or (value is None and name in MEASURED) for name, value in told.fields.items())


def _unended(watched: Watched) -> str:
    last = watched.told[-1] if watched.told else None
    return f"{watched.name} was not; the last it heard was {last}"
