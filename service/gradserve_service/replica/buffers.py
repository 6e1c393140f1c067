"""Large float32 buffers that come back by themselves.

A published weights buffer may be read by any number of slow responses; the last of them to finish, and nobody else,
knows when it is free. So a buffer is lent as an array of its own, and when that array is collected (CPython does so at
once) its memory returns to the pool. Views and memoryviews keep the lent array alive, never the memory behind it.

Fresh memory costs a page fault every 4 KiB: at 100 MB that is more time than the update itself.
"""

from __future__ import annotations

import weakref

import numpy as np
from numpy.typing import NDArray

from gradserve.wire import allocate

POOLED_BYTES_MIN = 1 << 20  # smaller buffers come faster from the allocator
POOLED_EACH_MAX = 2  # kept for reuse, of one size: the next weights and one body


class Buffers:
    """A pool of float32 buffers, and the count of bytes lent from it."""

    def __init__(self) -> None:
        self._free: dict[int, list[memoryview]] = {}
        self._lent: dict[int, weakref.ref[NDArray[np.float32]]] = {}
        self.lent_bytes = 0

    def lend(self, elements: int) -> NDArray[np.float32]:
        """An uninitialised float32[elements], 64-byte aligned. Its memory is reused once nothing refers to it."""
        if elements * 4 < POOLED_BYTES_MIN:
            return allocate(elements)
        spare = self._free.get(elements)
        memory = spare.pop() if spare else allocate(elements).data
        # numpy keeps `array` itself alive under its views, because the base of `array` is no array.
        array: NDArray[np.float32] = np.frombuffer(memory, np.float32)
        key = id(array)
        self._lent[key] = weakref.ref(array, lambda _: self._returned(key, memory))
        self.lent_bytes += memory.nbytes
        return array

    def _returned(self, key: int, memory: memoryview) -> None:
        del self._lent[key]
        self.lent_bytes -= memory.nbytes
        spare = self._free.setdefault(memory.nbytes // 4, [])
        if len(spare) < POOLED_EACH_MAX:
            spare.append(memory)
