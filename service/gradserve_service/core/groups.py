"""Parameter groups in the terms of the sweep: stretches of the flat vector, and what each group is updated with.

A tensor belongs to the first group that matches its name, else to the default group, whose place is 0. Neighbours of
the same group are one stretch, so a run whose groups are few long stretches pays next to nothing for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradserve.specs import OptimizerSpec, ParameterGroup, groups_of
from gradserve.wire import Layout

from .gradient import Span

__all__ = ["GroupTerms", "Stretch", "cut_by_group", "group_terms", "stretches_of", "training"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The parameters from `start` up to `stop` belong to the group at this place."""

    start: int
    stop: int
    group: int


@dataclass(frozen=True, slots=True)
class GroupTerms:
    """What differs between groups in one update."""

    lr: float
    weight_decay: float


def stretches_of(groups: tuple[ParameterGroup, ...], layout: Layout) -> tuple[Stretch, ...]:
    """All parameters, cut where the group changes; nothing for a run without groups."""
    if not groups:
        return ()
    found: list[Stretch] = []
    for group, shape, start in zip(groups_of(groups, layout.names), layout.shapes, layout.offsets, strict=True):
        stop = start + math.prod(shape)
        if found and found[-1].group == group:
            found[-1] = Stretch(found[-1].start, stop, group)
        elif stop > start:
            found.append(Stretch(start, stop, group))
    return tuple(found)


def training(groups: Sequence[ParameterGroup], stretches: Sequence[Stretch]) -> list[tuple[int, int]] | None:
    """From where to where parameters are not frozen, neighbours merged; None when no group is frozen."""
    if not any(group.frozen for group in groups):
        return None
    kept: list[tuple[int, int]] = []
    for stretch in stretches:
        if stretch.group and groups[stretch.group - 1].frozen:
            continue
        start = kept.pop()[0] if kept and kept[-1][1] == stretch.start else stretch.start
        kept.append((start, stretch.stop))
    return kept


def group_terms(
    optimizer: OptimizerSpec, groups: Sequence[ParameterGroup], update: Mapping[str, Any], weight: float
) -> list[GroupTerms]:
    """What each group is updated with, the default group first. `update` is the entry's; `weight` the staleness's.

        lr of a group = its own in `update`, else lr_scale · lr        both times the staleness weight

    A rate that the client names for a group is the group's, as it stands: `lr_scale` is for rates that it shares.
    """
    own: Mapping[str, float] = update.get("group_lr", {})
    terms = [GroupTerms(update["lr"] * weight, optimizer.weight_decay)]
    for group in groups:
        lr = own[group.name] if group.name in own else update["lr"] * group.lr_scale
        decay = optimizer.weight_decay if group.weight_decay is None else group.weight_decay
        terms.append(GroupTerms(lr * weight, decay))
    return terms


def cut_by_group(spans: Sequence[Span], stretches: Sequence[Stretch]) -> list[tuple[Span, int]]:
    """The spans, cut where the group changes, each with its group. Without stretches all are the default group's."""
    if not stretches:
        return [(span, 0) for span in spans]
    cut: list[tuple[Span, int]] = []
    at = 0
    for span in spans:
        start, end, ahead = span.weights_start, span.weights_start + span.length, span.gradient_start
        while start < end:
            while stretches[at].stop <= start:
                at += 1
            stop = min(stretches[at].stop, end)
            cut.append((Span(start, ahead + start - span.weights_start, stop - start), stretches[at].group))
            start = stop
    return cut
