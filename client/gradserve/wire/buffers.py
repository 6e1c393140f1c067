"""Large float32 buffers that come back by themselves.

A published weights buffer may be read by any number of slow responses; the last of them to finish, and nobody else,
knows when it is free. So a buffer is lent as an array of its own, and when that array is collected (CPython does so at
once) its memory returns to the pool. Views and memoryviews keep the lent array alive, never the memory behind it.

Fresh memory costs a page fault every 4 KiB: at 100 MB that is more time than the update itself.
"""

from __future__ import annotations

import weakref
from collections import deque
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from .numbers import allocate

POOLED_BYTES_MIN = 1 << 20  # smaller buffers come faster from the allocator
ROUNDED_ELEMENTS = 256 << 10  # sizes are rounded up to 1 MiB, so that a body fits where weights of its run were


class Buffers:
    """A pool of float32 buffers, for any thread. What lies ready is at most `spare` times the largest."""

    def __init__(self, spare: int) -> None:
        self._spare_max = spare
        self._spare: deque[memoryview] = deque()  # the latest returned last
        self._lent: dict[int, weakref.ref[NDArray[np.float32]]] = {}
        self._taking = Lock()  # held by whoever removes spares; returning needs none, for it may happen anywhere

    @property
    def spare_bytes(self) -> int:
        """Bytes that lie ready."""
        return sum(memory.nbytes for memory in tuple(self._spare))

    def lend(self, elements: int) -> NDArray[np.float32]:
        """An uninitialised float32[elements], 64-byte aligned. Its memory is reused once nothing refers to it."""
        if elements * 4 < POOLED_BYTES_MIN:
            return allocate(elements)
        memory = self._take(-(-elements // ROUNDED_ELEMENTS) * ROUNDED_ELEMENTS)
        # numpy keeps `array` itself alive under its views, because the base of `array` is no array.
        array: NDArray[np.float32] = np.frombuffer(memory, np.float32, elements)
        key = id(array)
        self._lent[key] = weakref.ref(array, lambda _: self._returned(key, memory))
        return array

    def _take(self, elements: int) -> memoryview:
        with self._taking:
            spares = tuple(self._spare)
            for index in range(len(spares) - 1, -1, -1):
                if spares[index].nbytes == 4 * elements:
                    del self._spare[index]
                    return spares[index]
        return allocate(elements).data

    def _returned(self, key: int, memory: memoryview) -> None:
        """Called where the last reference goes, maybe inside `_take`: so it never waits for the lock."""
        del self._lent[key]
        self._spare.append(memory)
        if self._taking.acquire(blocking=False):
            try:
                allowed = self._spare_max * max(spare.nbytes for spare in tuple(self._spare))
                while self.spare_bytes > allowed:
                    self._spare.popleft()
            finally:
                self._taking.release()
