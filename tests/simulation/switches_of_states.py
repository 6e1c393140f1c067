"""How the protections of kept states, of changes and of what is told of the past are switched off.

One small patch each, undone at the end of the block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from gradserve_service.core import machine
from gradserve_service.core.control import Control
from gradserve_service.core.entries import Entry
from gradserve_service.core.history import History
from gradserve_service.core.machine import Answered, Report, Restore
from gradserve_service.core.repeats import found
from gradserve_service.replica import checkpoints, recovery, restores, snapshots
from gradserve_service.replica.checkpoints import Checkpoints
from gradserve_service.replica.events import Feed
from gradserve_service.replica.past import Past
from gradserve_service.replica.recovery import State
from gradserve_service.replica.replica import Replica
from gradserve_service.replica.restores import Restores

from . import disk
from .switches_of_rules import decided

Off = Iterator[None]


@contextmanager
def no_floor_after_restore() -> Off:
    """A restore leaves `base_floor` where it is; new weights raise it."""
    advance = machine._ADVANCERS["load"]

    def unraised(control: Control, entry: Entry, header: Any) -> None:
        floor = control.base_floor
        advance(control, entry, header)
        if "source" in header:
            control.base_floor = floor

    with mock.patch.dict(machine._ADVANCERS, {"load": unraised}):
        yield


@contextmanager
def step_stays() -> Off:
    """A restore brings weights and slots, and the step goes on from where it was."""
    advance = machine._ADVANCERS["load"]

    def forgetful(control: Control, entry: Entry, header: Any) -> None:
        step = control.step
        advance(control, entry, header)
        control.step = step

    with mock.patch.dict(machine._ADVANCERS, {"load": forgetful}):
        yield


@contextmanager
def keys_of_any_operation() -> Off:
    """A key that was used is known, whatever it was used for."""

    def repeated(control: Control, kind: Any, content: Any, key: str | None, own: str | None = None) -> Answered | None:
        known = found(control.repeats, key, own)
        return None if known is None else Answered(made=known[1].made)

    with mock.patch.object(machine, "repeated", repeated), mock.patch.object(restores, "repeated", repeated):
        yield


def reports_again() -> Any:
    """A report is taken whenever it comes."""
    return decided(Report, lambda control, report: (dataclasses.replace(control, repeats={}), report))


@contextmanager
def restores_again() -> Off:
    """A restore is done whenever it comes."""

    async def unknown(self: Restores, source: Any, key: str | None) -> None:
        return None

    forget = decided(Restore, lambda control, restore: (dataclasses.replace(control, repeats={}), restore))
    with mock.patch.object(Restores, "_repeated", unknown), forget:
        yield


@contextmanager
def branches_again() -> Off:
    """A branch is set to its checkpoint whenever it is asked for."""

    async def unknown(self: Replica) -> None:
        return None

    always = decided(Restore, lambda control, restore: (control, dataclasses.replace(restore, first_only=False)))
    with mock.patch.object(Replica, "known_layout", unknown), always:
        yield


@contextmanager
def checkpoints_replaced() -> Off:
    """A name of a checkpoint stands for what was kept under it last."""

    async def none(self: Checkpoints) -> list[Any]:
        return []

    with ExitStack() as off:
        off.enter_context(mock.patch.object(disk, "CHECKS", disk.Checks(checkpoint_is_free=False)))
        off.enter_context(mock.patch.object(Checkpoints, "_records", none))
        yield


def share_slots_of_checkpoints() -> Any:
    """A checkpoint is of slots that go on changing while it is written."""
    original = checkpoints.freeze

    def freeze(state: State) -> State:
        frozen = original(state)
        return State(frozen.control, dataclasses.replace(frozen.arrays, slots=state.arrays.slots))

    return mock.patch.object(checkpoints, "freeze", freeze)


def share_sum_of_snapshots() -> Any:
    """A snapshot is of a batch that goes on growing while it is written."""
    original = snapshots.freeze

    def freeze(state: State) -> State:
        frozen = original(state)
        return State(frozen.control, dataclasses.replace(frozen.arrays, accumulator=state.arrays.accumulator))

    return mock.patch.object(snapshots, "freeze", freeze)


def batch_outlives_weights() -> Any:
    """New weights come, and the gradients of before still wait for their update."""
    advance = machine._ADVANCERS["load"]

    def kept(control: Control, entry: Entry, header: Any) -> None:
        batch = control.batch
        advance(control, entry, header)
        control.batch = batch

    return mock.patch.dict(machine._ADVANCERS, {"load": kept})


def no_history_in_images() -> Any:
    """A server that starts from an image knows nothing of what was before."""
    original = recovery.decode_image

    def decode(*arguments: Any) -> Any:
        control, arrays = original(*arguments)
        return control, dataclasses.replace(arrays, history=History())

    return mock.patch.object(recovery, "decode_image", decode)


def samples_of_one() -> Any:
    """Every gradient counts as one sample."""
    advance = machine._ADVANCERS["push"]

    def counted(control: Control, entry: Entry, header: Any) -> None:
        advance(control, entry, {**header, "samples": 1.0})

    return mock.patch.dict(machine._ADVANCERS, {"push": counted})


def watch_own_entries_only() -> Any:
    """A server tells who watches there what it appends itself."""

    async def nothing(self: Past) -> None:
        return None

    return mock.patch.object(Past, "_follow_others", nothing)


def feed_goes_on() -> Any:
    """Watchers stay where the history that they were told is lost."""

    def end(self: Feed) -> None:
        self.position = 0

    return mock.patch.object(Feed, "end", end)


def no_gaps_told() -> Any:
    """Where the journal was trimmed, a watcher goes on with what is there."""
    original = Past._from_journal

    async def silent(self: Past, after: int, last: int) -> Any:
        async for event in original(self, after, last):
            if event.kind != "gap":
                yield event

    return mock.patch.object(Past, "_from_journal", silent)


def figures_of_any_history() -> Any:
    """What a server measured at a version is told with whatever entry made it."""
    return mock.patch.object(Control, "was_made_by", return_value=True)


def closing_is_a_pause() -> Any:
    """Closed runs are opened again, and take weights."""
    return mock.patch.object(machine, "_open", return_value=None)
