"""Entries on a run's arrays: new weights while it is training, and stages that belong to a rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradserve.specs import Asgd, Noise, NoisySgd, RunSpec, Sgd
from gradserve.wire import Layout
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.entries import write_entry
from gradserve_service.core.gradient import Gradient


def load(weights: Any, layout: Any = None) -> Any:
    header = {"position": 1, "kind": "load", "layout": layout}
    return write_entry(b"", header), np.asarray(weights, np.float32)


def push(gradient: Any) -> Any:
    header = {"position": 2, "kind": "push", "update": {"lr": 0.1, "momentum": None}, "weight": 1.0}
    header |= {"at": 0, "base": 0, "loss": None, "samples": 1.0}
    return write_entry(b"", header), Gradient.whole(gradient)


def test_slots_that_begin_as_the_weights_begin_again_with_new_ones() -> None:
    """An average of the weights that were replaced is no average of these."""
    arrays = Arrays(RunSpec(optimizer=Asgd(lr=0.1)))
    update(arrays, *load([1, 2, 3], {"w": [3]}))
    assert arrays.layout == Layout.of({"w": [3]})
    assert arrays.slots["ax"].tolist() == [1, 2, 3]
    update(arrays, *push(np.ones(3, np.float32)))
    update(arrays, *load([7, 8, 9]))
    assert arrays.slots["ax"].tolist() == [7, 8, 9]
    assert arrays.step == 1
    arrays.slots["ax"][:] = 0
    assert arrays.weights is not None
    assert arrays.weights.tolist() == [7, 8, 9]  # a copy, not the weights themselves


def test_noisy_descent_is_descent_with_the_stage_noise() -> None:
    """The same bits, update after update: the noise is made in one place. Another seed makes another."""
    stage = Noise(eta=0.5, gamma=0.55, seed=3)
    specs = RunSpec(optimizer=NoisySgd(lr=0.1, eta=0.5, seed=3)), RunSpec(optimizer=Sgd(lr=0.1), clip=[stage])
    runs = [Arrays(spec) for spec in (*specs, RunSpec(optimizer=NoisySgd(lr=0.1, eta=0.5, seed=4)))]
    for arrays in runs:
        update(arrays, *load(np.zeros(1000), {"w": [1000]}))
    for _ in range(3):
        for arrays in runs:
            update(arrays, *push(np.zeros(1000, np.float32)))
        noisy, staged, other = (np.asarray(arrays.weights) for arrays in runs)
        assert noisy.tobytes() == staged.tobytes() != other.tobytes()
    falling = sum(0.5 / t**0.55 for t in (1, 2, 3))
    assert abs(noisy.std() / (0.1 * falling**0.5) - 1) < 0.1
