"""What is measured of a gradient by tensor: plain numbers, on any number of threads, of any part of the tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gradserve.wire import Layout, decode_frame, encode_frame
from gradserve_service.core.blocks import SUM_CHUNK
from gradserve_service.core.gradient import Gradient
from gradserve_service.core.measuring import EVERY, distance, measure, measured_at_step

RUN = Layout.of({"a": [3, 5], "b": [0], "c": [], "d": [2 * SUM_CHUNK + 7], "e": [11], "f": [SUM_CHUNK]})


def threads(tasks: Any) -> None:
    """Every task in a thread of its own."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def gradient_of(*names: str) -> tuple[Gradient, dict[str, Any]]:
    """A gradient of these tensors with zeros in it, and its tensors."""
    layout = RUN.subset(names)
    vector = np.random.default_rng(len(names)).standard_normal(layout.parameters).astype(np.float32)
    vector[::3] = 0
    frame = decode_frame(b"".join(encode_frame(layout, vector)))
    return Gradient.of(frame, RUN), layout.views(vector)


@pytest.mark.parametrize("names", [RUN.names, ("a", "d"), ("c", "d", "f"), ("e",), ("b",)])
def test_each_tensor_is_measured_as_numpy_would(names: tuple[str, ...]) -> None:
    """Norm, largest magnitude and share of zeros; NaN where nothing came or there is nothing to measure."""
    gradient, tensors = gradient_of(*names)
    found = measure(gradient, RUN)
    for index, name in enumerate(RUN.names):
        numbers = found.norm[index], found.largest[index], found.zeros[index]
        if name not in tensors or not tensors[name].size:
            assert np.isnan(numbers).all()
        else:
            x = tensors[name].astype(np.float64)
            plain = np.sqrt(np.square(x).sum()), np.abs(x).max(), (x == 0).mean()
            np.testing.assert_allclose(numbers, plain, rtol=1e-7)


def test_threads_do_not_change_a_bit() -> None:
    """Norms and distances on eight threads are those of one."""
    gradient, _ = gradient_of(*RUN.names)
    one, many = measure(gradient, RUN), measure(gradient, RUN, threads)
    assert (
        np.stack((one.norm, one.largest, one.zeros)).tobytes()
        == np.stack((many.norm, many.largest, many.zeros)).tobytes()
    )
    after = gradient.vector[::-1].copy()
    assert distance(gradient.vector, after) == distance(gradient.vector, after, threads)


def test_a_tensor_has_the_same_norm_in_any_company() -> None:
    """What else came in a push does not change a tensor's norm."""
    whole, part = measure(gradient_of("d")[0], RUN), RUN.names.index("d")
    vector = gradient_of("d")[0].vector
    others = np.concatenate((np.ones(16, np.float32), vector, np.ones(11 + SUM_CHUNK, np.float32)))
    assert measure(Gradient.whole(others), RUN).norm[part] == whole.norm[part]


def test_the_distance_is_that_of_the_weights() -> None:
    """‖after - before‖ in double."""
    before = np.random.default_rng(0).standard_normal(SUM_CHUNK + 5).astype(np.float32)
    after = before + np.float32(0.25)
    expected = np.sqrt(np.square((after - before).astype(np.float64)).sum())
    assert distance(before, after) == pytest.approx(expected, rel=1e-7)


def test_small_runs_are_measured_at_each_update_and_large_ones_now_and_then() -> None:
    """Decided by the step and the layout alone, beginning with the first update."""
    assert all(measured_at_step(step, Layout.of({"w": [100]})) for step in range(1, 20))
    steps = [step for step in range(1, 20) if measured_at_step(step, RUN)]
    assert steps == [1, 1 + EVERY, 1 + 2 * EVERY]
