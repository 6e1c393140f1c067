"""The driver: one gradient, one update, the same for every rule.

    clip → sign of `maximize` → L2 decay → rule.change → decoupled decay and w ← w - u

all of it block by block while the block is in the cache. Readers of the old weights are never disturbed: the new ones
are written into another buffer, and that buffer also holds the change u until it is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from gradserve.specs import ClipSpec

from .blocks import BLOCK_ELEMENTS, Array, RunAll, in_turn, scratch, share_out
from .clipping import Clipped, clipped
from .gradient import Gradient, Span
from .optimizers.rule import Rule, Scalar

__all__ = ["UpdateStatistics", "apply_update"]


@dataclass(frozen=True, slots=True)
class UpdateStatistics:
    """What an update found out. Results of the arithmetic, never its inputs."""

    gradient_norm: float  # of the gradient as it came, over the tensors that came
    clip_scale: float  # product of the factors of all `global_norm` stages; 1.0: nothing was scaled


@dataclass(frozen=True, slots=True)
class _Piece:
    """`length` elements to compute; to copy when they have no gradient."""

    weights_start: int
    gradient_start: int | None
    length: int


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Everything that the blocks of one update share; read-only but for `next_weights` and `slots`."""

    rule: Rule
    clip: Clipped
    scalars: tuple[Scalar, ...]
    sign: Scalar  # applied where the rule cannot fold it: with L2 decay
    l2: Scalar | None
    keep: Scalar | None  # 1 - lr · weight_decay, None without decoupled decay
    gradient: Array
    weights: Array
    next_weights: Array
    slots: tuple[Array, ...]

    def lane(self, pieces: Iterator[_Piece], block: int) -> None:
        """Work on the pieces of one task, with scratch blocks of its own."""
        own = self.rule.scratch_blocks + 1
        with ExitStack() as stack:
            stack.enter_context(np.errstate(all="ignore"))  # overflow to infinity is an outcome, as in torch
            spare = [stack.enter_context(scratch(block, self.weights.dtype)) for _ in range(own)]
            for piece in pieces:
                self.compute(piece, spare)

    def compute(self, piece: _Piece, spare: Sequence[Array]) -> None:
        """One block, from the gradient to the next weights."""
        here = slice(piece.weights_start, piece.weights_start + piece.length)
        w, u = self.weights[here], self.next_weights[here]
        if piece.gradient_start is None:
            np.copyto(u, w)
            return
        g = self.gradient[piece.gradient_start : piece.gradient_start + piece.length]
        a = [block[: piece.length] for block in spare]
        g = self.clip.prepare(g, a[0])
        if self.l2 is not None:
            g = np.multiply(g, self.sign, a[0])
            np.multiply(w, self.l2, u)
            np.add(g, u, g)
        self.rule.change(self.scalars, g, w, [slot[here] for slot in self.slots], u, a[1:])
        if self.keep is None:
            np.subtract(w, u, u)
        else:
            np.multiply(w, self.keep, a[0])
            np.subtract(a[0], u, u)


def apply_update(
    rule: Rule,
    clip: Sequence[ClipSpec],
    *,
    weights: Array,
    next_weights: Array,
    slots: Mapping[str, Array],
    gradient: Gradient,
    lr: float,
    momentum: float | None,
    step: int,
    run_all: RunAll = in_turn,
    block_elements: int = BLOCK_ELEMENTS,
) -> UpdateStatistics:
    """Apply one gradient: write every element of `next_weights`, and the slots in place.

    All arrays have the same length N and the same float dtype. `weights` and `gradient.vector` are only read;
    `next_weights` must be another buffer than both. Parameters without a gradient keep weights and slots. `step` is the
    number of this update, from 1. `momentum`, if not None, replaces the rule's for this update.

    The bits of the result depend neither on `run_all` nor on `block_elements`.
    """
    if rule.kind != "elementwise":
        raise NotImplementedError(f"no sweep for rules of the kind {rule.kind!r}")
    own_slots = tuple(slots[slot.name] for slot in rule.slots)  # asked before momentum can make a slot vanish
    if momentum is not None:
        rule = rule.with_momentum(momentum)
    plan = clipped(clip, gradient, run_all)
    factor = -plan.factor if rule.maximize else plan.factor
    decay = rule.weight_decay if rule.weight_decay_mode == "l2" else 0.0
    keep = 1.0 - lr * rule.weight_decay if rule.weight_decay_mode == "decoupled" else 1.0
    scalar = weights.dtype.type
    sweep = _Sweep(
        rule=rule,
        clip=plan,
        scalars=tuple(scalar(x) for x in rule.scalars(step, lr, 1.0 if decay else factor)),
        sign=scalar(factor),
        l2=scalar(decay) if decay else None,
        keep=scalar(keep) if keep != 1.0 else None,
        gradient=gradient.vector,
        weights=weights,
        next_weights=next_weights,
        slots=own_slots,
    )
    pieces = list(_pieces(gradient.spans, weights.size, block_elements))
    block = min(block_elements, weights.size)
    share_out(pieces, lambda taken: sweep.lane(taken, block), run_all)
    return UpdateStatistics(math.sqrt(gradient.sum_of_squares), plan.clip_scale)


def _pieces(spans: Sequence[Span], parameters: int, block: int) -> Iterator[_Piece]:
    """Cut [0, parameters) into blocks: those inside a span, and those in the gaps between spans."""
    end = 0
    for span in (*spans, Span(parameters, 0, 0)):
        for start in range(end, span.weights_start, block):
            yield _Piece(start, None, min(block, span.weights_start - start))
        end = span.weights_start + span.length
        for start in range(span.weights_start, end, block):
            yield _Piece(start, span.gradient_start + start - span.weights_start, min(block, end - start))
