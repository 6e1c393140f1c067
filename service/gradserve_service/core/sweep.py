"""The sweep of elementwise rules: from the gradient to the next weights, while a block is in the cache.

What the other kinds need as well is here too: what an update is given, what the elements of a group have in common, how
the parameters are cut, and numbers in the form that NumPy takes fastest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradserve.wire import Layout

from .blocks import Array, RunAll, give_back, share_out, take_scratch
from .clipping import Clipped
from .decay import Decay, subtract_change
from .gradient import Gradient, Span
from .groups import Stretch, cut_by_group
from .optimizers.rule import Memory, Rule, Scalar, Slot

__all__ = ["Group", "Work", "as_scalars", "copy_the_rest", "decay_blocks", "sweep_elements"]


class Group(NamedTuple):
    """What the elements of one group have in common in this update."""

    rule: Rule  # with the group's weight decay
    lr: float
    scalars: tuple[float, ...]
    prepare: tuple[float, float] | None  # factor of the gradient and weight decay; None: nothing to do before the rule
    decay: Decay | None  # beside the rule; None: nothing decays there


@dataclass(slots=True)
class Work:
    """One update: what it is given, and what it writes. `weights` and `next_weights` have the same length."""

    rule: Rule
    declared: tuple[Slot, ...]  # the rule's slots, whatever momentum a schedule brings
    groups: Sequence[Group]
    clip: Clipped
    gradient: Gradient
    weights: Array
    next_weights: Array
    slots: Mapping[str, Array]
    memory: Memory
    layout: Layout
    stretches: Sequence[Stretch]
    step: int
    loss: float | None
    run_all: RunAll
    block_elements: int
    rest_is_there: bool  # `next_weights` already holds the weights that no gradient came for

    @property
    def like_weights(self) -> list[Array]:
        """The slots that are as the weights are, in the rule's order."""
        return [self.slots[slot.name] for slot in self.declared if slot.shape is None]


def sweep_elements(work: Work) -> None:
    """Apply an elementwise rule."""
    block = min(work.block_elements, work.weights.size)
    sweep = _Sweep(
        rule=work.rule,
        groups=work.groups,
        clip=work.clip,
        gradient=work.gradient.vector,
        weights=work.weights,
        next_weights=work.next_weights,
        slots=work.like_weights,
        block_elements=block,
    )
    spans = cut_by_group(work.gradient.spans, work.stretches)
    pieces = _pieces(spans, work.weights.size, work.block_elements)
    if work.rest_is_there:
        pieces = [piece for piece in pieces if piece.gradient_start is not None]
    share_out(pieces, sweep.lane, work.run_all)


def copy_the_rest(work: Work) -> None:
    """The weights that no gradient came for, into the next ones."""
    if work.rest_is_there:
        return
    end = 0
    for span in (*work.gradient.spans, Span(work.weights.size, 0, 0)):
        np.copyto(work.next_weights[end : span.weights_start], work.weights[end : span.weights_start])
        end = span.weights_start + span.length


class _Piece(NamedTuple):
    """`length` elements to compute; to copy when they have no gradient."""

    weights_start: int
    gradient_start: int | None
    length: int
    group: int = 0


@dataclass(slots=True)
class _Sweep:
    """What the blocks of one update share. `weights`, `next_weights` and the slots have the same length."""

    rule: Rule
    groups: Sequence[Group]
    clip: Clipped
    gradient: Array
    weights: Array
    next_weights: Array
    slots: Sequence[Array]
    block_elements: int

    def lane(self, pieces: Iterable[_Piece]) -> None:
        """The pieces of one task, with scratch blocks of its own."""
        prepares = self.clip.stages or any(group.prepare for group in self.groups)
        own = max(1 if prepares else 0, decay_blocks(self.groups))
        blocks = take_scratch(own + self.rule.scratch_blocks, self.block_elements, self.weights.dtype)
        # Overflow is an outcome, as in torch. NumPy's error state belongs to the thread, so each lane sets it.
        with np.errstate(all="ignore"):
            scalars = [as_scalars(group.scalars, self.weights) for group in self.groups]
            for piece in pieces:
                a = [block[: piece.length] for block in blocks]
                self._compute(piece, scalars[piece.group], a[:own], a[own:])
        give_back(blocks)

    def _compute(self, piece: _Piece, c: Sequence[Scalar], own: Sequence[Array], spare: Sequence[Array]) -> None:
        """One block, from the gradient to the next weights."""
        here = slice(piece.weights_start, piece.weights_start + piece.length)
        w, u = self.weights[here], self.next_weights[here]
        if piece.gradient_start is None:
            np.copyto(u, w)
            return
        group = self.groups[piece.group]
        g = self.gradient[piece.gradient_start : piece.gradient_start + piece.length]
        if self.clip.stages:
            g = self.clip.prepare(g, own[0])
        if group.prepare:
            factor, decay = group.prepare
            g = np.multiply(g, factor, own[0])
            np.add(g, np.multiply(w, decay, u), g)
        group.rule.change(c, g, w, [slot[here] for slot in self.slots], u, spare)
        subtract_change(group.decay, w, u, own)


def decay_blocks(groups: Sequence[Group]) -> int:
    """Scratch blocks that the weight decay of these groups needs."""
    return max((group.decay.scratch_blocks for group in groups if group.decay), default=0)


def as_scalars(numbers: Sequence[float], like: Array) -> list[Scalar]:
    """0-d arrays in the dtype of `like`: NumPy takes them twice as fast as its own scalars."""
    row = np.array(numbers, like.dtype)
    return [row[i, ...] for i in range(row.size)]


def _pieces(spans: Sequence[tuple[Span, int]], parameters: int, block: int) -> list[_Piece]:
    """Cut [0, parameters) into blocks: those inside a span, with its group, and those in the gaps between spans."""
    pieces: list[_Piece] = []
    end = 0
    for span, group in spans:
        pieces += [_Piece(x, None, min(block, span.weights_start - x)) for x in range(end, span.weights_start, block)]
        end = span.weights_start + span.length
        ahead = span.gradient_start - span.weights_start
        pieces += [_Piece(x, x + ahead, min(block, end - x), group) for x in range(span.weights_start, end, block)]
    pieces += [_Piece(x, None, min(block, parameters - x)) for x in range(end, parameters, block)]
    return pieces
