"""Narrow dtypes with NumPy alone give the bits that ml_dtypes gives."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradserve.wire import narrow, widen

EVERY_UPPER_HALF = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
# Each upper half with the lower halves around which rounding turns.
TURNS = np.concatenate([EVERY_UPPER_HALF | np.uint32(low) for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])


def twin(vector, dtype):
    with np.errstate(all="ignore"):
        return vector.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_to_nearest_even_for_every_upper_half(dtype):
    """Infinities, subnormals and both zeros included; a NaN stays a NaN of its sign."""
    vector = TURNS.view(np.float32)
    ours = narrow(vector, dtype)
    theirs = twin(vector, dtype)
    nan = np.isnan(vector)
    assert np.array_equal(ours[~nan].view(np.uint16), theirs[~nan].view(np.uint16))
    back = widen(ours[nan], dtype)
    assert np.isnan(back).all()
    assert np.array_equal(np.signbit(back), np.signbit(vector[nan]))


@given(st.lists(st.floats(width=32), max_size=20))
def test_any_floats_round_as_the_twin_rounds_them(values):
    vector = np.array(values, np.float32)
    for dtype in ("bfloat16", "float16"):
        assert np.array_equal(
            widen(narrow(vector, dtype), dtype), twin(vector, dtype).astype(np.float32), equal_nan=True
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_narrow_value_survives_the_way_there_and_back(dtype):
    bits = np.arange(1 << 16, dtype=np.uint16)
    stored = bits if dtype == "bfloat16" else bits.view(np.float16)
    wide = widen(stored, dtype)
    real = ~np.isnan(wide)
    assert np.array_equal(narrow(wide, dtype)[real].view(np.uint16), bits[real])


def test_a_vector_longer_than_the_scratch_is_converted_whole():
    vector = np.random.default_rng(0).standard_normal((1 << 19) + 5).astype(np.float32)
    for dtype in ("bfloat16", "float16"):
        assert np.array_equal(widen(narrow(vector, dtype), dtype), twin(vector, dtype).astype(np.float32))


def test_float32_is_not_copied():
    vector = np.zeros(3, np.float32)
    assert narrow(vector, "float32") is vector


def test_widen_writes_where_it_is_told():
    out = np.zeros(2, np.float32)
    assert widen(np.array([1, 2], np.float16), "float16", out=out) is out
    assert out.tolist() == [1, 2]
