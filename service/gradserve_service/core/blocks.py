"""How a long vector is cut into pieces, and how the pieces are shared out.

Two kinds of work, two promises:

* *elementwise* work is cut into blocks of `BLOCK_ELEMENTS`. Every element is computed from elements of the same index
  alone, so its bits depend neither on the size of a block nor on who computes it.
* *sums* are cut into chunks of exactly `SUM_CHUNK` elements, summed in float64, and the chunks' sums are added in
  index order. The cut is part of the result, so it never varies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "BLOCK_ELEMENTS",
    "LANES_MAX",
    "SUM_CHUNK",
    "Array",
    "RunAll",
    "in_turn",
    "scratch",
    "share_out",
    "sum_of_squares",
]

Array = NDArray[Any]  # one-dimensional, float32 in the service, any real float in checks of the formulas
RunAll = Callable[[Sequence[Callable[[], None]]], None]  # runs every task, in any order, and returns when all are done
Prepare = Callable[[Array, Array], Array]  # (block of the gradient, scratch) -> the block as the rule will see it

BLOCK_ELEMENTS = 256 << 10  # smaller blocks pay for NumPy's calls and the hand-over of the GIL, larger ones for memory
SUM_CHUNK = 64 << 10  # fixed for ever: replay has to cut at the same places
LANES_MAX = 8  # tasks handed out at once: more than this many cores only wait for memory
SPARE_BUFFERS_MAX = 2 * LANES_MAX  # kept between updates, at most 1 MiB each in float32: fresh pages cost 10 % at 1 M

_Piece = TypeVar("_Piece")
_spare: deque[NDArray[np.uint8]] = deque(maxlen=SPARE_BUFFERS_MAX)


def in_turn(tasks: Sequence[Callable[[], None]]) -> None:
    """The `RunAll` of one thread: each task after the other."""
    for task in tasks:
        task()


def share_out(pieces: Iterable[_Piece], work: Callable[[Iterator[_Piece]], None], run_all: RunAll) -> None:
    """Call `work` on every piece exactly once, from up to `LANES_MAX` tasks that take the next piece when they are free.

    A task receives an iterator over *its* pieces, so that it can set up a scratch block once. Tasks that find
    nothing left return at once: the caller's number of threads need not be known here. A single piece is worked on
    directly, because handing it to a thread costs more than it saves.
    """
    waiting = deque(pieces)  # popleft is atomic: no piece is taken twice

    def taken() -> Iterator[_Piece]:
        while True:
            try:
                piece = waiting.popleft()
            except IndexError:
                return
            yield piece

    if len(waiting) <= 1:
        work(taken())
    else:
        run_all([lambda: work(taken())] * min(len(waiting), LANES_MAX))


@contextmanager
def scratch(elements: int, dtype: DTypeLike) -> Iterator[Array]:
    """A block of `elements` to write on, from the spare ones if one is large enough; its content is arbitrary."""
    size = elements * np.dtype(dtype).itemsize
    try:
        buffer = _spare.pop()
    except IndexError:
        buffer = np.empty(size, np.uint8)
    if buffer.size < size:
        buffer = np.empty(size, np.uint8)
    try:
        yield buffer[:size].view(dtype)
    finally:
        _spare.append(buffer)


def sum_of_squares(vector: Array, run_all: RunAll = in_turn, prepare: Prepare | None = None) -> float:
    """Σ xᵢ², or Σ prepare(x)ᵢ²: the same bits for any `run_all`.

    Squares are taken in the vector's dtype and added in float64. The result is not finite exactly when an element is
    NaN or infinite, or when its square overflows (float32: |x| > 1.8e19), which would destroy a second moment as well.
    NumPy's own `sum(dtype=float64)` is avoided: it casts through a buffer whose size is NumPy's business, and so is
    then the order of the additions. `dot` and `norm` depend on the BLAS and its threads.
    """
    starts = range(0, vector.size, SUM_CHUNK)
    sums = [0.0] * len(starts)

    def work(chunks: Iterator[tuple[int, int]]) -> None:
        elements = min(SUM_CHUNK, vector.size)
        with (
            scratch(elements, vector.dtype) as squares,
            scratch(elements, np.float64) as wide,
            np.errstate(all="ignore"),
        ):
            for index, start in chunks:
                x = vector[start : start + SUM_CHUNK]
                a, b = squares[: x.size], wide[: x.size]
                if prepare is not None:
                    x = prepare(x, a)
                np.multiply(x, x, a)
                np.copyto(b, a)
                sums[index] = float(np.add.reduce(b))

    share_out(enumerate(starts), work, run_all)
    total = 0.0
    for part in sums:  # not sum(): from Python 3.12 on it compensates, and the bits would differ from 3.11's
        total += part
    return total
