"""A pushed gradient, checked against a run's layout and measured once.

A push may leave tensors out. Those that came lie end to end in one vector; *spans* say where each stretch belongs in
the run's flat parameters. A full gradient is one span.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradserve.problems import refuse
from gradserve.wire import Frame, Layout

from .blocks import SUM_CHUNK, Array, RunAll, in_turn, sum_of_squares

__all__ = ["Gradient", "Span", "non_finite_tensors", "spans_between"]


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

    @classmethod
    def of(cls, frame: Frame, layout: Layout, run_all: RunAll = in_turn) -> Gradient:
        """Check names and shapes, find the spans, measure: one pass over the elements.

        Raises `Refused`: unknown-tensor, layout-mismatch.
        """
        spans = spans_between(frame.layout, layout)
        vector = frame.vector()
        total = sum_of_squares(vector, run_all)
        return cls(vector, spans, total, math.isfinite(total))

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
        if start == self.vector.size:
            return self
        vector = np.concatenate(pieces) if pieces else self.vector[:0]
        return Gradient(vector, tuple(spans), sum_of_squares(vector, run_all), self.finite)

    def placed(self, spans: tuple[Span, ...]) -> Gradient:
        """The same gradient, measured already, at these places of the parameters."""
        return Gradient(self.vector, spans, self.sum_of_squares, self.finite)


def spans_between(sent: Layout, run: Layout) -> tuple[Span, ...]:
    """Where the tensors of `sent` lie in `run`, neighbours merged. Raises `Refused` for a name or shape it lacks."""
    if sent == run:
        return (Span(0, 0, run.parameters),) if run.parameters else ()
    places = dict(zip(run.names, zip(run.shapes, run.offsets, strict=True), strict=True))
    spans: list[Span] = []
    for name, shape, start in zip(sent.names, sent.shapes, sent.offsets, strict=True):
        if name not in places:
            raise refuse("unknown-tensor", f"the run has no tensor {name!r}; it has {_some(run.names)}", tensor=name)
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


def non_finite_tensors(frame: Frame, *, squares: bool = True) -> list[str]:
    """Each tensor that cannot be used, with its first bad element: `w[3]`, `kernel[0,2]`, `scale` for a scalar.

    Bad in a gradient (`squares`) is what makes `Gradient.finite` false: NaN, infinity, or a value whose square
    overflows. Weights are never squared: they may be as large as float32 goes.
    """
    vector, found = frame.vector(), []
    layout = frame.layout
    for name, shape, start in zip(layout.names, layout.shapes, layout.offsets, strict=True):
        index = _first_bad(vector[start : start + math.prod(shape)], squares)
        if index is not None:
            place = ",".join(str(int(i)) for i in np.unravel_index(index, shape)) if shape else ""
            found.append(f"{name}[{place}]" if place else name)
    return found


def _first_bad(x: Array, squares: bool) -> int | None:
    with np.errstate(all="ignore"):
        for start in range(0, x.size, SUM_CHUNK):
            chunk = x[start : start + SUM_CHUNK]
            fine = np.isfinite(chunk * chunk if squares else chunk)
            if not fine.all():
                return start + int(fine.argmin())
    return None


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
