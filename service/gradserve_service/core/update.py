"""The driver: one gradient, one update, the same for every rule.

    clip → sign of `maximize` → L2 decay → rule.change → decoupled decay, w ← w - u

with the learning rate and the weight decay of each parameter's group; all of it block by block while the block is in
the cache. Readers of the old weights are never disturbed: the new ones are written into another buffer, and that buffer
also holds the change u until it is subtracted.
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
from .groups import GroupTerms, Stretch, cut_by_group
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
    terms: Sequence[GroupTerms],
    stretches: Sequence[Stretch] = (),
    momentum: float | None,
    step: int,
    run_all: RunAll = in_turn,
    block_elements: int = BLOCK_ELEMENTS,
) -> UpdateStatistics:
    """Apply one gradient: write every element of `next_weights`, and slots and memory in place.

    All arrays have the same length N and the same float dtype. `weights` and `gradient.vector` are only read;
    `next_weights` must share memory with neither. Parameters without a gradient keep weights and slots. `step` is the
    number of this update, from 1. `terms` are those of each group by its place, `stretches` say which parameters have
    which; without stretches all have the first. `momentum`, if not None, replaces the rule's for this update.

    The bits of the result depend neither on `run_all` nor on `block_elements`.
    """
    if rule.kind != "elementwise":
        raise NotImplementedError(f"no sweep for rules of the kind {rule.kind!r}")
    own_slots = [slots[slot.name] for slot in rule.slots]  # before a schedule's momentum: 0 would make a slot vanish
    if momentum is not None:
        rule = rule.with_momentum(momentum)
    clip_plan = clipped(clip, gradient, run_all)
    factor = -clip_plan.factor if rule.maximize else clip_plan.factor
    sweep = _Sweep(
        rule=rule,
        groups=_resolved(rule, terms, step, factor, memory),
        clip=clip_plan,
        gradient=gradient.vector,
        weights=weights,
        next_weights=next_weights,
        slots=own_slots,
        block_elements=min(block_elements, weights.size),
    )
    pieces = _pieces(cut_by_group(gradient.spans, stretches), weights.size, block_elements)
    share_out(pieces, sweep.lane, run_all)
    return UpdateStatistics(math.sqrt(gradient.sum_of_squares), clip_plan.clip_scale)


class _Group(NamedTuple):
    """What the elements of one group have in common in this update."""

    scalars: tuple[float, ...]
    l2: tuple[float, float] | None  # factor of the gradient and weight decay; without L2 the rule folds the factor
    keep: float | None  # 1 - lr · weight decay; None without decoupled decay


def _resolved(rule: Rule, terms: Sequence[GroupTerms], step: int, factor: float, memory: Memory) -> list[_Group]:
    """The numbers of each group. The rule's memory goes one update ahead, from the same place for each of them."""
    groups, before = [], dict(memory)
    for lr, decay in ((each.lr, each.weight_decay) for each in terms):
        l2 = decay if rule.weight_decay_mode == "l2" else 0.0
        keep = 1.0 - lr * decay if rule.weight_decay_mode == "decoupled" else 1.0
        memory.update(before)
        scalars = rule.scalars(step, lr, 1.0 if l2 else factor, memory)
        groups.append(_Group(scalars, (factor, l2) if l2 else None, keep if keep != 1.0 else None))
    return groups


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
    groups: Sequence[_Group]
    clip: Clipped
    gradient: Array
    weights: Array
    next_weights: Array
    slots: Sequence[Array]
    block_elements: int

    def lane(self, pieces: Iterable[_Piece]) -> None:
        """The pieces of one task, with scratch blocks of its own."""
        own = 1 if self.clip.stages or any(group.l2 or group.keep is not None for group in self.groups) else 0
        blocks = take_scratch(own + self.rule.scratch_blocks, self.block_elements, self.weights.dtype)
        # Overflow is an outcome, as in torch. NumPy's error state belongs to the thread, so each lane sets it.
        with np.errstate(all="ignore"):
            scalars = [_as_scalars(group.scalars, self.weights) for group in self.groups]
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
        if group.l2:
            factor, decay = group.l2
            g = np.multiply(g, factor, own[0])
            np.add(g, np.multiply(w, decay, u), g)
        self.rule.change(c, g, w, [slot[here] for slot in self.slots], u, spare)
        if group.keep is not None:
            w = np.multiply(w, group.keep, own[0])
        np.subtract(w, u, u)


def _as_scalars(numbers: Sequence[float], like: Array) -> list[Scalar]:
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
