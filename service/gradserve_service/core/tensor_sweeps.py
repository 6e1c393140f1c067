"""The sweeps of the rules that are not elementwise: with sums over a tensor or over the run, and with shapes.

All of them go tensor by tensor. With sums a long tensor is cut into segments of `SUM_CHUNK` elements: the cut is part
of the result, as is the order in which the segments' sums are added, so `block_elements` means nothing here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gradserve.wire import Layout

from .blocks import SUM_CHUNK, Array, give_back, share_out, take_scratch
from .decay import subtract_change
from .gradient import Span
from .groups import Stretch, cut_by_group
from .optimizers.kinds import GroupSums, PerTensorRule, SummedRule, WholeRunRule
from .optimizers.rule import Scalar
from .slots import own_layouts
from .sweep import Group, Work, as_scalars, copy_the_rest, decay_blocks

__all__ = ["sweep_shapes", "sweep_with_sums"]


class _Segment(NamedTuple):
    """`length` elements of one tensor that came. `number` is its place in the order of all."""

    number: int
    tensor: int
    weights_start: int
    gradient_start: int
    length: int
    group: int


@lru_cache(maxsize=64)
def _segments(
    layout: Layout, spans: tuple[Span, ...], stretches: tuple[Stretch, ...], most: int | None
) -> tuple[_Segment, ...]:
    """What came, cut at the tensors' edges, and inside a tensor every `most` elements."""
    found: list[_Segment] = []
    for span, group in cut_by_group(spans, stretches):
        start, end = span.weights_start, span.weights_start + span.length
        ahead = span.gradient_start - start
        while start < end:
            tensor = bisect_right(layout.offsets, start) - 1  # of those without elements at this place the last
            after = layout.offsets[tensor] + layout.size(layout.names[tensor])
            stop = min(end, after, start + most if most else after)
            found.append(_Segment(len(found), tensor, start, start + ahead, stop - start, group))
            start = stop
    return tuple(found)


def _prepared(work: Work, group: Group, piece: _Segment, w: Array, own: Array, spare: Array) -> Array:
    """The gradient of a segment as the rule is to see it, in `own` where something had to be done to it."""
    g = work.gradient.vector[piece.gradient_start : piece.gradient_start + piece.length]
    if work.clip.stages:
        g = work.clip.prepare(g, own)
    if group.prepare:
        factor, decay = group.prepare
        g = np.multiply(g, factor, own) if factor != 1.0 else g
        g = np.add(g, np.multiply(w, decay, spare), own) if decay else g
    return g


# ------------------------------------------------------------------------------------------------------------- sums


def sweep_with_sums(work: Work) -> None:
    """Apply a rule that needs sums: one sweep up to them, one after them."""
    assert isinstance(work.rule, SummedRule)
    segments = _segments(work.layout, work.gradient.spans, tuple(work.stretches), SUM_CHUNK)
    both = _TwoSweeps(work, work.rule, work.like_weights, np.zeros((len(segments), work.rule.sums)))
    share_out(segments, both.first, work.run_all)
    with np.errstate(all="ignore"):
        both.numbers = both.between(segments)
    share_out(segments, both.second, work.run_all)
    copy_the_rest(work)


