"""Every entry that was ever on the disk, with its payload: the tree of all histories, and what replay makes of each.

A lost tail ends one branch and the next append begins another. A node is the end of one history; `replayed` answers
the control state and the arrays that a server must have there, computed from the first entry on, one after the other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from gradserve.wire import decode_frame
from gradserve_service.core import arrays as core_arrays
from gradserve_service.core import machine
from gradserve_service.core.arrays import Arrays
from gradserve_service.core.control import Control
from gradserve_service.core.entries import Entry
from gradserve_service.core.gradient import Gradient
from gradserve_service.store.records import CatalogueRecord, CheckpointRecord, Record, SnapshotRecord


@dataclass(slots=True, eq=False)
class Node:
    """A history, named by its last entry. The root has no entry."""

    uid: str
    hash: bytes
    parent: Node | None
    position: int
    header: Mapping[str, Any]
    raw: bytes
    payload: bytes
    tick: int  # when it was appended first
    state: tuple[Control, Arrays] | None = None

    def history(self) -> Iterator[Node]:
        """The nodes from the first entry to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return reversed(nodes)


@dataclass(frozen=True, slots=True)
class Bindings:
    """What the names of a run's checkpoints stand for, from one moment on."""

    tick: int
    uid: str
    names: Mapping[str, CheckpointRecord]
    lost: bool


@dataclass(slots=True)
class Archive:
    """The tree, and which node was the head when. The first run, with all that have its name, is the main one."""

    tick: Callable[[], int]
    nodes: dict[bytes, Node] = field(default_factory=dict)
    heads: list[tuple[int, Node]] = field(default_factory=list)  # of the main run: (from which tick on, node)
    images: list[tuple[SnapshotRecord, bytes]] = field(default_factory=list)
    checkpoints: list[tuple[str, CheckpointRecord, bytes]] = field(default_factory=list)  # uid, record, file
    bindings: list[Bindings] = field(default_factory=list)  # what names of checkpoints stood for, oldest first
    names: dict[str, str] = field(default_factory=dict)  # uid → name of the run
    deleted: dict[str, int] = field(default_factory=dict)  # uid → tick
    complaints: list[str] = field(default_factory=list)

    # What the disk tells

    def begin(self, record: CatalogueRecord) -> None:
        """A run was created."""
        self.names[record.uid] = record.name
        control = Control.genesis(record.uid, record.creation, record.genesis)
        root = Node(record.uid, record.genesis, None, 0, {}, b"", b"", self.tick())
        root.state = (control, Arrays(control.spec))
        self.nodes[record.genesis] = root

    def append(self, uid: str, previous: bytes, records: list[tuple[Record, bytes]]) -> None:
        """Records were put on top of `previous`."""
        for record, payload in records:
            parent = self.nodes[previous]
            header = json.loads(record.header)
            if (record.position, header["position"]) != (parent.position + 1, parent.position + 1):
                self.complaints.append(
                    f"entry {header['position']} was written at {record.position}, behind {parent.position}"
                )
            if hashlib.sha256(previous + record.header).digest() != record.hash:
                self.complaints.append(f"the hash of entry {record.position} does not chain it to the one before")
            if record.hash not in self.nodes:
                self.nodes[record.hash] = Node(
                    uid, record.hash, parent, record.position, header, record.header, payload, self.tick()
                )
            previous = record.hash
            self.head_is(uid, previous)  # a batch is many entries in one moment

    def head_is(self, uid: str, digest: bytes) -> None:
        """The run's chain ends here from now on."""
        if self.is_main(uid):
            self.heads.append((self.tick(), self.nodes[digest]))

    def delete(self, uid: str) -> None:
        """The run is gone, with its whole history."""
        self.deleted[uid] = self.tick()

    def published(self, snapshot: SnapshotRecord, image: bytes) -> None:
        """A snapshot was published."""
        self.images.append((snapshot, image))

    def kept(self, uid: str, checkpoint: CheckpointRecord, file: bytes) -> None:
        """A checkpoint was made."""
        self.checkpoints.append((uid, checkpoint, file))

    def bound(self, uid: str, names: Mapping[str, CheckpointRecord], *, lost: bool = False) -> None:
        """The run's checkpoints are these from now on. `lost`: because the store went back."""
        self.bindings.append(Bindings(self.tick(), uid, names, lost))

    def is_main(self, uid: str) -> bool:
        """Whether it is the run that all work for, in one of its lives, and not a branch of it."""
        return self.names[uid] == next(iter(self.names.values()))

    # What the invariants ask

    @property
    def head(self) -> Node:
        """The end of the present chain."""
        return self.heads[-1][1]

    def heads_between(self, begin: int, end: int) -> Iterator[Node]:
        """Every node that was the head at some moment of these ticks, oldest first."""
        first = max(0, bisect_right(self.heads, begin, key=itemgetter(0)) - 1)
        last = bisect_right(self.heads, end, key=itemgetter(0))
        return (node for _, node in self.heads[first:last])

    def replayed(self, node: Node) -> tuple[Control, Arrays]:
        """The state after this history. Each entry is applied once, on a copy of the state before it."""
        waiting: list[Node] = []
        at = node
        while at.state is None:
            waiting.append(at)
            assert at.parent is not None
            at = at.parent
        assert at.state is not None
        state = at.state
        for at in reversed(waiting):
            state = at.state = _applied(*state, at)
        return state


def _applied(control: Control, arrays: Arrays, node: Node) -> tuple[Control, Arrays]:
    control = control.fork()
    slots = {name: slot.copy() for name, slot in arrays.slots.items()}
    arrays = dataclasses.replace(arrays, slots=slots, memory=dict(arrays.memory), history=arrays.history.frozen())
    entry = Entry(node.header, node.raw, node.hash)
    payload: Any = None
    if node.payload:
        frame = decode_frame(node.payload)
        if entry.kind == "load":
            payload = frame.vector()
        else:
            assert arrays.layout is not None
            payload = Gradient.of(frame, arrays.layout)
    core_arrays.update(arrays, entry, payload)
    machine.advance(control, entry)
    return control, arrays
