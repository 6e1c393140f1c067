"""Aligned memory, and float32 ↔ the narrow dtypes, with NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .bounds import ALIGNMENT, STORAGE, storage_of

_CONVERT_ELEMENTS: Final = 1 << 18  # conversions go through scratch of this size, not through copies of the vector


def allocate(n: int, dtype: str = "float32") -> NDArray[Any]:
    """An uninitialised 1-D array of n elements whose memory starts on a 64-byte boundary (bfloat16: as uint16)."""
    storage = storage_of(dtype)
    block = np.empty(n * storage.itemsize + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + n * storage.itemsize].view(storage)


def narrow(vector: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """The float32 vector in `dtype`, rounded to nearest even; bfloat16 as its uint16 bits. float32: itself."""
    storage = storage_of(dtype)
    if dtype == "float32":
        return vector
    out = allocate(vector.size, dtype)
    with np.errstate(over="ignore", under="ignore"):
        for piece in _pieces(vector.size):
            out[piece] = _bfloat16_bits(vector[piece]) if dtype == "bfloat16" else vector[piece].astype(storage)
    return out


def widen(stored: NDArray[Any], dtype: str, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The inverse of `narrow`: float32 of elements as they are stored, exactly. Writes into `out` when given."""
    storage_of(dtype)
    if out is None:
        out = allocate(stored.size)
    if dtype != "bfloat16":
        np.copyto(out, stored)
        return out
    bits = out.view(np.uint32)
    for piece in _pieces(stored.size):
        np.left_shift(stored[piece], np.uint32(16), out=bits[piece], dtype=np.uint32)
    return out


def elements_of(raw: memoryview, dtype: str) -> NDArray[Any]:
    """Bytes as elements, without a copy (NumPy cannot view nothing)."""
    return np.frombuffer(raw, STORAGE[dtype]) if raw.nbytes else allocate(0, dtype)


def bytes_of(vector: NDArray[Any]) -> memoryview:
    """The memory of a contiguous vector (a view of nothing cannot be cast)."""
    return vector.data.cast("B") if vector.size else memoryview(b"")


def _bfloat16_bits(vector: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = vector.view(np.uint32)
    upper = bits >> np.uint32(16)
    rounded = (bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    # Rounding a NaN could carry into Infinity or zero: keep its upper half, made quiet.
    return np.where(np.isnan(vector), upper | np.uint32(0x40), rounded).astype(np.uint16)


def _pieces(n: int) -> Iterator[slice]:
    return (slice(i, min(i + _CONVERT_ELEMENTS, n)) for i in range(0, n, _CONVERT_ELEMENTS))
