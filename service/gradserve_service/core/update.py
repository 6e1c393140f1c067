"""The driver: one gradient, one update, the same for every rule.

    clip → sign of `maximize` → L2 decay → rule.change → decoupled decay, w ← w - u

all of it block by block while the block is in the cache. Readers of the old weights are never disturbed: the new ones
are written into another buffer, and that buffer also holds the change u until it is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gradserve.specs import ClipSpec

from .blocks import BLOCK_ELEMENTS, Array, RunAll, give_back, in_turn, share_out, take_scratch
from .clipping import Clipped, clipped
from .gradient import Gradient, Span
from .optimizers.rule import Memory, Rule, Scalar

__all__ = ["UpdateStatistics", "apply_update"]


@dataclass(frozen=True, slots=True)
class UpdateStatistics:
    """What an update found out. Results of the arithmetic, never its inputs."""

    gradient_norm: float  # of the gradient as it came, over the tensors that came
    clip_scale: float  # product of the factors of all `global_norm` stages; 1.0: nothing was scaled


def apply_update(
    rule: Rule,
    clip: Sequence[ClipSpec],
    *,
    weights: Array,
    next_weights: Array,
    slots: Mapping[str, Array],
    memory: Memory,
    gradient: Gradient,
    lr: float,
    momentum: float | None,
    step: int,
    run_all: RunAll = in_turn,
    block_elements: int = BLOCK_ELEMENTS,
) -> UpdateStatistics:
    """Apply one gradient: write every element of `next_weights`, and slots and memory in place.

    All arrays have the same length N and the same float dtype. `weights` and `gradient.vector` are only read;
    `next_weights` must share memory with neither. Parameters without a gradient keep weights and slots. `step` is the
    number of this update, from 1. `momentum`, if not None, replaces the rule's for this update.

    The bits of the result depend neither on `run_all` nor on `block_elements`.
    """
    if rule.kind != "elementwise":
        raise NotImplementedError(f"no sweep for rules of the kind {rule.kind!r}")
    own_slots = [slots[slot.name] for slot in rule.slots]  # before a schedule's momentum: 0 would make a slot vanish
    if momentum is not None:
        rule = rule.with_momentum(momentum)
    clip_plan = clipped(clip, gradient, run_all)
    factor = -clip_plan.factor if rule.maximize else clip_plan.factor
    l2 = rule.weight_decay if rule.weight_decay_mode == "l2" else 0.0
    keep = 1.0 - lr * rule.weight_decay if rule.weight_decay_mode == "decoupled" else 1.0
    sweep = _Sweep(
        rule=rule,
        scalars=rule.scalars(step, lr, 1.0 if l2 else factor, memory),
        clip=clip_plan,
        l2=(factor, l2) if l2 else None,
        keep=keep if keep != 1.0 else None,
        gradient=gradient.vector,
        weights=weights,
        next_weights=next_weights,
        slots=own_slots,
        block_elements=min(block_elements, weights.size),
    )
    share_out(_pieces(gradient.spans, weights.size, block_elements), sweep.lane, run_all)
    return UpdateStatistics(math.sqrt(gradient.sum_of_squares), clip_plan.clip_scale)


class _Piece(NamedTuple):
    """`length` elements to compute; to copy when they have no gradient."""

    weights_start: int
    gradient_start: int | None
    length: int


@dataclass(slots=True)
class _Sweep:
    """What the blocks of one update share. `weights`, `next_weights` and the slots have the same length."""

    rule: Rule
    scalars: tuple[float, ...]
    clip: Clipped
    l2: tuple[float, float] | None  # factor of the gradient and weight decay; without L2 the rule folds the factor
    keep: float | None  # 1 - lr · weight decay; None without decoupled decay
    gradient: Array
    weights: Array
    next_weights: Array
    slots: Sequence[Array]
    block_elements: int

    def lane(self, pieces: Iterable[_Piece]) -> None:
        """The pieces of one task, with scratch blocks of its own."""
        own = 1 if self.clip.stages or self.l2 or self.keep is not None else 0
        blocks = take_scratch(own + self.rule.scratch_blocks, self.block_elements, self.weights.dtype)
        # Overflow is an outcome, as in torch. NumPy's error state belongs to the thread, so each lane sets it.
        with np.errstate(all="ignore"):
            c = _as_scalars(self.scalars, self.weights)
            for piece in pieces:
                a = [block[: piece.length] for block in blocks]
                self._compute(piece, c, a[:own], a[own:])
        give_back(blocks)

    def _compute(self, piece: _Piece, c: Sequence[Scalar], own: Sequence[Array], spare: Sequence[Array]) -> None:
        """One block, from the gradient to the next weights."""
        here = slice(piece.weights_start, piece.weights_start + piece.length)
        w, u = self.weights[here], self.next_weights[here]
        if piece.gradient_start is None:
            np.copyto(u, w)
            return
        g = self.gradient[piece.gradient_start : piece.gradient_start + piece.length]
        if self.clip.stages:
            g = self.clip.prepare(g, own[0])
        if self.l2:
            factor, decay = self.l2
            g = np.multiply(g, factor, own[0])
            np.add(g, np.multiply(w, decay, u), g)
        self.rule.change(c, g, w, [slot[here] for slot in self.slots], u, spare)
        if self.keep is not None:
            w = np.multiply(w, self.keep, own[0])
        np.subtract(w, u, u)


def _as_scalars(numbers: Sequence[float], like: Array) -> list[Scalar]:
    """0-d arrays in the dtype of `like`: NumPy takes them twice as fast as its own scalars."""
    row = np.array(numbers, like.dtype)
    return [row[i, ...] for i in range(row.size)]


def _pieces(spans: Sequence[Span], parameters: int, block: int) -> list[_Piece]:
    """Cut [0, parameters) into blocks: those inside a span, and those in the gaps between spans."""
    pieces: list[_Piece] = []
    end = 0
    for span in spans:
        pieces += [_Piece(x, None, min(block, span.weights_start - x)) for x in range(end, span.weights_start, block)]
        end = span.weights_start + span.length
        ahead = span.gradient_start - span.weights_start
        pieces += [_Piece(x, x + ahead, min(block, end - x)) for x in range(span.weights_start, end, block)]
    pieces += [_Piece(x, None, min(block, parameters - x)) for x in range(end, parameters, block)]
    return pieces
