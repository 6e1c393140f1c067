"""A reader's choice from a history: columns of equal length, one row a version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradserve.problems import refuse

from .history import COLUMNS, History

__all__ = ["WHOLE_NUMBERS", "Columns", "select"]

Columns = dict[str, NDArray[np.float64]]  # NaN where there is nothing

WHOLE_NUMBERS = frozenset({"version", "step", "staleness"})
_BASE = COLUMNS[1:]
_REPORTED, _NORM = "metrics/", "gradient_norm/"


def select(
    history: History,
    tensors: Sequence[str],
    series: Sequence[str] | None = None,
    since: int = -1,
    max_points: int | None = None,
) -> Columns:
    """`version` and the series asked for (None: all but the norms by tensor) at the versions above `since`.

    There is a row for each update, unless only sparse series are asked for (`metrics/…`, `gradient_norm/…`): then for
    each version that one of them has a value at. `max_points` keeps that many rows, evenly spread, the last among them.
    Raises `Refused` (validation-error) for a series that is not there.
    """
    wanted = [*_BASE, *(_REPORTED + name for name in history.reported)] if series is None else list(series)
    rows = history.rows()
    sparse = {name: _sparse(history, tensors, name) for name in wanted if name not in COLUMNS}
    dense = [name for name in wanted if name in COLUMNS and name != "version"]
    versions = np.unique(
        np.concatenate([rows[:, 0] if dense or not sparse else rows[:0, 0], *(found for found, _ in sparse.values())])
    )
    versions = _thinned(versions[versions > since], max_points)
    columns = {"version": versions}
    for name in dict.fromkeys(wanted):
        if name in sparse:
            columns[name] = _at(versions, *sparse[name])
        elif name != "version":
            columns[name] = _at(versions, rows[:, 0], rows[:, COLUMNS.index(name)])
    return columns


def _sparse(history: History, tensors: Sequence[str], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Versions and values of a series that not every update has."""
    if name.startswith(_REPORTED) and (table := history.reported.get(name.removeprefix(_REPORTED))) is not None:
        return table.rows[:, 0], table.rows[:, 1]
    if name.startswith(_NORM) and (tensor := name.removeprefix(_NORM)) in tensors:
        norms = np.empty((0, 1 + len(tensors))) if history.norms is None else history.norms.rows
        return norms[:, 0], norms[:, 1 + tensors.index(tensor)]
    there = [*COLUMNS, *(_REPORTED + each for each in history.reported)]
    raise refuse(
        "validation-error",
        f"series: expected some of {', '.join(there)} and {_NORM}<tensor>; {name[:100]!r} came",
        series=there,
    )


def _thinned(versions: NDArray[np.float64], max_points: int | None) -> NDArray[np.float64]:
    if max_points is None or versions.size <= max_points:
        return versions
    return versions[(np.arange(1, max_points + 1) * versions.size) // max_points - 1]


def _at(wanted: NDArray[np.float64], versions: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values at the wanted versions, the last one where a version has several; NaN where it has none."""
    order = np.argsort(versions, kind="stable")  # a report may name a version of long ago
    versions, values = versions[order], values[order]
    column = np.full(wanted.size, np.nan)
    place = np.searchsorted(versions, wanted, side="right") - 1
    found = place >= 0
    found[found] = versions[place[found]] == wanted[found]
    column[found] = values[place[found]]
    return column
