"""What a gradient looks like tensor by tensor, and how far the weights went: measured every few updates.

Sums are cut at the tensors' edges and inside a tensor at multiples of `SUM_CHUNK`: the cut is part of the result. One
`reduceat` takes many small tensors in one call. At 10,000 parameters in 10 tensors both measurements take 25 µs, at a
million in 100 tensors 2 ms (the update itself takes 20 µs and 1.1 ms), so only a small run is measured at each update.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradserve.wire import Layout

from .blocks import SUM_CHUNK, Array, RunAll, give_back, in_turn, share_out, sum_of_squares, take_scratch
from .gradient import Gradient, Span
from .history import Measured
from .rows import Rows

__all__ = ["distance", "measure", "measured_at_step", "way"]

EACH_PARAMETERS_MAX: Final = 4_096  # up to here a measurement costs 15 µs at most, and each update has one
EACH_TENSORS_MAX: Final = 64
EVERY: Final = 8  # larger runs: a measurement costs about as much as an update


def measured_at_step(step: int, layout: Layout) -> bool:
    """Whether update number `step` (from 1) is measured: the same on every server and in every replay."""
    each = layout.parameters <= EACH_PARAMETERS_MAX and len(layout.names) <= EACH_TENSORS_MAX
    return each or step % EVERY == 1


@dataclass(frozen=True, slots=True)
class _Piece:
    """Neighbouring segments: [start, stop) of the vector, cut at `cuts` (relative); their numbers from `first`."""

    start: int
    stop: int
    cuts: NDArray[np.intp]
    first: int


@dataclass(frozen=True, slots=True)
class _Cut:
    """A gradient cut into segments of one tensor each, at most `SUM_CHUNK` long."""

    pieces: tuple[_Piece, ...]
    segments: int
    tensors: NDArray[np.intp]  # the tensors that came and have elements, by their number in the run
    firsts: NDArray[np.intp]  # the first segment of each of them
    sizes: NDArray[np.float64]


@lru_cache(maxsize=64)
def _cut(run: Layout, spans: tuple[Span, ...]) -> _Cut:
    pieces: list[_Piece] = []
    tensors: list[int] = []
    firsts: list[int] = []
    segments = 0
    for span in spans:
        end = span.weights_start + span.length
        starts: list[int] = []
        for tensor in range(bisect_left(run.offsets, span.weights_start), bisect_left(run.offsets, end)):
            if size := run.size(run.names[tensor]):
                tensors.append(tensor)
                firsts.append(segments + len(starts))
                starts += range(run.offsets[tensor], run.offsets[tensor] + size, SUM_CHUNK)
        ahead = span.gradient_start - span.weights_start
        pieces += _pieces([start + ahead for start in starts], end + ahead, segments)
        segments += len(starts)
    sizes = np.array([run.size(run.names[tensor]) for tensor in tensors], np.float64)
    return _Cut(tuple(pieces), segments, np.array(tensors, np.intp), np.array(firsts, np.intp), sizes)


def _pieces(starts: list[int], end: int, number: int) -> Iterator[_Piece]:
    """Neighbouring segments together, as many as fit in `SUM_CHUNK`; `number` is the first one's."""
    borders, first = [*starts, end], 0
    while first < len(starts):
        last = bisect_right(borders, borders[first] + SUM_CHUNK) - 1
        cuts = np.array(starts[first:last], np.intp) - starts[first]
        yield _Piece(starts[first], borders[last], cuts, number + first)
        first = last


