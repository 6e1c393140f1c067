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
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "BLOCK_ELEMENTS",
    "LANES_MAX",
    "SUM_CHUNK",
    "Array",
    "RunAll",
    "give_back",
    "in_turn",
    "share_out",
    "sum_of_squares",
    "take_scratch",
]

Array = NDArray[Any]  # one-dimensional, float32 in the service, any real float in checks of the formulas
RunAll = Callable[[Sequence[Callable[[], None]]], None]  # runs every task, in any order, and returns when all are done
Prepare = Callable[[Array, Array], Array]  # (block of the gradient, scratch) -> the block as the rule will see it

BLOCK_ELEMENTS = 256 << 10  # smaller blocks pay for NumPy's calls and the hand-over of the GIL, larger ones for memory
SUM_CHUNK = 64 << 10  # fixed for ever: replay has to cut at the same places
LANES_MAX = 8  # tasks handed out at once: more than this many cores only wait for memory
SPARE_BUFFERS_MAX = 2 * LANES_MAX  # kept between updates, 1 MiB each at most in float32

_Piece = TypeVar("_Piece")
_spare: deque[NDArray[np.uint8]] = deque(maxlen=SPARE_BUFFERS_MAX)


def in_turn(tasks: Sequence[Callable[[], None]]) -> None:
    """The `RunAll` of one thread: each task after the other."""
    for task in tasks:
        task()


def share_out(pieces: Sequence[_Piece], work: Callable[[Iterable[_Piece]], None], run_all: RunAll) -> None:
    """Call `work` on every piece once, from up to `LANES_MAX` tasks that take the next piece when they are free.

    A task receives an iterable over *its* pieces, so that it can set up its scratch blocks once. Tasks that find
    nothing left return at once: the caller's number of threads need not be known here. A single piece is worked on
    directly, because handing it to a thread costs more than it saves.
    """
    if len(pieces) <= 1:
        work(pieces)
        return
    waiting = deque(pieces)

    def taken() -> Iterator[_Piece]:
        while True:
            try:
                piece = waiting.popleft()  # atomic: no piece is taken twice
            except IndexError:
                return
            yield piece

    run_all([lambda: work(taken())] * min(len(waiting), LANES_MAX))


def take_scratch(rows: int, elements: int, dtype: DTypeLike) -> list[Array]:
    """`rows` vectors to write on, their content arbitrary, from the spare buffers where possible.

    Whoever is done gives them back; after an error they are simply garbage. Without spare buffers an update of a
    million parameters would spend a tenth of its time on fresh pages.
    """
    if not rows:
        return []
    size, taken = elements * np.dtype(dtype).itemsize, []
    for _ in range(rows):
        try:
            buffer = _spare.pop()
        except IndexError:
            buffer = np.empty(size, np.uint8)
        taken.append((buffer if buffer.size >= size else np.empty(size, np.uint8))[:size].view(dtype))
    return taken


def give_back(vectors: Iterable[Array]) -> None:
    """Keep the memory of vectors from `take_scratch` for the next who needs some."""
    _spare.extend(vector.base for vector in vectors if vector.base is not None)


def sum_of_squares(vector: Array, run_all: RunAll = in_turn, prepare: Prepare | None = None) -> float:
    """Σ xᵢ², or Σ prepare(x)ᵢ²: the same bits for any `run_all`.

    Squares are taken in the vector's dtype and added in float64. The result is not finite exactly when an element is
    NaN or infinite, or when its square overflows (float32: |x| > 1.8e19), which would destroy a second moment as well.
    NumPy's own `sum(dtype=float64)` is avoided: it casts through a buffer whose size is NumPy's business, and so is
    then the order of the additions. `dot` and `norm` depend on the BLAS and its threads.
    """
    chunks = list(enumerate(range(0, vector.size, SUM_CHUNK)))
    sums = [0.0] * len(chunks)

    def work(chunks: Iterable[tuple[int, int]]) -> None:
        elements = min(SUM_CHUNK, vector.size)
        (squares,), (doubles,) = take_scratch(1, elements, vector.dtype), take_scratch(1, elements, np.float64)
        with np.errstate(all="ignore"):
            for index, start in chunks:
                x = vector[start : start + SUM_CHUNK]
                a, b = squares[: x.size], doubles[: x.size]
                if prepare is not None:
                    x = prepare(x, a)
                np.multiply(x, x, a)
                np.copyto(b, a)
                sums[index] = float(np.add.reduce(b))
        give_back((squares, doubles))

    share_out(chunks, work, run_all)
    total = 0.0
    for part in sums:  # not sum(): from Python 3.12 on it compensates, and the bits would differ from 3.11's
        total += part
    return total
