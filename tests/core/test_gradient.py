"""A pushed gradient meets a run's layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradserve.problems import Refused
from gradserve.wire import Frame, Layout, decode_frame, encode_frame
from gradserve_service.core.blocks import SUM_CHUNK
from gradserve_service.core.gradient import Gradient, Span, non_finite_tensors

RUN = Layout.of({"a": [2], "b": [3, 2], "c": [], "d": [0], "e": [4]})


def frame(tensors: dict[str, Any], dtype: str = "float32") -> Frame:
    layout = Layout.of({name: np.shape(value) for name, value in tensors.items()})
    return decode_frame(b"".join(bytes(piece) for piece in encode_frame(layout, layout.flatten(tensors), dtype=dtype)))


def test_a_full_gradient_is_one_span_over_the_bytes_that_came() -> None:
    """Nothing is copied: the vector is a read-only view."""
    sent = frame({"a": [1, 2], "b": np.ones((3, 2)), "c": 5, "d": [], "e": [1, 1, 1, 1]})
    gradient = Gradient.of(sent, RUN)
    assert gradient.spans == (Span(0, 0, 13),)
    assert gradient.sum_of_squares == 1 + 4 + 6 + 25 + 4
    assert gradient.finite
    assert not gradient.vector.flags.writeable
    assert np.shares_memory(gradient.vector, np.frombuffer(sent.raw, np.float32))


def test_tensors_that_came_find_their_places_and_neighbours_are_merged() -> None:
    """b is left out: a alone, then c, d and e in one."""
    gradient = Gradient.of(frame({"a": [1, 2], "c": 5, "d": [], "e": [1, 1, 1, 1]}), RUN)
    assert gradient.spans == (Span(0, 0, 2), Span(8, 2, 5))


def test_tensors_without_elements_make_no_span() -> None:
    """They came, and there is nothing to do."""
    assert Gradient.of(frame({"d": []}), RUN).spans == ()
    assert Gradient.of(frame({"d": []}), Layout.of({"d": [0]})).spans == ()


def test_a_tensor_the_run_does_not_have_is_refused_by_name() -> None:
    """And the answer says which there are."""
    with pytest.raises(Refused) as refused:
        Gradient.of(frame({"a": [1, 2], "w": [1]}), RUN)
    assert refused.value.rejection.code == "unknown-tensor"
    assert "'w'" in refused.value.rejection.detail
    assert "'a'" in refused.value.rejection.detail


def test_a_tensor_of_another_shape_is_refused_with_both_shapes() -> None:
    """Expected, came, what to do: a transposed matrix has as many elements and is wrong."""
    with pytest.raises(Refused) as refused:
        Gradient.of(frame({"b": np.ones((2, 3))}), RUN)
    assert refused.value.rejection.code == "layout-mismatch"
    assert "[3, 2]" in refused.value.rejection.detail
    assert "[2, 3]" in refused.value.rejection.detail


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_measured_in_float32(dtype: str) -> None:
    """Squares are taken after widening: 300² has no place in float16."""
    gradient = Gradient.of(frame({"a": [300, 400]}, dtype), RUN)
    assert gradient.vector.dtype == np.float32
    assert gradient.sum_of_squares == 250_000.0 or dtype == "bfloat16"
    assert gradient.finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 2e19])
def test_what_no_second_moment_survives_is_not_finite(bad: float) -> None:
    """NaN, infinity, and values whose square overflows float32; named with the first bad element."""
    values = np.ones((3, 2), np.float32)
    values[1, 1] = values[2, 0] = bad
    sent = frame({"a": [1, 2], "b": values, "c": bad, "e": [0, 0, bad, bad]})
    assert not Gradient.of(sent, RUN).finite
    assert non_finite_tensors(sent) == ["b[1,1]", "c", "e[2]"]


def test_large_but_square_finite_values_pass() -> None:
    """1.8e19 is the limit: its square is 3.2e38."""
    sent = frame({"a": [1.8e19, -1.8e19]})
    assert Gradient.of(sent, RUN).finite
    assert non_finite_tensors(sent) == []


def test_a_bad_element_far_inside_is_found() -> None:
    """Beyond the first chunk of the search."""
    values = np.zeros(2 * SUM_CHUNK + 9, np.float32)
    values[SUM_CHUNK + 5] = np.nan
    assert non_finite_tensors(frame({"w": values})) == [f"w[{SUM_CHUNK + 5}]"]


def test_a_whole_vector_is_a_gradient_of_one_span() -> None:
    """For those who have the vector and no frame."""
    gradient = Gradient.whole(np.array([3.0, 4.0], np.float32))
    assert (gradient.spans, gradient.sum_of_squares, gradient.finite) == ((Span(0, 0, 2),), 25.0, True)
    assert not Gradient.whole(np.array([np.nan], np.float32)).finite
