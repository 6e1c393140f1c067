"""A rule's slots as vectors: what lies where in them, and how they begin.

Most slots are as the weights are. A shaped rule may keep others: a row of statistics for each matrix, a matrix for each
axis, nothing at all for some tensors. Such a slot has a layout of its own, with the names of the tensors that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np

from gradserve.wire import Layout, allocate

from .blocks import Array
from .optimizers.rule import Slot

__all__ = ["begin_slot", "cut", "new_slot", "new_slots", "own_layouts"]


def own_layouts(slots: Sequence[Slot], layout: Layout) -> dict[str, Layout]:
    """The layouts of those slots that are not as the weights are. Raises `Refused` where one is too large to name."""
    return {slot.name: _own_layout(slot, layout) for slot in slots if slot.shape is not None}


@lru_cache(maxsize=256)
def _own_layout(slot: Slot, layout: Layout) -> Layout:
    assert slot.shape is not None
    shapes = {name: slot.shape(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)}
    return Layout.of({name: shape for name, shape in shapes.items() if shape is not None})


def cut(vector: Array, sizes: Sequence[int]) -> list[Array]:
    """Vectors that lie end to end, as views."""
    ends = list(accumulate(sizes))
    assert ends[-1] == vector.size
    return [vector[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def new_slot(
    slot: Slot, size: int, weights: Array | None = None, new_buffer: Callable[[int], Array] = allocate
) -> Array:
    """A slot of so many elements as it begins."""
    vector = new_buffer(size)
    begin_slot(slot, vector, weights)
    return vector


def begin_slot(slot: Slot, vector: Array, weights: Array | None) -> None:
    """Write into a slot what it begins with."""
    if slot.from_weights and weights is not None:
        np.copyto(vector, weights)
    else:
        vector.fill(slot.initial)


def new_slots(slots: Sequence[Slot], layout: Layout, weights: Array) -> dict[str, Array]:
    """All slots as they begin, in the dtype of the weights."""
    own: Mapping[str, Layout] = own_layouts(slots, layout)

    def empty(size: int) -> Array:
        return np.empty(size, weights.dtype)

    return {slot.name: new_slot(slot, own.get(slot.name, layout).parameters, weights, empty) for slot in slots}
