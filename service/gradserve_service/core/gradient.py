"""A pushed gradient, checked against a run's layout and measured once.

A push may leave tensors out. Those that came lie end to end in one vector; *spans* say where each stretch belongs in
the run's flat parameters. A full gradient is one span. Of a tensor may also come some of its *rows*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gradserve.problems import Refused, refuse
from gradserve.wire import Frame, Layout, allocate

from .blocks import BLOCK_ELEMENTS, SUM_CHUNK, Array, RunAll, in_turn, share_out, sum_of_squares
from .rows import Ids, Rows, check_rows_fit, coalesced

__all__ = ["Gradient", "Span", "check_fit", "non_finite_tensors", "spans_between"]


@dataclass(frozen=True, slots=True)
class Span:
    """`length` elements of the gradient vector from `gradient_start` belong to the parameters from `weights_start`."""

    weights_start: int
    gradient_start: int
    length: int


@dataclass(frozen=True, slots=True)
class Gradient:
    """A gradient in the run's terms. `vector` may be a read-only view of stored bytes: it is never written."""

    vector: Array  # float32, the tensors that came, end to end in layout order
    spans: tuple[Span, ...]  # ascending and disjoint, neighbours merged
    sum_of_squares: float  # over the vector, in fixed chunks: see `blocks.sum_of_squares`
    finite: bool
    rows: tuple[Rows, ...] = ()  # what came of tensors that did not come whole, ascending
    ids: Mapping[str, Ids] = field(default_factory=dict)  # of the rows, by tensor, ascending: what `placed` goes by

    @classmethod
    def of(cls, frame: Frame, layout: Layout, run_all: RunAll = in_turn, loss_scale: float | None = None) -> Gradient:
        """Check names and shapes, find the spans, measure: one pass over the elements.

        Raises `Refused`: unknown-tensor, layout-mismatch.
        """
        check_fit(frame.layout, frame.rows_needed, layout)
        return cls.measured(frame, run_all, loss_scale).placed(frame.layout, layout)

    @classmethod
    def measured(
        cls,
        frame: Frame,
        run_all: RunAll = in_turn,
        loss_scale: float | None = None,
        new_buffer: Callable[[int], Array] = allocate,
    ) -> Gradient:
        """A gradient whose place in a run is not asked yet: unscaled, rows coalesced, and all of it measured."""
        vector, ids = coalesced(frame, _unscaled(frame, loss_scale, new_buffer, run_all))
        total = sum_of_squares(vector, run_all)
        return cls(vector, (), total, math.isfinite(total), ids=ids)

    @classmethod
    def whole(cls, vector: Array, run_all: RunAll = in_turn) -> Gradient:
        """The gradient of all parameters, from a vector in layout order."""
        total = sum_of_squares(vector, run_all)
        return cls(vector, (Span(0, 0, vector.size),), total, math.isfinite(total))

    def within(self, kept: Sequence[tuple[int, int]], run_all: RunAll = in_turn) -> Gradient:
        """The same gradient as if only these parameters (from, to; ascending) had come: the rest is left out."""
        spans: list[Span] = []
        pieces: list[Array] = []
        start = 0
        for span in self.spans:
            ahead = span.gradient_start - span.weights_start
            for first, last in kept:
                first, last = max(first, span.weights_start), min(last, span.weights_start + span.length)
                if first < last:
                    pieces.append(self.vector[first + ahead : last + ahead])
                    spans.append(Span(first, start, last - first))
                    start += last - first
        rows: list[Rows] = []
        for each in self.rows:  # a tensor is in one group: all of it is kept, or nothing
            if any(first <= each.weights_start < last for first, last in kept):
                pieces.append(self.vector[each.gradient_start : each.gradient_start + each.elements])
                rows.append(replace(each, gradient_start=start))
                start += each.elements
        if start == self.vector.size:
            return self
        vector = np.concatenate(pieces) if pieces else self.vector[:0]
        return Gradient(vector, tuple(spans), sum_of_squares(vector, run_all), self.finite, tuple(rows))

    def zeroed(self, run_all: RunAll = in_turn) -> Gradient:
        """The same with 0 for every element that is NaN, infinite, or whose square overflows (optax.zero_nans)."""
        if self.finite:
            return self
        vector = self.vector.copy()
        for start in range(0, vector.size, SUM_CHUNK):
            chunk = vector[start : start + SUM_CHUNK]
            chunk[~_usable(chunk, squares=True)] = 0.0
        return replace(self, vector=vector, sum_of_squares=sum_of_squares(vector, run_all), finite=True)

    def placed(self, sent: Layout, run: Layout) -> Gradient:
        """The same gradient, measured already, at its place in the run's parameters. `sent` has the shapes as they
        came."""
        if not self.ids:
            return replace(self, spans=spans_between(sent, run))
        spans: list[Span] = []
        rows: list[Rows] = []
        start = 0
        for name in sent.names:
            offset, shape = run.span(name).start, run.shape(name)
            if name in self.ids:
                rows.append(Rows(name, offset, start, shape, self.ids[name]))
                start += rows[-1].elements
            elif length := math.prod(shape):
                spans.append(Span(offset, start, length))
                start += length
        return replace(self, spans=tuple(spans), rows=tuple(rows))


