"""Memory for large reads."""

from __future__ import annotations

import numpy as np

ALIGNMENT = 64  # a cache line, and what a frame's data section needs to be used without a copy


def aligned_buffer(size: int) -> memoryview:
    """A writable buffer of `size` bytes, not cleared, starting at a multiple of 64."""
    raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw.data[start : start + size]
