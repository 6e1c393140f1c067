"""The sum of an open batch: gradients of several pushes on their way to one update.

    G ← G + n g        float32[N], in journal order, by elements
    S ← S + n          by tensor, double: a tensor left out counts only for those who sent it
    mean = G / S       of the tensors that came; the others have no gradient in this update

n are the samples of a push. The sum is owned as slots are and written in place; it is part of an image, because the
journal in front of a snapshot goes. Elementwise, so its bits depend neither on the blocks nor on the threads.

Source: K weighted shards are one batch: Σ n_i (mean over shard i) / Σ n_i is the mean over all (optax.MultiSteps).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradserve.wire import Layout, allocate

from .blocks import BLOCK_ELEMENTS, Array, RunAll, give_back, in_turn, share_out, sum_of_squares, take_scratch
from .clipping import UNCLIPPED, Clipped
from .gradient import Gradient, Span

__all__ = ["Accumulator"]

NewBuffer = Callable[[int], Array]
_Part = tuple[int, int, float]  # from, to, S


@dataclass(slots=True)
class Accumulator:
    """Σ n g of the open batch and Σ n of each tensor."""

    total: Array  # float32[N]
    shares: list[float] = field(default_factory=list)  # S, in layout order
    scaled: float = 0.0  # Σ n k: the factors k of pushes that were clipped one by one
    samples: float = 0.0  # Σ n over all pushes

    @classmethod
    def empty(cls, layout: Layout, new_buffer: NewBuffer = allocate) -> Accumulator:
        """The sum of nothing."""
        total = new_buffer(layout.parameters)
        total.fill(0.0)  # what is in an image is never what a buffer held before
        return cls(total, [0.0] * len(layout.names))

    def add(
        self,
        gradient: Gradient,
        samples: float,
        layout: Layout,
        *,
        clip: Clipped = UNCLIPPED,
        scale: float = 1.0,
        run_all: RunAll = in_turn,
    ) -> None:
        """One push more: `samples` times its gradient after `clip`, whose factors come to `scale` for the history."""
        factor = self.total.dtype.type(samples * clip.factor)

        def work(pieces: Iterable[Span]) -> None:
            (scratch,) = take_scratch(1, min(BLOCK_ELEMENTS, self.total.size), self.total.dtype)
            with np.errstate(all="ignore"):
                for piece in pieces:
                    g = gradient.vector[piece.gradient_start : piece.gradient_start + piece.length]
                    total = self.total[piece.weights_start : piece.weights_start + piece.length]
                    out = scratch[: piece.length]
                    np.add(total, np.multiply(clip.prepare(g, out), factor, out), total)
            give_back((scratch,))

        share_out(list(_pieces(gradient.spans)), work, run_all)
        for tensor in _tensors(gradient.spans, layout):
            self.shares[tensor] += samples
        self.samples += samples
        self.scaled += samples * scale

    @property
    def scale(self) -> float:
        """The mean factor by which single pushes were clipped."""
        return self.scaled / self.samples

    def mean(self, layout: Layout, run_all: RunAll = in_turn) -> Gradient:
        """The mean gradient, of the tensors that came. The sum is used up: its memory is the gradient's."""
        parts = self._parts(layout)

        def work(parts: Iterable[_Part]) -> None:
            with np.errstate(all="ignore"):
                for start, stop, share in parts:
                    total = self.total[start:stop]
                    np.divide(total, total.dtype.type(share), total)

        share_out([(at, min(at + BLOCK_ELEMENTS, stop), share) for start, stop, share in parts
                   for at in range(start, stop, BLOCK_ELEMENTS)], work, run_all)  # fmt: skip
        vector, spans = self.total, _spans_of(parts)
        if sum(span.length for span in spans) < vector.size:
            pieces = [vector[span.weights_start : span.weights_start + span.length] for span in spans]
            vector = np.concatenate(pieces) if pieces else vector[:0]
        squares = sum_of_squares(vector, run_all)
        return Gradient(vector, spans, squares, math.isfinite(squares))

    def _parts(self, layout: Layout) -> list[_Part]:
        """Where tensors lie that came, each with its S; neighbours of the same S are one part."""
        parts: list[_Part] = []
        for start, shape, share in zip(layout.offsets, layout.shapes, self.shares, strict=True):
            if not share:
                continue
            last, stop = parts[-1] if parts else None, start + math.prod(shape)
            if last and (last[1], last[2]) == (start, share):
                parts[-1] = (last[0], stop, share)
            else:
                parts.append((start, stop, share))
        return parts

    def copied(self) -> Accumulator:
        """The same in memory of its own."""
        return Accumulator(self.total.copy(), list(self.shares), self.scaled, self.samples)

    def to_json(self) -> dict[str, Any]:
        """Everything but the sum, for an image."""
        return {"shares": self.shares, "scaled": self.scaled, "samples": self.samples}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], total: Array) -> Accumulator:
        """The inverse of `to_json`."""
        return cls(total, list(value["shares"]), value["scaled"], value["samples"])


def _pieces(spans: Iterable[Span]) -> Iterator[Span]:
    """The spans, cut into blocks."""
    for span in spans:
        for start in range(0, span.length, BLOCK_ELEMENTS):
            length = min(BLOCK_ELEMENTS, span.length - start)
            yield Span(span.weights_start + start, span.gradient_start + start, length)


def _spans_of(parts: Iterable[_Part]) -> tuple[Span, ...]:
    """The parts end to end in a vector, neighbours merged."""
    spans: list[Span] = []
    begin = 0
    for start, stop, _ in parts:
        last = spans[-1] if spans else None
        if last and last.weights_start + last.length == start:
            spans[-1] = Span(last.weights_start, last.gradient_start, last.length + stop - start)
        else:
            spans.append(Span(start, begin, stop - start))
        begin += stop - start
    return tuple(spans)


def _tensors(spans: Iterable[Span], layout: Layout) -> Iterator[int]:
    """The tensors that came and have elements, by their number in the layout. A push brings whole tensors."""
    for span in spans:
        end = span.weights_start + span.length
        for tensor in range(bisect_left(layout.offsets, span.weights_start), bisect_left(layout.offsets, end)):
            if math.prod(layout.shapes[tensor]):
                yield tensor