@dataclass(slots=True)
class _TwoSweeps:
    work: Work
    rule: SummedRule
    slots: Sequence[Array]
    sums: Array  # float64[segments, sums]
    numbers: Sequence[Sequence[Scalar]] = ()  # by group, or by tensor: see `of_tensor`

    def first(self, segments: Iterable[_Segment]) -> None:
        """One task of the first sweep."""
        work, size = self.work, min(SUM_CHUNK, self.work.weights.size)
        own, *blocks = take_scratch(1 + self.rule.scratch_blocks, size, work.weights.dtype)
        (doubles,) = take_scratch(1, size, np.float64)

        def total(x: Array) -> float:
            np.copyto(doubles[: x.size], x)
            return float(np.add.reduce(doubles[: x.size]))

        with np.errstate(all="ignore"):
            scalars = [as_scalars(group.scalars, work.weights) for group in work.groups]
            for piece in segments:
                group, c = work.groups[piece.group], scalars[piece.group]
                w, s, u = self._at(piece)
                a = [block[: piece.length] for block in blocks]
                g = _prepared(work, group, piece, w, own[: piece.length], u)
                assert isinstance(group.rule, SummedRule)
                group.rule.change(c, g, w, s, u, a)
                self.sums[piece.number] = group.rule.measure(c, g, w, s, u, a, total)
        give_back((own, doubles, *blocks))

    def _at(self, piece: _Segment) -> tuple[Array, list[Array], Array]:
        here = slice(piece.weights_start, piece.weights_start + piece.length)
        return self.work.weights[here], [slot[here] for slot in self.slots], self.work.next_weights[here]

    def between(self, segments: Sequence[_Segment]) -> list[list[Scalar]]:
        """The numbers of the second sweep, from sums that are added in the order of the segments."""
        by_tensor = isinstance(self.rule, PerTensorRule)
        places = len(self.work.layout.names if by_tensor else self.work.groups)
        sums = [[0.0] * self.rule.sums for _ in range(places)]
        groups = [0] * places
        for piece, row in zip(segments, self.sums.tolist(), strict=True):
            place = piece.tensor if by_tensor else piece.group
            groups[place] = piece.group
            sums[place] = [x + y for x, y in zip(sums[place], row, strict=True)]
        came = {piece.tensor for piece in segments} if by_tensor else set()
        numbers = self._of_tensors(sums, groups, came) if by_tensor else self._of_run(sums)
        return [as_scalars(row, self.work.weights) for row in numbers]

    def _of_tensors(self, sums: list[list[float]], groups: list[int], came: set[int]) -> Iterable[Sequence[float]]:
        work, own = self.work, own_layouts(self.work.declared, self.work.layout)
        for tensor, row in enumerate(sums):
            if tensor not in came:
                yield ()
                continue
            group = work.groups[groups[tensor]]
            assert isinstance(group.rule, PerTensorRule)
            name = work.layout.names[tensor]
            yield group.rule.of_tensor(group.scalars, row, [work.slots[x][y.span(name)] for x, y in own.items()])

    def _of_run(self, sums: list[list[float]]) -> Iterable[Sequence[float]]:
        assert isinstance(self.rule, WholeRunRule)
        groups = [GroupSums(group.lr, row) for group, row in zip(self.work.groups, sums, strict=True)]
        return self.rule.of_run(self.work.step, groups, self.work.memory, self.work.loss)

    def second(self, segments: Iterable[_Segment]) -> None:
        """One task of the second sweep."""
        work, size = self.work, min(SUM_CHUNK, self.work.weights.size)
        blocks = take_scratch(self.rule.scratch_blocks, size, work.weights.dtype)
        own = take_scratch(decay_blocks(work.groups), size, work.weights.dtype)
        by_tensor = isinstance(self.rule, PerTensorRule)
        with np.errstate(all="ignore"):
            scalars = [as_scalars(group.scalars, work.weights) for group in work.groups]
            for piece in segments:
                group, c = work.groups[piece.group], scalars[piece.group]
                w, s, u = self._at(piece)
                r = self.numbers[piece.tensor if by_tensor else piece.group]
                assert isinstance(group.rule, SummedRule)
                group.rule.finish(c, r, w, s, u, [block[: piece.length] for block in blocks])
                subtract_change(group.decay, w, u, [block[: piece.length] for block in own])
        give_back((*own, *blocks))


# ----------------------------------------------------------------------------------------------------------- shapes


def sweep_shapes(work: Work) -> None:
    """Apply a rule that sees whole tensors in their shape."""
    pieces = _segments(work.layout, work.gradient.spans, tuple(work.stretches), None)
    own = own_layouts(work.declared, work.layout)
    slots = [(own.get(slot.name, work.layout), work.slots[slot.name]) for slot in work.declared]

    def lane(pieces: Iterable[_Segment]) -> None:
        with np.errstate(all="ignore"):
            scalars = [as_scalars(group.scalars, work.weights) for group in work.groups]
            for piece in pieces:
                _change_tensor(work, scalars[piece.group], slots, piece)

    share_out(pieces, lane, work.run_all)
    copy_the_rest(work)


def _change_tensor(work: Work, c: Sequence[Scalar], slots: Sequence[tuple[Layout, Array]], piece: _Segment) -> None:
    group, name = work.groups[piece.group], work.layout.names[piece.tensor]
    shape, here = work.layout.shape(name) or (1,), slice(piece.weights_start, piece.weights_start + piece.length)
    w, u = work.weights[here], work.next_weights[here]
    own = [np.empty_like(w) for _ in range(max(1, decay_blocks([group])))]
    g = _prepared(work, group, piece, w, own[0], u)
    s = [vector[layout.span(name)].reshape(layout.shape(name) or (1,)) for layout, vector in slots if name in layout]
    group.rule.change(c, g.reshape(shape), w.reshape(shape), s, u.reshape(shape), ())
    subtract_change(group.decay, w, u, own)
