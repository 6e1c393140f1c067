"""New weights in a run that has been training: what its optimizer keeps of the old ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradserve.specs import Asgd, RunSpec
from gradserve.wire import Layout
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.entries import write_entry
from gradserve_service.core.gradient import Gradient


def load(weights: Any, layout: Any = None) -> Any:
    header = {"position": 1, "kind": "load", "layout": layout}
    return write_entry(b"", header), np.asarray(weights, np.float32)


def test_slots_that_begin_as_the_weights_begin_again_with_new_ones() -> None:
    """An average of the weights that were replaced is no average of these."""
    arrays = Arrays(RunSpec(optimizer=Asgd(lr=0.1)))
    update(arrays, *load([1, 2, 3], {"w": [3]}))
    assert arrays.layout == Layout.of({"w": [3]})
    assert arrays.slots["ax"].tolist() == [1, 2, 3]
    push = {"position": 2, "kind": "push", "update": {"lr": 0.1, "momentum": None}, "weight": 1.0}
    push |= {"at": 0, "base": 0, "loss": None, "samples": 1.0}
    update(arrays, write_entry(b"", push), Gradient.whole(np.ones(3, np.float32)))
    update(arrays, *load([7, 8, 9]))
    assert arrays.slots["ax"].tolist() == [7, 8, 9]
    assert arrays.step == 1
    arrays.slots["ax"][:] = 0
    assert arrays.weights is not None
    assert arrays.weights.tolist() == [7, 8, 9]  # a copy, not the weights themselves
