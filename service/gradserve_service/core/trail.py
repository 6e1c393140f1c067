"""How the next weights begin as a copy of the present ones, where few of them change.

Weights are a value: an update writes into another buffer. Where it touches a thousand rows of a million, copying the
rest would be nearly all of its cost. But two buffers take turns, and the one that comes back holds the weights of some
updates ago: what has changed since is copied, if it is known and little. The result is the same either way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from gradserve.wire import Layout, allocate

from .blocks import BLOCK_ELEMENTS, Array, RunAll, share_out
from .gradient import Gradient, Span
from .rows import Rows

__all__ = ["NextBuffer", "Trail", "fresh_buffer"]

STEPS_KEPT: Final = 16  # buffers older than this are with a reader that is very slow
WORTH_IT: Final = 4  # a gathered element costs about as much as four copied ones

# (elements, mark of the new content, marks that would do) → a buffer, and the mark of what it holds: None for anything.
NextBuffer = Callable[[int, object, Collection[object]], tuple[Array, object | None]]


def fresh_buffer(elements: int, mark: object, held: Collection[object]) -> tuple[Array, None]:
    """The `NextBuffer` of those who keep none."""
    return allocate(elements), None


class _Step(NamedTuple):
    """The weights under `mark`, and what the update after them changed."""

    mark: object
    spans: tuple[Span, ...]
    rows: tuple[Rows, ...]
    elements: int


@dataclass(slots=True)
class Trail:
    """What the latest updates changed. Belongs to one chain of weights; a new chain needs a new one."""

    _present: object = field(default_factory=object)  # the mark of the present weights
    _steps: deque[_Step] = field(default_factory=lambda: deque(maxlen=STEPS_KEPT))  # oldest first

    def next_weights(
        self, weights: Array, gradient: Gradient, layout: Layout, next_buffer: NextBuffer, run_all: RunAll
    ) -> tuple[Array, bool]:
        """A buffer for the weights after this gradient, and whether all that it does not touch is in it already."""
        mark, step = object(), _Step(self._present, gradient.spans, gradient.rows, gradient.vector.size)
        usable = self._usable(weights.size) if gradient.rows else []
        marks = [step.mark for step in usable]
        buffer, found = next_buffer(weights.size, mark, marks)
        if found is not None:
            _copy_changed(usable[marks.index(found) :], weights, buffer, layout)
        elif gradient.rows:
            _copy_all(weights, buffer, run_all)
        self._present = mark
        self._steps.append(step)
        return buffer, bool(gradient.rows)

    def _usable(self, size: int) -> list[_Step]:
        """The steps from the oldest weights on that are cheaper to bring up to date than to copy."""
        found: list[_Step] = []
        changed = 0
        for step in reversed(self._steps):
            changed += step.elements
            if changed * WORTH_IT > size:
                break
            found.insert(0, step)
        return found


def _copy_all(weights: Array, into: Array, run_all: RunAll) -> None:
    def copy(starts: Iterable[int]) -> None:
        for start in starts:
            np.copyto(into[start : start + BLOCK_ELEMENTS], weights[start : start + BLOCK_ELEMENTS])

    share_out(range(0, weights.size, BLOCK_ELEMENTS), copy, run_all)


def _copy_changed(steps: Iterable[_Step], weights: Array, into: Array, layout: Layout) -> None:
    for step in steps:
        for span in step.spans:
            here = slice(span.weights_start, span.weights_start + span.length)
            np.copyto(into[here], weights[here])
        for rows in step.rows:
            if rows.elements:
                tensor = layout.span(rows.name)
                rows.of(into[tensor])[rows.ids] = rows.of(weights[tensor])[rows.ids]
