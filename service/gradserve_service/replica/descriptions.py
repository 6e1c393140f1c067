"""A run's state in the words of the API."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradserve.specs import DEFAULT_GROUP, groups_of, idle_patterns
from gradserve.wire import Layout

from ..core import schedules
from ..core.batches import EMPTY
from ..core.control import Control, WorkerRow
from ..core.machine import paused_itself, why_paused
from ..store.records import CatalogueRecord, Durability
from .recovery import State


def run_json(run: CatalogueRecord, state: State, durability: Durability) -> dict[str, Any]:
    """A run, as GET answers it. `lr` is the one that the next update would get, before its staleness weight."""
    control = state.control
    lr, _ = schedules.resolve(control.spec.schedule, control.spec.optimizer.lr, control.scheduled, control.plateau)
    return {
        "name": run.name,
        "uid": run.uid,
        "state": control.state,
        "initialised": control.initialised,
        "version": control.shown_version,
        "step": control.step,
        "updates": control.updates,
        "samples_seen": control.samples_seen,
        "epoch": control.epoch,
        "position": control.position,
        "head": control.head.hex(),
        "etag": control.etag,
        "lr": lr,
        "batch": _batch(control),
        "spec": control.spec.canonical(),
        "tensors": _tensors(control),
        "parameters": 0 if control.layout is None else control.layout.parameters,
        "workers": len(control.live_workers()),
        "durability": durability,
        "created_at": run.created_at,
        "warnings": warnings_of(state),
    }


def _batch(control: Control) -> dict[str, Any] | None:
    """The open batch, of a run that accumulates."""
    wanted = control.spec.accumulate
    return None if wanted is None and control.batch == EMPTY else control.batch.shown(wanted)


def _tensors(control: Control) -> list[dict[str, Any]]:
    """Every tensor, and with groups which one has it."""
    if control.layout is None:
        return []
    rows, groups = control.layout.describe(), control.spec.groups
    if groups:
        names = (DEFAULT_GROUP, *(group.name for group in groups))
        for row, place in zip(rows, groups_of(groups, control.layout.names), strict=True):
            row["group"] = names[place]
    return rows


def warnings_of(state: State) -> list[str]:
    """What is allowed and most likely not meant, and what the gradients have come to."""
    control, found = state.control, state.arrays.history.present_warnings()
    if state.diverged_at is not None:
        found = [
            *found,
            f"state_diverged: at position {state.diverged_at} this server's state differed from the published one; it "
            "was restored from the store. Suspect the memory or the processor of one of the servers",
        ]
    if paused_itself(control):
        found = [*found, why_paused(control)]
    if control.layout is None:
        return found
    return found + [
        f"groups: the pattern {pattern!r} of {group!r} matches no tensor of this run"
        for group, pattern in idle_patterns(control.spec.groups, control.layout.names)
    ]


def worker_json(name: str, row: WorkerRow) -> dict[str, Any]:
    """A worker's row, as lists and registrations show it."""
    return {
        "name": name,
        "generation": row.generation,
        "next_sequence": row.next_sequence,
        "receipt": row.receipt,
        "cursor": row.cursor,
        "departed": row.departed,
    }


def slots_by_tensor(state: State) -> tuple[Layout, NDArray[np.float32], dict[str, str]] | None:
    """Every slot by tensor, named `<slot>/<tensor>`, in a vector of its own; None before the first weights."""
    arrays = state.arrays
    if arrays.layout is None:
        return None
    tensors = {
        f"{slot}/{name}": view
        for slot, buffer in arrays.slots.items()
        for name, view in arrays.slot_layout(slot).views(buffer).items()
    }
    layout = Layout.of({name: view.shape for name, view in tensors.items()})
    metadata = {
        "version": str(arrays.version),
        "step": str(arrays.step),
        "head": state.control.head.hex(),
        "etag": state.control.etags[arrays.version],
    }
    metadata.update({name: repr(value) for name, value in arrays.memory.items()})
    return layout, layout.flatten(tensors), metadata
