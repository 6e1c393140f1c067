"""The control state of a run: all that `decide` needs to know, small and quick to copy.

It is a function of the chain: `advance` (machine.py) is the only code that changes it. `fork` gives a copy to decide a
batch on; rows and specs are frozen values that both copies share.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any

from gradserve.specs import RunSpec
from gradserve.wire import Layout

from .batches import EMPTY, Batch
from .entries import etag_of
from .plateau import FRESH, PlateauState
from .repeats import Repeats, repeats_from_json, repeats_json
from .schedules import counted

ETAGS_KEPT = 1_024  # a gradient older than this many versions is stale under every policy
WORKERS_KEPT = 10_000  # rows; beyond it departed workers are forgotten, oldest first
SUPERSEDED_KEPT = 8  # instances of a worker that a late registration is still recognised from


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """What the run knows of one worker. Sequences never restart, not even across generations or departures."""

    generation: int = 0
    instance: str | None = None
    superseded: tuple[str, ...] = ()
    last_sequence: int = 0
    last_digest: str = ""
    receipt: str | None = None
    outcome: Mapping[str, Any] | None = None  # of the last push
    largest_base: int = -1
    cursor: str | None = None
    departed: bool = False

    @property
    def next_sequence(self) -> int:
        return self.last_sequence + 1


@dataclass(frozen=True, slots=True)
class Creation:
    """What a run was created with; its exact bytes are under the genesis hash."""

    spec: RunSpec
    journal_bytes_min: int
    journal_state_factor: int
    journal_bytes_max: int | None = None  # a share of the store's memory: a snapshot must come before it is full

    def to_bytes(self) -> bytes:
        """The bytes that the catalogue keeps: the same for the same values, because the genesis hash is over them."""
        value = {
            "format": 1,
            "spec": self.spec.canonical(),
            "journal_bytes_min": self.journal_bytes_min,
            "journal_state_factor": self.journal_state_factor,
            "journal_bytes_max": self.journal_bytes_max,
        }
        return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    @lru_cache(maxsize=64)  # asked for at each look at the catalogue and with each image; all of it is frozen
    def from_bytes(cls, raw: bytes) -> Creation:
        """The inverse of `to_bytes`."""
        value = json.loads(raw)
        return cls(
            RunSpec.model_validate(value["spec"]),
            value["journal_bytes_min"],
            value["journal_state_factor"],
            value["journal_bytes_max"],
        )


@dataclass(slots=True)
class Control:
    """The rules' view of a run. Owned by one task; `fork` before changing what others read."""

    uid: str
    creation: Creation
    spec: RunSpec  # as configured now
    head: bytes
    position: int = 0
    version: int = -1  # -1: no weights yet
    step: int = 0  # updates applied: the optimizer's t; a schedule sees it before the update, as k
    updates: int = 0  # updates that led to this state; a file from outside may not say how many
    samples_seen: float = 0.0  # their samples: with the step, a restore takes both back
    state: str = "running"
    configured: int = 0  # position of the last change of the settings
    layout: Layout | None = None
    base_floor: int = 0
    etags: dict[int, str] = field(default_factory=dict)  # version → ETag, the last ETAGS_KEPT
    workers: dict[str, WorkerRow] = field(default_factory=dict)
    repeats: Repeats = field(default_factory=dict)  # requests that may arrive twice; replaced, never written
    batch: Batch = EMPTY  # pushes that wait for an update together
    bad_gradients: int = 0  # that were no numbers, in a row
    plateau: PlateauState = FRESH  # what the reports mean to the schedule `reduce_on_plateau`
    journal_bytes: int = 0  # since the last position at which a snapshot was due
    snapshot_position: int = 0  # the last position at which a snapshot was due

    @classmethod
    def genesis(cls, uid: str, creation: bytes, genesis: bytes) -> Control:
        """The control state of a run without entries."""
        created = Creation.from_bytes(creation)
        return cls(uid=uid, creation=created, spec=created.spec, head=genesis)

    @property
    def initialised(self) -> bool:
        return self.version >= 0

    def was_made_by(self, version: int, entry_hash: bytes) -> bool:
        """Whether that entry, and not another one of a history that was lost, made this version."""
        return self.etags.get(version) == etag_of(version, entry_hash)

    @property
    def shown_version(self) -> int | None:
        """The version as it is told: None before the first weights."""
        return self.version if self.initialised else None

    @property
    def epoch(self) -> float | None:
        """How often the data was gone through; None when nobody said how much there is."""
        size = self.spec.dataset_size
        return None if size is None else self.samples_seen / size

    @property
    def scheduled(self) -> int:
        """k of the schedule, for the next update."""
        return counted(self.spec, self.step, self.samples_seen)

    @property
    def etag(self) -> str | None:
        return self.etags.get(self.version)

    def row(self, worker: str) -> WorkerRow:
        """The worker's row; an unknown worker has an empty one."""
        return self.workers.get(worker, UNKNOWN)

    def live_workers(self) -> list[str]:
        """Names of the workers that have not left, sorted: their order gives the ranks."""
        return sorted(name for name, row in self.workers.items() if not row.departed)

    def fork(self) -> Control:
        """A copy that can be advanced without this one noticing."""
        copy = Control(*_fields_of(self))  # a fifth of the time of `dataclasses.replace`, once a batch
        copy.etags, copy.workers = dict(self.etags), dict(self.workers)
        return copy

    def to_json(self) -> dict[str, Any]:
        """Everything but what the catalogue holds (uid and creation), for an image."""
        return {
            "spec": self.spec.canonical(),
            "head": self.head.hex(),
            "position": self.position,
            "version": self.version,
            "step": self.step,
            "updates": self.updates,
            "samples_seen": self.samples_seen,
            "state": self.state,
            "configured": self.configured,
            "layout": None if self.layout is None else dict(zip(self.layout.names, self.layout.shapes, strict=True)),
            "base_floor": self.base_floor,
            "etags": list(self.etags.items()),
            "workers": {name: _row_json(row) for name, row in self.workers.items()},
            "repeats": repeats_json(self.repeats),
            "plateau": dataclasses.asdict(self.plateau),
            "journal_bytes": self.journal_bytes,
            "snapshot_position": self.snapshot_position,
            # Only where there is something: the digest of a run without stays what it was.
            **({} if self.batch == EMPTY else {"batch": self.batch.to_json()}),
            **({"bad_gradients": self.bad_gradients} if self.bad_gradients else {}),
        }

    @classmethod
    def from_json(cls, uid: str, creation: bytes, value: Mapping[str, Any]) -> Control:
        """The inverse of `to_json`: equal in every field, dictionary orders included."""
        rows = {name: {**row, "superseded": tuple(row["superseded"])} for name, row in value["workers"].items()}
        return cls(
            uid=uid,
            creation=Creation.from_bytes(creation),
            spec=RunSpec.model_validate(value["spec"]),
            head=bytes.fromhex(value["head"]),
            position=value["position"],
            version=value["version"],
            step=value["step"],
            updates=value["updates"],
            samples_seen=value["samples_seen"],
            state=value["state"],
            configured=value.get("configured", 0),
            layout=None if value["layout"] is None else Layout.of(value["layout"]),
            base_floor=value["base_floor"],
            etags={version: etag for version, etag in value["etags"]},
            workers={name: WorkerRow(**row) for name, row in rows.items()},
            repeats=repeats_from_json(value["repeats"]),
            batch=Batch.from_json(value.get("batch")),
            bad_gradients=value.get("bad_gradients", 0),
            plateau=PlateauState(**value["plateau"]),
            journal_bytes=value["journal_bytes"],
            snapshot_position=value["snapshot_position"],
        )


def _row_json(row: WorkerRow) -> dict[str, Any]:
    """As `dataclasses.asdict`, in a tenth of the time: a snapshot writes every row."""
    return dict(zip(_ROW_FIELDS, _row_values(row), strict=True))


UNKNOWN = WorkerRow()
_ROW_FIELDS = tuple(each.name for each in dataclasses.fields(WorkerRow))
_row_values = attrgetter(*_ROW_FIELDS)
_fields_of = attrgetter(*(each.name for each in dataclasses.fields(Control)))
