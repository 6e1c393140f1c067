"""The driver: one gradient, one update, the same for every rule.

    clip → sign of `maximize` → L2 decay → rule.change → weight decay of `decay.py`, w ← w - u

with the learning rate and the weight decay of each parameter's group. Rules that are elementwise take one sweep of
`sweep.py`, block by block while the block is in the cache; those that need sums or shapes those of `tensor_sweeps.py`.
Readers of the old weights are never disturbed: the new ones are written into another buffer, and that buffer also holds
the change u until it is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gradserve.specs import ClipSpec
from gradserve.wire import Layout

from .blocks import BLOCK_ELEMENTS, Array, RunAll, in_turn
from .clipping import clipped
from .decay import decay_of
from .gradient import Gradient
from .groups import GroupTerms, Stretch
from .optimizers.rule import Kind, Memory, Rule
from .row_sweep import sweep_rows
from .sweep import Group, Work, sweep_elements
from .tensor_sweeps import sweep_shapes, sweep_with_sums

__all__ = ["UpdateStatistics", "apply_update"]

_SWEEPS: Mapping[Kind, Callable[[Work], None]] = {
    "elementwise": sweep_elements,
    "per_tensor": sweep_with_sums,
    "whole_run": sweep_with_sums,
    "shaped": sweep_shapes,
}


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
    layout: Layout | None = None,
    momentum: float | None,
    step: int,
    loss: float | None = None,
    rest_is_there: bool = False,
    run_all: RunAll = in_turn,
    block_elements: int = BLOCK_ELEMENTS,
) -> UpdateStatistics:
    """Apply one gradient: write every element of `next_weights`, and slots and memory in place.

    `weights`, `next_weights` and most slots have the same length N, all the same float dtype. `weights` and
    `gradient.vector` are only read; `next_weights` must share memory with neither. Parameters without a gradient keep
    weights and slots. `step` is the number of this update, from 1. `terms` are those of each group by its place,
    `stretches` say which parameters have which; without stretches all have the first. `layout` says where the tensors
    lie; without it all parameters are one. `momentum`, if not None, replaces the rule's for this update; `loss` is the
    one that came with the gradient. With `rest_is_there`, `next_weights` already holds the weights that no gradient
    came for, and only those of the others are written.

    The bits of the result depend neither on `run_all` nor on `block_elements`.
    """
    declared = rule.slots  # before a schedule's momentum: 0 would make a slot vanish
    if momentum is not None:
        rule = rule.with_momentum(momentum)
    clip_plan = clipped(clip, gradient, run_all)
    factor = -clip_plan.factor if rule.maximize else clip_plan.factor
    work = Work(
        rule=rule,
        declared=declared,
        groups=_resolved(rule, terms, step, factor, memory),
        clip=clip_plan,
        gradient=gradient,
        weights=weights,
        next_weights=next_weights,
        slots=slots,
        memory=memory,
        layout=layout or Layout.of({"all": [weights.size]}),
        stretches=stretches,
        step=step,
        loss=-loss if loss is not None and rule.maximize else loss,
        run_all=run_all,
        block_elements=block_elements,
        rest_is_there=rest_is_there,
    )
    sweep = _SWEEPS[rule.kind]
    sweep(work)
    sweep_rows(work, sweep)
    # A number that overflowed begins again: the weights may still be finite, and a saved state holds no infinity.
    memory.update({name: x for name, x in rule.memory.items() if not math.isfinite(memory[name])})
    return UpdateStatistics(math.sqrt(gradient.sum_of_squares), clip_plan.clip_scale)


def _resolved(rule: Rule, terms: Sequence[GroupTerms], step: int, factor: float, memory: Memory) -> list[Group]:
    """The numbers of each group. The rule's memory goes one update ahead, once for all of them."""
    groups: list[Group] = []
    rule.advance(step, max(each.lr for each in terms), memory)
    folds = rule.kind == "elementwise"  # an elementwise rule takes the gradient's factor into its own scalars
    for lr, decay in ((each.lr, each.weight_decay) for each in terms):
        l2 = decay if rule.weight_decay_mode == "l2" else 0.0
        own = rule.with_decay(decay)
        beside = decay_of(rule.weight_decay_mode, own.decay_rate(step, lr, memory), rule.lr, decay)
        prepare = (factor, l2) if l2 or (factor != 1.0 and not folds) else None
        scalars = own.scalars(step, lr, 1.0 if prepare or not folds else factor, memory)
        groups.append(Group(own, lr, scalars, prepare, beside))
    return groups
