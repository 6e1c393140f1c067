"""Large float32 buffers that come back by themselves.

A published weights buffer may be read by any number of slow responses; the last of them to finish, and nobody else,
knows when it is free. So a buffer is lent as an array of its own, and when that array is collected (CPython does so at
once) its memory returns to the pool. Views and memoryviews keep the lent array alive, never the memory behind it.

Fresh memory costs a page fault every 4 KiB: at 100 MB that is more time than the update itself.

A buffer may be lent under a *mark* that stands for what it will hold. As long as nobody else has taken its memory, it
is found again by that mark: who knows what has changed since need not write all of it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Collection
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
        self._marks: dict[int, object] = {}  # what spares hold, by the identity of their memory
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
        return self._lend(memory, elements, None)

    def lend_again(
        self, elements: int, mark: object, held: Collection[object]
    ) -> tuple[NDArray[np.float32], object | None]:
        """As `lend`, to be held under `mark`; and which of the marks in `held` stands for what is in it, if one does.

        Nobody may write to the array once it holds what the mark stands for.
        """
        if elements * 4 < POOLED_BYTES_MIN:
            return allocate(elements), None
        rounded = -(-elements // ROUNDED_ELEMENTS) * ROUNDED_ELEMENTS
        memory, found = self._take_marked(4 * rounded, held)
        return self._lend(self._take(rounded) if memory is None else memory, elements, mark), found

    def _lend(self, memory: memoryview, elements: int, mark: object | None) -> NDArray[np.float32]:
        # numpy keeps `array` itself alive under its views, because the base of `array` is no array.
        array: NDArray[np.float32] = np.frombuffer(memory, np.float32, elements)
        key = id(array)
        self._lent[key] = weakref.ref(array, lambda _: self._returned(key, memory, mark))
        return array

    def _take_marked(self, size: int, held: Collection[object]) -> tuple[memoryview | None, object | None]:
        """The spare that holds the latest of these marks."""
        with self._taking:
            for mark in reversed(list(held)):
                for index, memory in enumerate(tuple(self._spare)):
                    if memory.nbytes == size and self._marks.get(id(memory)) is mark:
                        del self._spare[index], self._marks[id(memory)]
                        return memory, mark
        return None, None

    def _take(self, elements: int) -> memoryview:
        with self._taking:
            spares = tuple(self._spare)
            for index in range(len(spares) - 1, -1, -1):
                if spares[index].nbytes == 4 * elements:
                    del self._spare[index]
                    self._marks.pop(id(spares[index]), None)
                    return spares[index]
        return allocate(elements).data

    def _returned(self, key: int, memory: memoryview, mark: object | None) -> None:
        """Called where the last reference goes, maybe inside `_take`: so it never waits for the lock."""
        del self._lent[key]
        if mark is not None:
            self._marks[id(memory)] = mark
        self._spare.append(memory)
        if self._taking.acquire(blocking=False):
            try:
                allowed = self._spare_max * max(spare.nbytes for spare in tuple(self._spare))
                while self.spare_bytes > allowed:
                    self._marks.pop(id(self._spare.popleft()), None)
            finally:
                self._taking.release()
