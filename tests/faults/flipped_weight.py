"""`gradserve serve` that computes wrongly once: after the entry at position $FLIP_AT one bit of the first weight is not
what it should be. Snapshots are due at every entry. All else is the command's own."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from faults.small_snapshots import LIMITS
from gradserve_service.cli import main
from gradserve_service.core.arrays import Arrays
from gradserve_service.core.entries import Entry
from gradserve_service.replica.recovery import Workshop
from gradserve_service.settings import Settings

APPLY = Workshop.apply
ahead = [int(os.environ["FLIP_AT"])]


async def apply(self: Workshop, arrays: Arrays, entry: Entry, *payload: Any) -> None:
    """`Workshop.apply`, and then the fault."""
    await APPLY(self, arrays, entry, *payload)
    if entry.position in ahead:
        ahead.remove(entry.position)
        flip(arrays)


def flip(arrays: Arrays) -> None:
    """The lowest bit of the first weight, in a buffer of its own as any new weights."""
    assert arrays.weights is not None
    arrays.weights = arrays.weights.copy()
    arrays.weights.view(np.uint32)[0] ^= 1


if __name__ == "__main__":
    Settings.limits = property(lambda _: LIMITS)
    Workshop.apply = apply  # type: ignore[method-assign]
    main()
