"""The pool of large buffers: reused when nobody can see them any more, and never many of them."""

from __future__ import annotations

import numpy as np

from gradserve.wire import Buffers

LARGE = 1 << 20  # elements


def test_memory_is_reused_once_nothing_refers_to_it() -> None:
    """A buffer that was let go is the next one lent."""
    buffers = Buffers(spare=2)
    first = buffers.lend(LARGE)
    place = first.ctypes.data
    del first
    assert buffers.lend(LARGE).ctypes.data == place


def test_a_view_of_a_view_keeps_the_memory() -> None:
    """Neither a NumPy view nor a memoryview of one sees its memory lent again."""
    buffers = Buffers(spare=2)
    array = buffers.lend(LARGE)
    array.fill(1)
    view, raw = array[5:10][1:], memoryview(array.data)[3:7]
    del array
    others = [buffers.lend(LARGE) for _ in range(3)]
    for other in others:
        other.fill(2)
    assert view.tolist() == [1] * 4
    assert raw.tolist() == [1] * 4


def test_spare_memory_is_at_most_twice_the_largest_buffer() -> None:
    """However many buffers of however many sizes come back."""
    buffers = Buffers(spare=2)
    held = [buffers.lend(LARGE + 300_000 * i) for i in range(6)] + [buffers.lend(LARGE) for _ in range(6)]
    largest = max(array.nbytes for array in held)
    del held
    assert 0 < buffers.spare_bytes <= 2 * (largest + (1 << 20))


def test_a_body_fits_where_the_weights_of_its_run_were() -> None:
    """A few bytes more than a multiple of the run's size do not need another buffer."""
    buffers = Buffers(spare=2)
    weights = buffers.lend(25_000_000)
    place = weights.ctypes.data
    del weights
    body = buffers.lend(25_000_000 + 100)
    assert body.ctypes.data == place
    assert body.dtype == np.float32
    assert body.ctypes.data % 64 == 0


def test_a_buffer_is_found_again_by_what_it_holds() -> None:
    """The latest that is wanted, and only while nobody else has had its memory."""
    buffers = Buffers(spare=4)
    old, new = object(), object()
    first, found = buffers.lend_again(LARGE, old, [])
    assert found is None
    first.fill(1)
    second, _ = buffers.lend_again(LARGE, new, [old])
    second.fill(2)
    assert buffers.lend_again(LARGE, object(), [old, new])[1] is None  # both are lent
    del first, second
    again, found = buffers.lend_again(LARGE, object(), [old, new])
    assert (found is new, again[0]) == (True, 2)
    taken = [buffers.lend(LARGE) for _ in range(2)]
    taken.clear()
    assert buffers.lend_again(LARGE, object(), [old, new])[1] is None


def test_a_small_buffer_holds_nothing() -> None:
    """It does not come from the pool."""
    buffers, mark = Buffers(spare=4), object()
    buffers.lend_again(10, mark, [])
    assert buffers.lend_again(10, object(), [mark])[1] is None
