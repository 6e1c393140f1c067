"""A snapshot's state is a value: the run goes on, and what was frozen stays what it was."""

from __future__ import annotations

import numpy as np

from gradserve.specs import Nadam, RunSpec
from gradserve.wire import Layout
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.control import Control, Creation
from gradserve_service.core.entries import genesis_hash, write_entry
from gradserve_service.core.gradient import Gradient
from gradserve_service.replica.recovery import State
from gradserve_service.replica.snapshots import freeze


def test_the_next_update_leaves_the_frozen_state_alone():
    """Slots and a rule's memory are written in place, weights go into another buffer."""
    creation = Creation(RunSpec(optimizer=Nadam()), 1 << 20, 4).to_bytes()
    control = Control.genesis("0" * 32, creation, genesis_hash("0" * 32, creation))
    arrays = Arrays(control.spec, Layout.of({"w": [3]}), np.ones(3, np.float32), version=0)
    arrays.fit(control.spec)
    push = {"position": 1, "kind": "push", "update": {"lr": 0.1, "momentum": None}, "weight": 1.0}
    push |= {"at": 0, "base": 0, "loss": None, "samples": 1.0}
    entry, gradient = write_entry(control.head, push), Gradient.whole(np.ones(3, np.float32))
    update(arrays, entry, gradient)
    frozen = freeze(State(control, arrays)).arrays
    before = frozen.weights.tobytes(), *(slot.tobytes() for slot in frozen.slots.values()), dict(frozen.memory)
    update(arrays, entry, gradient)
    assert before == (frozen.weights.tobytes(), *(s.tobytes() for s in frozen.slots.values()), dict(frozen.memory))
    assert arrays.memory != frozen.memory