def measure(gradient: Gradient, run: Layout, run_all: RunAll = in_turn) -> Measured:
    """Norm, largest magnitude and share of zeros of each of the run's tensors; NaN for those that did not come.

    The bits do not depend on `run_all`.
    """
    cut = _cut(run, gradient.spans)
    sums, largest, zeros = np.zeros((3, cut.segments))

    def look(piece: _Piece, squares: Array, doubles: Array) -> None:
        here = slice(piece.first, piece.first + piece.cuts.size)
        x = gradient.vector[piece.start : piece.stop]
        np.multiply(x, x, squares)
        np.copyto(doubles, squares)
        sums[here] = np.add.reduceat(doubles, piece.cuts)
        np.absolute(x, squares)
        largest[here] = np.maximum.reduceat(squares, piece.cuts)
        zeros[here] = np.add.reduceat((squares == 0.0).view(np.uint8), piece.cuts, dtype=np.uint32)

    _over(cut.pieces, look, gradient.vector, run_all)
    found = np.full((3, len(run.names)), np.nan)
    if cut.segments:
        found[0, cut.tensors] = np.sqrt(np.add.reduceat(sums, cut.firsts))
        found[1, cut.tensors] = np.maximum.reduceat(largest, cut.firsts)
        found[2, cut.tensors] = np.add.reduceat(zeros, cut.firsts) / cut.sizes
    for rows in gradient.rows:
        found[:, run.names.index(rows.name)] = _of_rows(gradient, rows, run_all)
    return Measured(*found)


def _of_rows(gradient: Gradient, rows: Rows, run_all: RunAll) -> tuple[float, float, float]:
    """Norm, largest magnitude and share of zeros of a tensor that is zero outside its rows."""
    values = gradient.vector[rows.gradient_start : rows.gradient_start + rows.elements]
    largest = float(max(values.max(), -values.min())) if values.size else 0.0
    size = rows.shape[0] * rows.row_elements
    zeros = 1.0 - int(np.count_nonzero(values)) / size if size else math.nan
    return math.sqrt(sum_of_squares(values, run_all)), largest, zeros


def way(before: Array, after: Array, gradient: Gradient, run: Layout, run_all: RunAll = in_turn) -> float:
    """How far the weights went by this gradient. Where rows came, only what came is looked at: the rest has stayed."""
    if not gradient.rows:
        return distance(before, after, run_all)
    return distance(_touched(before, gradient, run), _touched(after, gradient, run), run_all)


def _touched(vector: Array, gradient: Gradient, run: Layout) -> Array:
    """The weights that a gradient came for, end to end."""
    spans = [vector[span.weights_start : span.weights_start + span.length] for span in gradient.spans]
    rows = [np.take(rows.of(vector[run.span(rows.name)]), rows.ids, axis=0) for rows in gradient.rows if rows.elements]
    return np.concatenate([*spans, *(each.reshape(-1) for each in rows), vector[:0]])


def distance(before: Array, after: Array, run_all: RunAll = in_turn) -> float:
    """‖after - before‖, in the fixed chunks of `blocks.sum_of_squares`: the same bits for any `run_all`."""
    starts = range(0, before.size, SUM_CHUNK)
    none = np.zeros(1, np.intp)
    pieces = [_Piece(x, min(x + SUM_CHUNK, before.size), none, index) for index, x in enumerate(starts)]
    sums = [0.0] * len(pieces)

    def look(piece: _Piece, squares: Array, doubles: Array) -> None:
        np.subtract(after[piece.start : piece.stop], before[piece.start : piece.stop], squares)
        np.multiply(squares, squares, squares)
        np.copyto(doubles, squares)
        sums[piece.first] = float(np.add.reduce(doubles))

    _over(pieces, look, before, run_all)
    total = 0.0
    for part in sums:  # not sum(): see blocks.sum_of_squares
        total += part
    return math.sqrt(total)


def _over(pieces: Sequence[_Piece], look: Callable[[_Piece, Array, Array], None], like: Array, run_all: RunAll) -> None:
    """Look at every piece, with scratch of its length in the vector's dtype and in float64."""

    def work(pieces: Iterable[_Piece]) -> None:
        elements = min(SUM_CHUNK, like.size)
        (squares,), (doubles,) = take_scratch(1, elements, like.dtype), take_scratch(1, elements, np.float64)
        with np.errstate(all="ignore"):
            for piece in pieces:
                size = piece.stop - piece.start
                look(piece, squares[:size], doubles[:size])
        give_back((squares, doubles))

    share_out(pieces, work, run_all)
