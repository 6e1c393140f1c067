"""Gradients of some rows of a tensor: an embedding table of which a batch has touched a thousand rows.

Rows are *coalesced* when they come: sorted by id, and those of one id added. What is left is what the whole gradient
would hold beside zeros. It is applied to the touched rows alone, by the same arithmetic (`row_sweep`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradserve.problems import refuse
from gradserve.wire import Frame

from .blocks import Array

__all__ = ["Ids", "Rows", "check_rows_fit", "coalesced"]

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some rows of one tensor. Their gradient lies end to end in the order of `ids`, from `gradient_start` on."""

    name: str
    weights_start: int  # of the tensor
    gradient_start: int
    shape: tuple[int, ...]  # of the whole tensor
    ids: Ids  # ascending, each once

    @property
    def row_elements(self) -> int:
        """Elements of one row."""
        return math.prod(self.shape[1:])

    @property
    def elements(self) -> int:
        """Elements of all rows that came."""
        return self.ids.size * self.row_elements

    def of(self, tensor: Array) -> Array:
        """The whole tensor, flat, or what a slot keeps of it, with a line for each of its rows: a view."""
        return tensor.reshape(self.shape[0], tensor.size // self.shape[0])

    def few(self, gathered: Array) -> Array:
        """The same for these rows alone."""
        return gathered.reshape(self.ids.size, gathered.size // self.ids.size)


def coalesced(frame: Frame, vector: Array) -> tuple[Array, Mapping[str, Ids]]:
    """The frame's `vector` (or what was made of it, element by element) with each row once, and the ids of the rows by
    tensor, ascending.

    Rows of one id are added in float64 in the order in which they came (`add.reduceat`), and rounded once. So the sum
    depends on the push alone.
    """
    if not frame.rows:
        return vector, {}
    pieces: list[Array] = []
    found: dict[str, Ids] = {}
    for name, view in frame.layout.views(vector).items():
        if name in frame.rows:
            found[name], view = _coalesced_rows(frame.rows[name], view)
        pieces.append(view.reshape(-1))
    return np.concatenate(pieces), found


def _coalesced_rows(ids: Ids, values: NDArray[Any]) -> tuple[Ids, NDArray[Any]]:
    if np.all(ids[1:] > ids[:-1]):
        return ids, values
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    firsts = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    if not values.size:
        return ids[firsts], values[:0]
    with np.errstate(all="ignore"):
        sums = np.add.reduceat(values[order].astype(np.float64), firsts, axis=0).astype(values.dtype)
    return ids[firsts], sums


def check_rows_fit(name: str, sent: tuple[int, ...], run: tuple[int, ...], needed: int) -> None:
    """Refuse (layout-mismatch) rows that the run's tensor does not have. `needed` is the largest id and one."""
    if not run or sent[1:] != run[1:]:
        expected = f"rows of shape [{', '.join(map(str, ('n', *run[1:])))}]" if run else "the scalar, it has no rows"
        detail = f"tensor {name!r} is {list(run)} in the run, {list(sent)} here: expected {expected}"
        raise refuse("layout-mismatch", detail, tensor=name, expected=list(run), came=list(sent))
    if needed > run[0]:
        detail = f"tensor {name!r} has {run[0]} rows in the run: expected ids below {run[0]}, came {needed - 1}"
        raise refuse("layout-mismatch", detail, tensor=name, expected=list(run), came=list(sent))
