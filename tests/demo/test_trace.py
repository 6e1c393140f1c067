"""The record of a training, and the running mean that its curves are drawn with."""

from __future__ import annotations

import numpy as np
import pytest

from gradserve_service.demo.trace import Trace, smoothed

ROWS = [(2, 0.25, 0.5, 0.01, 1), (1, 0.5, 0.7, 0.02, 0)]


def test_columns_and_rates():
    trace = Trace(ROWS)
    assert len(trace) == 2
    assert trace.column("loss").tolist() == [0.5, 0.7]
    assert trace.seconds == 0.5
    assert trace.updates_per_second == 4


def test_by_version_sorts_whole_rows():
    assert Trace(ROWS).by_version().column("lr").tolist() == [0.02, 0.01]


def test_an_empty_trace_has_no_rate():
    assert Trace().updates_per_second == 0


@pytest.mark.parametrize("window", [1, 3, 50, 1000])
def test_the_running_mean_equals_its_dumb_twin(window):
    values = np.random.default_rng(0).normal(size=200)
    twin = [np.mean(values[max(0, i - window + 1) : i + 1]) for i in range(200)]
    np.testing.assert_allclose(smoothed(values, window), twin, rtol=1e-9, atol=1e-12)
