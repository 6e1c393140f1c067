"""The sweep of rows: the touched rows, gathered, are a small run of their own, and the rule never knows.

    gather the rows of weights and slots → the sweep of the rule's kind → write them back at their places

Every element is computed from elements of the same row alone, so the bits are those of the same update on all rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradserve.wire import Layout

from .blocks import Array
from .gradient import Gradient, Span
from .groups import Stretch
from .rows import Rows
from .slots import own_layouts
from .sweep import Work

__all__ = ["sweep_rows"]


def sweep_rows(work: Work, sweep: Callable[[Work], None]) -> None:
    """Apply what came of tensors that did not come whole. `sweep` is that of the rule's kind."""
    for rows in work.gradient.rows:
        if rows.elements:
            _sweep_tensor(work, sweep, rows)


def _sweep_tensor(work: Work, sweep: Callable[[Work], None], rows: Rows) -> None:
    slots = {name: rows.of(slot) for name, slot in _of_tensor(work, rows).items()}
    few = _gathered(work, rows, slots)
    sweep(few)
    rows.of(_tensor(work.next_weights, work.layout, rows))[rows.ids] = rows.few(few.next_weights)
    for name, slot in slots.items():
        slot[rows.ids] = rows.few(few.slots[name])


def _gathered(work: Work, rows: Rows, slots: Mapping[str, Array]) -> Work:
    """The update of these rows as if there were no others."""
    w = np.take(rows.of(_tensor(work.weights, work.layout, rows)), rows.ids, axis=0).reshape(-1)
    g = work.gradient.vector[rows.gradient_start : rows.gradient_start + rows.elements]
    return replace(
        work,
        gradient=Gradient(g, (Span(0, 0, w.size),), work.gradient.sum_of_squares, work.gradient.finite),
        weights=w,
        next_weights=np.empty_like(w),
        slots={name: np.take(slot, rows.ids, axis=0).reshape(-1) for name, slot in slots.items()},
        layout=Layout.of({rows.name: (rows.ids.size, *rows.shape[1:])}),
        stretches=(Stretch(0, w.size, _group_at(work.stretches, rows.weights_start)),),
        rest_is_there=True,
    )


def _tensor(vector: Array, layout: Layout, rows: Rows) -> Array:
    return vector[layout.span(rows.name)]


def _of_tensor(work: Work, rows: Rows) -> dict[str, Array]:
    """What each slot holds of the tensor."""
    own = own_layouts(work.declared, work.layout)
    layouts = {slot.name: own.get(slot.name, work.layout) for slot in work.declared}
    return {name: _tensor(work.slots[name], layout, rows) for name, layout in layouts.items()}


def _group_at(stretches: Sequence[Stretch], start: int) -> int:
    """The group of the parameters from `start` on; without stretches all are the default group's."""
    if not stretches:
        return 0
    return stretches[bisect_right(stretches, start, key=lambda stretch: stretch.start) - 1].group
