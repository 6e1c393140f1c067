"""The one loop that the workers are measured against."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from gradserve_service.demo.baseline import train_alone
from gradserve_service.demo.command import train_together
from gradserve_service.demo.digits import load_digits
from gradserve_service.demo.mlp import accuracy
from gradserve_service.demo.plan import Plan

PLAN = Plan(run="alone", workers=1, batch_size=32, epochs=3, lr=0.01, seed=0)


@pytest.fixture(scope="module")
def digits():
    return load_digits(seed=0)


def test_it_learns_to_read_digits(digits):
    weights, trace = train_alone(dataclasses.replace(PLAN, epochs=20), digits)
    assert len(trace) == 20 * 43
    assert accuracy(weights, digits.test_x, digits.test_labels) > 0.95


def test_one_worker_over_http_is_the_one_loop_bit_for_bit(digits, tmp_path):
    """The same functions in the same order: what differs with more workers is the asynchrony alone."""
    weights, trace = train_alone(PLAN, digits)
    served_trace, served, _, _ = train_together(Console(file=io.StringIO()), PLAN, None, None, tmp_path)
    assert {name: value.tobytes() for name, value in served.items()} == {
        name: np.ascontiguousarray(value).tobytes() for name, value in weights.items()
    }
    assert served_trace.column("loss").tolist() == trace.column("loss").tolist()
    assert served_trace.column("lr").tolist() == trace.column("lr").tolist()
