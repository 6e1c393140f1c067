"""How the protections in the rules are switched off: a request loses what is compared, or the control state forgets it.

One small patch each, undone at the end of the block: what a careless change would be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from gradserve_service.core import machine
from gradserve_service.core.control import Control, WorkerRow
from gradserve_service.core.entries import Entry
from gradserve_service.core.machine import Configure, Leave, Load, Push, Register
from gradserve_service.replica.replica import Replica
from gradserve_service.replica.replicas import Replicas

Off = Iterator[None]


@contextmanager
def decided(kind: type, change: Callable[[Control, Any], tuple[Control, Any]]) -> Off:
    """Requests of one kind are decided as if they, or the control state, were others."""
    decide = machine._DECIDERS[kind]
    with mock.patch.dict(machine._DECIDERS, {kind: lambda control, request: decide(*change(control, request))}):
        yield


def no_duplicates() -> Any:
    """A repeated push is taken for the next one."""

    def change(control: Control, push: Push) -> tuple[Control, Push]:
        row = control.row(push.worker)
        repeated = push.sequence == row.last_sequence and push.digest == row.last_digest
        return control, dataclasses.replace(push, sequence=row.next_sequence, after=None) if repeated else push

    return decided(Push, change)


def any_digest() -> Any:
    """A push whose sequence was the last one is a duplicate, whatever it brings."""

    def change(control: Control, push: Push) -> tuple[Control, Push]:
        row = control.row(push.worker)
        same = push.sequence == row.last_sequence
        return control, dataclasses.replace(push, digest=row.last_digest) if same else push

    return decided(Push, change)


def no_receipts() -> Any:
    """`after` is not compared."""
    return decided(Push, lambda control, push: (control, dataclasses.replace(push, after=None)))


def no_generations() -> Any:
    """`generation` is not compared."""
    return decided(Push, lambda control, push: (control, dataclasses.replace(push, generation=None)))


def no_superseded() -> Any:
    """A registration from a replaced process is one of a new process."""

    def change(control: Control, request: Register) -> tuple[Control, Register]:
        return _with_row(control, request.worker, superseded=()), request

    return decided(Register, change)


def always_join() -> Any:
    """Who registers twice has joined twice."""

    def change(control: Control, request: Register) -> tuple[Control, Register]:
        again = request.generation is None
        return (_with_row(control, request.worker, instance=None) if again else control), request

    return decided(Register, change)


def no_base_etag() -> Any:
    """Only the number of the base version is looked at."""
    return decided(Push, lambda control, push: (control, dataclasses.replace(push, base=None)))


def etag_is_version() -> Any:
    """`ETag = "<version>"`."""

    def new_version(control: Control, entry: Entry) -> None:
        control.version += 1
        control.etags[control.version] = f'"{control.version}-{0:016x}"'

    return mock.patch.object(machine, "_new_version", new_version)


def leave_unchecked() -> Any:
    """Leaving compares nothing."""
    return decided(Leave, lambda control, leave: (control, Leave(leave.worker)))


@contextmanager
def no_floor_after_load() -> Off:
    """New weights leave `base_floor` where it is."""
    advance = machine._ADVANCERS["load"]

    def unraised(control: Control, entry: Entry, header: Any) -> None:
        floor = control.base_floor
        advance(control, entry, header)
        control.base_floor = floor

    with mock.patch.dict(machine._ADVANCERS, {"load": unraised}):
        yield


def no_floor_after_forgetting() -> Any:
    """A row is forgotten, and the base versions of its pushes with it."""
    original = machine._row_for

    def row_for(control: Control, worker: str) -> WorkerRow:
        floor = control.base_floor
        row = original(control, worker)
        control.base_floor = floor
        return row

    return mock.patch.object(machine, "_row_for", row_for)


@contextmanager
def no_keys() -> Off:
    """Nobody remembers an Idempotency-Key."""

    def change(control: Control, request: Any) -> tuple[Control, Any]:
        return dataclasses.replace(control, repeats={}), request

    with decided(Configure, change), decided(Load, change):
        yield


def no_key_of_its_own() -> Any:
    """A change that came without a key is known by nothing when it is decided again."""

    @contextmanager
    def off() -> Off:
        with decided(Configure, unkeyed), decided(Load, unkeyed):
            yield

    def unkeyed(control: Control, request: Any) -> tuple[Control, Any]:
        return control, dataclasses.replace(request, own_key=None)

    return off()


def loads_without_condition() -> Any:
    """`If-None-Match` and `If-Match` are looked at by the route alone, before the queue."""

    def change(control: Control, load: Load) -> tuple[Control, Load]:
        return control, dataclasses.replace(load, if_none_match=None, if_match=None)

    return decided(Load, change)


def _with_row(control: Control, worker: str, **changes: Any) -> Control:
    if worker not in control.workers:
        return control
    row = dataclasses.replace(control.workers[worker], **changes)
    return dataclasses.replace(control, workers={**control.workers, worker: row})


# Which run


def no_run_guard() -> Any:
    """`Gradserve-Run` is not looked at."""
    original = Replicas.open

    async def open_run(self: Replicas, name: str, uid: str | None = None) -> Replica:
        return await original(self, name)

    return mock.patch.object(Replicas, "open", open_run)
