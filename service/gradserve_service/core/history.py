"""What happened, version by version: the columns that `update` writes beside the weights.

A row an update, in float64; NaN where there is nothing to say. Two tables hold them: the newest rows one by one (the
answer to a repeated push, running medians and warnings need them), and the whole past, thinned: when it is full, every
second row goes and from then on only every second row comes. Both are functions of the chain, so servers agree on them.

The tables only grow: a row once written is never written again, and what shortens a table makes a new one. So a frozen
history shares its memory with the one that goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "Alarm", "History", "Measured", "Row", "Table"]

Doubles = NDArray[np.float64]

ROWS_KEPT: Final = 65_536  # of the whole past; then thinned
NEWEST_KEPT: Final = 1_024  # as many versions as ETags are kept for: a duplicate's answer needs them
MEASUREMENT_VALUES_KEPT: Final = 65_536  # norms by tensor: rows × tensors
MEASUREMENTS_KEPT_MIN: Final = 16
REPORTED_NAMES_MAX: Final = 64
REPORTED_ROWS_KEPT: Final = 4_096
WARNINGS_KEPT: Final = 64
MEDIAN_ROWS: Final = 64  # the running median of the norm is over this many updates
MEDIAN_ROWS_MIN: Final = 8  # and says nothing before there are this many
MEDIAN_EVERY: Final = 16  # it is taken anew after so many: each time would cost a small update a twentieth
EXPLODING_RATIO: Final = 1e3  # norm over its running median
VANISHING_RATIO: Final = 1e-6  # a tensor's norm over the largest one's


class Row(NamedTuple):
    """One update. NaN stands for null."""

    version: float
    step: float
    loss: float
    lr: float  # before the staleness weight
    gradient_norm: float  # of the gradient as it came
    update_norm: float  # the way that the weights went; NaN where it was not measured
    clip_scale: float
    staleness: float
    samples: float
    time: float  # seconds since the epoch, by the clock of the server that decided


COLUMNS: Final = Row._fields
_VERSION, _NORM, _SCALE = COLUMNS.index("version"), COLUMNS.index("gradient_norm"), COLUMNS.index("clip_scale")


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one gradient, by tensor, in layout order; NaN for a tensor that did not come."""

    norm: Doubles
    largest: Doubles  # max |g|
    zeros: Doubles  # the share of elements that are exactly 0


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that a person should look at."""

    version: int
    kind: str  # "vanishing", "exploding" or "not finite"
    text: str


class Table:
    """Rows of doubles that are appended, `rows_max` at most: the newest ones, or with `thinned` every `stride`-th."""

    __slots__ = ("_table", "rows_max", "seen", "stride", "thinned", "used")

    def __init__(self, columns: int, rows_max: int, *, thinned: bool = False) -> None:
        self.rows_max = rows_max
        self.thinned = thinned
        self.stride = 1
        self.seen = 0  # rows that were appended, kept or not
        self.used = 0
        self._table: Doubles = np.empty((min(rows_max, 16), columns))

    def append(self, row: Sequence[float] | Doubles) -> None:
        """Add a row at the end."""
        here = self.seen % self.stride == 0
        self.seen += 1
        if not here:
            return
        if self.used == len(self._table):
            self._make_room()
            if (self.seen - 1) % self.stride:  # the stride has doubled, and this is a row between two of the new ones
                return
        self._table[self.used] = row
        self.used += 1

    def _make_room(self) -> None:
        held = self.rows
        if self.thinned and self.used == self.rows_max:
            held, self.stride = held[::2], 2 * self.stride
        # The newest of many are found at the end of a table of twice their number: dropping costs one copy in as many.
        most = self.rows_max if self.thinned else 2 * self.rows_max
        grown = np.empty((min(most, 2 * max(self.used, 1)), held.shape[1]))
        grown[: len(held)] = held
        self._table, self.used = grown, len(held)

    @property
    def rows(self) -> Doubles:
        """The rows that are kept, oldest first: a view that never changes."""
        return self._table[max(0, self.used - self.rows_max) : self.used]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._table.nbytes

    def frozen(self) -> Self:
        """A copy that shares the rows: either may go on, because what is shared has no room left in the copy."""
        copy = type(self)(0, self.rows_max, thinned=self.thinned)
        copy._table = self._table[: self.used]
        copy.used, copy.seen, copy.stride = self.used, self.seen, self.stride
        return copy

    def restore(self, rows: Doubles, seen: int, stride: int) -> None:
        """Hold these rows, of a table that had seen so many."""
        self._table = np.array(rows)
        self.used, self.seen, self.stride = len(rows), seen, stride


@dataclass(slots=True)
class History:
    """The past of a run, owned as slots are: written in place by `update`."""

    kept: Table = field(default_factory=lambda: Table(len(COLUMNS), ROWS_KEPT, thinned=True))
    newest: Table = field(default_factory=lambda: Table(len(COLUMNS), NEWEST_KEPT))
    norms: Table | None = None  # version, then each tensor's norm
    measured: Measured | None = None  # the last measurement
    measured_at: int = -1  # its version
    reported: dict[str, Table] = field(default_factory=dict)  # name → version, value
    vanishing: tuple[int, ...] = ()  # tensors whose norm had vanished at the last measurement
    median: float = float("nan")  # of the norms, as it was taken last
    exploding: bool = False  # the norm was beyond its running median at the last update
    lost: bool = False  # the weights were no finite numbers any more when they were last measured
    warnings: tuple[Alarm, ...] = ()  # the last ones, oldest first
    rates: tuple[
        float, ...
    ] = ()  # of the last update, by group; nothing where its slots are no longer the present ones

    # Writing

    def add(self, row: Row) -> None:
        """One update. Warns when its gradient's norm is far beyond what it was."""
        self._watch_norm(row)
        self.kept.append(row)
        self.newest.append(row)
        if self.newest.seen % MEDIAN_EVERY == MEDIAN_ROWS_MIN:
            self.median = self.median_norm()

    def add_measurement(self, version: int, names: Sequence[str], measured: Measured) -> None:
        """The gradient of one update by tensor. Warns where a tensor's norm has vanished beside the largest."""
        if self.norms is None:
            rows = max(MEASUREMENT_VALUES_KEPT // len(names), MEASUREMENTS_KEPT_MIN)
            self.norms = Table(1 + len(names), min(rows, NEWEST_KEPT))
        self.norms.append(np.concatenate(((version,), measured.norm)))
        self.measured, self.measured_at = measured, version
        self._watch_tensors(version, names, measured.norm)

    def watch_weights(self, version: int, moved: float) -> None:
        """How far the weights went in a measured update. Warns when that is no number that float32 holds: then the
        weights are not either, or soon will not be, and no gradient brings them back."""
        was, self.lost = self.lost, not math.isfinite(moved)
        if self.lost and not was:
            text = (
                f"the weights have left what float32 holds, by version {version}: restore a checkpoint or an earlier "
                "version, and lower the learning rate or clip the gradient"
            )
            self._warn(Alarm(version, "not finite", text))

    def add_report(self, version: int, values: Mapping[str, float]) -> None:
        """Metrics that were reported, as series `metrics/<name>`. Names past the bound are not kept."""
        for name, value in values.items():
            if name not in self.reported:
                if len(self.reported) >= REPORTED_NAMES_MAX:
                    continue
                self.reported[name] = Table(2, REPORTED_ROWS_KEPT, thinned=True)
            self.reported[name].append((version, value))

    def _watch_norm(self, row: Row) -> None:
        median = self.median
        was, self.exploding = self.exploding, row.gradient_norm > EXPLODING_RATIO * median > 0.0
        if self.exploding and not was:
            text = (
                f"the gradient's norm was {row.gradient_norm:.3g} at version {row.version:.0f}, {EXPLODING_RATIO:g} "
                f"times its running median of {median:.3g} and more: clip it, or lower the learning rate"
            )
            self._warn(Alarm(int(row.version), "exploding", text))

    def _watch_tensors(self, version: int, names: Sequence[str], norms: Doubles) -> None:
        largest = float(np.fmax.reduce(norms, initial=0.0))
        few = norms < VANISHING_RATIO * largest  # False for NaN
        now = tuple(np.flatnonzero(few).tolist()) if few.any() else ()
        if new := [index for index in now if index not in self.vanishing]:
            shown = ", ".join(f"{names[index]!r} ({norms[index]:.3g})" for index in new[:5])
            more = f" and {len(new) - 5} more" if len(new) > 5 else ""
            text = (
                f"the gradient has vanished in {shown}{more} at version {version}: less than {VANISHING_RATIO:g} of "
                f"the largest tensor's norm, {largest:.3g}"
            )
            self._warn(Alarm(version, "vanishing", text))
        self.vanishing = now

    def _warn(self, warning: Alarm) -> None:
        self.warnings = (*self.warnings, warning)[-WARNINGS_KEPT:]

    # Reading

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the tables."""
        return sum(table.nbytes for _, table in self.tables())

    def median_norm(self) -> float:
        """The median norm of the last updates; NaN while there are too few."""
        norms = self.newest.rows[-MEDIAN_ROWS:, _NORM]
        if norms.size < MEDIAN_ROWS_MIN:
            return float("nan")
        return float(np.partition(norms, norms.size // 2)[norms.size // 2])

    def result(self, version: int) -> tuple[float | None, float | None]:
        """Norm and clip scale of the update that made a version; None where that is kept no longer."""
        row = self.row(version)
        return (None, None) if row is None else (row.gradient_norm, row.clip_scale)

    def row(self, version: int) -> Row | None:
        """The update that made a version, if it is one of the newest."""
        rows = self.newest.rows
        if not len(rows):
            return None
        index = len(rows) - 1 + version - int(rows[-1, _VERSION])  # right unless a load came between
        if not (0 <= index < len(rows) and rows[index, _VERSION] == version):
            index = int(np.searchsorted(rows[:, _VERSION], version))
            if index == len(rows) or rows[index, _VERSION] != version:
                return None
        return Row._make(rows[index].tolist())

    def column(self, name: str) -> Doubles:
        """One column of the newest rows."""
        return self.newest.rows[:, COLUMNS.index(name)]

    def rows(self) -> Doubles:
        """All rows, oldest first: the thinned past, then the newest one by one."""
        kept, newest = self.kept.rows, self.newest.rows
        if not len(newest):
            return kept
        return np.concatenate((kept[: np.searchsorted(kept[:, _VERSION], newest[0, _VERSION])], newest))

    def present_warnings(self) -> list[str]:
        """The texts of what still holds: tensors without gradient now, a norm that exploded a short while ago."""
        since = self.newest.rows[-MEDIAN_ROWS:]
        first = since[0, _VERSION] if len(since) else 0
        return [
            warning.text
            for warning in self.warnings
            if (self.vanishing if warning.kind == "vanishing" else warning.version >= first)
        ]

    # For snapshots

    def frozen(self) -> History:
        """A copy that the one that goes on does not change, at the cost of a few references."""
        return History(
            self.kept.frozen(),
            self.newest.frozen(),
            None if self.norms is None else self.norms.frozen(),
            self.measured,
            self.measured_at,
            {name: table.frozen() for name, table in self.reported.items()},
            self.vanishing,
            self.median,
            self.exploding,
            self.lost,
            self.warnings,
            self.rates,
        )

    def tables(self) -> Iterator[tuple[str, Table]]:
        """Every table under its name."""
        yield "kept", self.kept
        yield "newest", self.newest
        if self.norms is not None:
            yield "norms", self.norms
        for name, table in self.reported.items():
            yield f"metrics/{name}", table

    def vectors(self) -> list[tuple[str, Doubles]]:
        """All doubles of the history, for an image: the tables, then the last measurement."""
        found = [(name, np.ascontiguousarray(table.rows)) for name, table in self.tables()]
        if self.measured is not None:
            found.append(("measured", np.stack((self.measured.norm, self.measured.largest, self.measured.zeros))))
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything but the doubles, for an image."""
        return {
            "tables": [[name, table.seen, table.stride, table.rows_max] for name, table in self.tables()],
            "measured_at": self.measured_at,
            "vanishing": self.vanishing,
            "median": self.median,
            "exploding": self.exploding,
            "lost": self.lost,
            "warnings": [[warning.version, warning.kind, warning.text] for warning in self.warnings],
            "rates": self.rates,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], vectors: Mapping[str, Doubles]) -> History:
        """The inverse of `to_json` and `vectors`."""
        history = cls(
            measured_at=value["measured_at"],
            vanishing=tuple(value["vanishing"]),
            median=value["median"],
            exploding=value["exploding"],
            lost=value["lost"],
            warnings=tuple(Alarm(*warning) for warning in value["warnings"]),
            rates=tuple(value["rates"]),
        )
        for name, seen, stride, rows_max in value["tables"]:
            table = Table(vectors[name].shape[1], rows_max, thinned=name not in ("newest", "norms"))
            table.restore(vectors[name], seen, stride)
            if name.startswith("metrics/"):
                history.reported[name.removeprefix("metrics/")] = table
            else:
                setattr(history, name, table)
        if "measured" in vectors:
            history.measured = Measured(*np.array(vectors["measured"]))
        return history
