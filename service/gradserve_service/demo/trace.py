"""What a training left behind, update by update: the curves of the report are drawn from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "Trace", "smoothed"]

COLUMNS = ("version", "seconds", "loss", "lr", "staleness")
Row = Sequence[float]


@dataclass(slots=True)
class Trace:
    """Rows of `COLUMNS`, one an update, in the order they came. `seconds` counts from the first gradient's start."""

    rows: list[Row] = field(default_factory=list)

    def extend(self, rows: Iterable[Row]) -> None:
        """Take more rows."""
        self.rows.extend(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def by_version(self) -> Trace:
        """The same rows in the order of the versions they made."""
        return Trace(sorted(self.rows, key=lambda row: row[0]))

    def column(self, name: str) -> NDArray[np.float64]:
        """One column, float64[updates]."""
        index = COLUMNS.index(name)
        return np.array([row[index] for row in self.rows], dtype=np.float64)

    @property
    def seconds(self) -> float:
        """From the start to the last update."""
        return max((float(row[1]) for row in self.rows), default=0.0)

    @property
    def updates_per_second(self) -> float:
        """Updates over the whole of that time."""
        return len(self.rows) / self.seconds if self.seconds else 0.0


def smoothed(values: NDArray[Any], window: int) -> NDArray[np.float64]:
    """The mean of the last `window` values at each point, of fewer at the beginning; as long as `values`."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means
