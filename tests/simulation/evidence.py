"""What the invariants look at: the disk, the tree of all histories, the clients' ledger, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradserve_service.core.arrays import Arrays
from gradserve_service.core.control import Control

from .archive import Archive, Node
from .disk import Disk
from .ledger import Ledger


class Evidence:
    """Of one run that is over."""

    def __init__(
        self, archive: Archive, disk: Disk, ledger: Ledger, shown: list[dict[str, Any]], quiet_from: int,
        entries_lost: int,
    ) -> None:  # fmt: skip
        self.archive, self.disk, self.ledger = archive, disk, ledger
        self.shown = shown  # what each server answers at the end
        self.quiet_from = quiet_from  # tick: from here on there were no faults
        self.entries_lost = entries_lost

    @property
    def rewound(self) -> bool:
        """Whether the store lost entries of any run."""
        return self.entries_lost > 0

    @cached_property
    def at_position(self) -> dict[tuple[str, int], list[Node]]:
        """The nodes of a run at a position: several, where a tail was lost."""
        found: dict[tuple[str, int], list[Node]] = {}
        for node in self.archive.nodes.values():
            found.setdefault((node.uid, node.position), []).append(node)
        return found

    def state(self, node: Node) -> tuple[Control, Arrays]:
        """What a server must hold at the end of this history."""
        return self.archive.replayed(node)

    def weights(self, node: Node) -> NDArray[np.float32]:
        """The weights at the end of this history; empty before the first."""
        weights = self.state(node)[1].weights
        return np.empty(0, np.float32) if weights is None else weights

    @cached_property
    def final(self) -> list[Node]:
        """The chain as it is at the end."""
        return list(self.archive.head.history())

    @cached_property
    def histories(self) -> list[list[Node]]:
        """The final chain, and every chain that ended in a lost tail."""
        parents = {node.parent.hash for node in self.archive.nodes.values() if node.parent is not None}
        ends = [node for key, node in self.archive.nodes.items() if key not in parents]
        return [list(node.history()) for node in ends]

    @cached_property
    def by_etag(self) -> dict[str, list[Node]]:
        """Which entries made the weights of an ETag: one, if all is well."""
        found: dict[str, list[Node]] = {}
        for node in self.archive.nodes.values():
            if makes_weights(node):
                found.setdefault(str(self.state(node)[0].etag), []).append(node)
        return found

    @cached_property
    def losses(self) -> dict[str, list[int]]:
        """The ticks at which each gradient left the chain; a late copy may have brought it back in between."""
        found: dict[str, list[int]] = {}
        for (_, before), (tick, after) in pairwise(self.archive.heads):
            node: Node | None = before
            while node is not None and node.position > after.position:
                if node.header["kind"] == "push":
                    found.setdefault(node.header["digest"], []).append(tick)
                node = node.parent
        return found

    def lost_at(self, digest: str) -> int | None:
        """When the gradient was lost for good: what is lost may come back with a late copy, and be lost again."""
        losses = self.losses.get(digest, [])
        return losses[-1] if losses else None

    def off_chain_between(self, digest: str, begin: int, end: int) -> bool:
        """Whether a gradient that had been on the chain was not at some moment of these ticks."""
        first = min(node.tick for node in self.archive.nodes.values() if node.header.get("digest") == digest)
        return any(
            all(node.header.get("digest") != digest for node in head.history())
            for head in self.archive.heads_between(max(begin, first), end)
        )

    def heads_while(self, begin: int, end: int) -> Iterator[Node]:
        """What the head was at some moment of these ticks."""
        return self.archive.heads_between(begin, end)


def makes_weights(node: Node) -> bool:
    """Whether the entry makes a new version."""
    return node.parent is not None and (
        node.header["kind"] == "load" or (node.header["kind"] == "push" and node.header["outcome"] == "applied")
    )


def pushes(history: list[Node]) -> Iterator[Node]:
    """The gradients of a history, in order."""
    return (node for node in history if node.header["kind"] == "push")