def check_fit(sent: Layout, rows_needed: Mapping[str, int], run: Layout) -> None:
    """Refuse (`unknown-tensor`, `layout-mismatch`) what the run does not have: names, shapes, rows."""
    if not rows_needed:
        spans_between(sent, run)
        return
    whole = {name: sent.shape(name) for name in sent.names if name not in rows_needed}
    spans_between(Layout.of(whole), run)
    for name, needed in rows_needed.items():
        if name not in run:
            raise _unknown(name, run)
        check_rows_fit(name, sent.shape(name), run.shape(name), needed)


def spans_between(sent: Layout, run: Layout) -> tuple[Span, ...]:
    """Where the tensors of `sent` lie in `run`, neighbours merged. Raises `Refused` for a name or shape it lacks."""
    if sent == run:
        return (Span(0, 0, run.parameters),) if run.parameters else ()
    places = dict(zip(run.names, zip(run.shapes, run.offsets, strict=True), strict=True))
    spans: list[Span] = []
    for name, shape, start in zip(sent.names, sent.shapes, sent.offsets, strict=True):
        if name not in places:
            raise _unknown(name, run)
        expected, offset = places[name]
        if shape != expected:
            raise refuse(
                "layout-mismatch",
                f"tensor {name!r} is {list(expected)} in the run, {list(shape)} here: send it in the run's shape",
                tensor=name,
                expected=list(expected),
                came=list(shape),
            )
        length = math.prod(shape)
        last = spans[-1] if spans else None
        if last and last.weights_start + last.length == offset:  # in the gradient all neighbours touch
            spans[-1] = Span(last.weights_start, last.gradient_start, last.length + length)
        elif length:
            spans.append(Span(offset, start, length))
    return tuple(spans)


def _unscaled(
    frame: Frame,
    loss_scale: float | None,
    new_buffer: Callable[[int], Array] = allocate,
    run_all: RunAll = in_turn,
) -> Array:
    """The gradient of a frame, float32[N]: what came, divided by what its loss was multiplied with.

    Divided in float32, also what came in half precision: there small gradients would vanish. Without a scale it is
    the frame's own vector.

    Source: Micikevicius et al. 2018 (arXiv:1710.03740), section 3.2; torch.amp.GradScaler.unscale_.
    """
    vector = frame.vector()
    if loss_scale is None or loss_scale == 1.0:
        return vector
    out, scale = new_buffer(vector.size), vector.dtype.type(loss_scale)

    def work(starts: Iterable[int]) -> None:
        with np.errstate(all="ignore"):
            for start in starts:
                here = slice(start, start + BLOCK_ELEMENTS)
                np.divide(vector[here], scale, out[here])

    share_out(range(0, vector.size, BLOCK_ELEMENTS), work, run_all)
    return out


def non_finite_tensors(frame: Frame, *, squares: bool = True, loss_scale: float | None = None) -> list[str]:
    """Each tensor that cannot be used, with its first bad element: `w[3]`, `kernel[0,2]`, `scale` for a scalar.

    Bad in a gradient (`squares`) is what makes `Gradient.finite` false: NaN, infinity, or a value whose square
    overflows. Weights are never squared: they may be as large as float32 goes. Rows of one id count as their sum.
    """
    vector, ids = coalesced(frame, _unscaled(frame, loss_scale))
    found, start = [], 0
    for name, shape in zip(frame.layout.names, frame.layout.shapes, strict=True):
        rows = ids.get(name)
        if rows is not None:
            shape = (rows.size, *shape[1:])
        index = _first_bad(vector[start : start + math.prod(shape)], squares)
        start += math.prod(shape)
        if index is not None:
            place = [int(i) for i in np.unravel_index(index, shape)] if shape else []
            if rows is not None:
                place[0] = int(rows[place[0]])  # as the run counts them
            found.append(f"{name}[{','.join(map(str, place))}]" if place else name)
    return found


def _first_bad(x: Array, squares: bool) -> int | None:
    for start in range(0, x.size, SUM_CHUNK):
        fine = _usable(x[start : start + SUM_CHUNK], squares=squares)
        if not fine.all():
            return start + int(fine.argmin())
    return None


def _usable(x: Array, *, squares: bool) -> NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        fine: NDArray[np.bool_] = np.isfinite(x * x if squares else x)
    return fine


def _unknown(name: str, run: Layout) -> Refused:
    return refuse("unknown-tensor", f"the run has no tensor {name!r}; it has {_some(run.names)}", tensor=name)


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
