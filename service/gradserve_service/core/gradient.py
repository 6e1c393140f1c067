"""A pushed gradient, checked against a run's layout and measured once.

A push may leave tensors out. Those that came lie end to end in one vector; *spans* say where each stretch belongs in
the run's flat parameters. A full gradient is one span.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradserve.problems import refuse
from gradserve.wire import Frame, Layout, allocate

from .blocks import BLOCK_ELEMENTS, SUM_CHUNK, Array, RunAll, in_turn, share_out, sum_of_squares

__all__ = ["Gradient", "Span", "non_finite_tensors", "spans_between", "unscaled"]


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
    def of(cls, frame: Frame, layout: Layout, run_all: RunAll = in_turn, loss_scale: float | None = None) -> Gradient:
        """Check names and shapes, find the spans, measure: one pass over the elements.

        Raises `Refused`: unknown-tensor, layout-mismatch.
        """
        spans = spans_between(frame.layout, layout)
        return cls.whole(unscaled(frame, loss_scale, run_all=run_all), run_all).placed(spans)

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

    def zeroed(self, run_all: RunAll = in_turn) -> Gradient:
        """The same with 0 for every element that is NaN, infinite, or whose square overflows (optax.zero_nans)."""
        if self.finite:
            return self
        vector = self.vector.copy()
        for start in range(0, vector.size, SUM_CHUNK):
            chunk = vector[start : start + SUM_CHUNK]
            chunk[~_usable(chunk, squares=True)] = 0.0
        return Gradient(vector, self.spans, sum_of_squares(vector, run_all), True)

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


def unscaled(
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
    overflows. Weights are never squared: they may be as large as float32 goes.
    """
    vector, found = unscaled(frame, loss_scale), []
    layout = frame.layout
    for name, shape, start in zip(layout.names, layout.shapes, layout.offsets, strict=True):
        index = _first_bad(vector[start : start + math.prod(shape)], squares)
        if index is not None:
            place = ",".join(str(int(i)) for i in np.unravel_index(index, shape)) if shape else ""
            found.append(f"{name}[{place}]" if place else name)
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


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
