"""Averages of a run's weights, for those who read: which a name means, and the vector as it is between two entries.

An average is written in place, as slots are, so what is shown is a copy; it is made only where the reader does not
hold that very average already. Its ETag is the weights' with the average's name and the position of the last change of
the settings behind it: a change can begin an average anew without a new version of the weights.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradserve.problems import Refused, refuse

from ..core.arrays import Arrays
from ..core.averages import average_slot
from ..core.optimizers import Rule
from .published import Published
from .recovery import State

__all__ = ["AVERAGE_NAMES", "RAW", "average_etag", "newer_average"]

RAW: Final = "raw"
AVERAGE_NAMES: Final = ("average", "ema", "swa", "slow", "x", "ax")
OF_THE_RULE: Final = frozenset({"average", "x", "ax"})  # what the average that an optimizer keeps by itself is called


def newer_average(state: State, name: str, held: str | None) -> Published | None:
    """A copy of the average that a name means; None where its ETag is the held one, or before the first weights.
    Raises `Refused` where the run has no such average."""
    control, arrays = state.control, state.arrays
    etag = average_etag(state, name)
    if etag is None or etag == held:
        return None
    assert arrays.layout is not None
    return Published(
        weights=_copied(arrays, _vector(arrays, name)),
        layout=arrays.layout,
        version=arrays.version,
        etag=etag,
        position=control.position,
        head=control.head.hex(),
        step=arrays.step,
    )


def average_etag(state: State, name: str) -> str | None:
    """What tells an average from all others, and from the weights. None before the first weights."""
    control, slot = state.control, average_slot(state.arrays.spec.average)
    if state.arrays.weights is None:
        return None
    own = slot is not None and name in ("average", slot.name)
    if not own and (name not in OF_THE_RULE or type(state.arrays.rule).average is Rule.average):
        raise _none(state.arrays, name)
    etag = control.etags[state.arrays.version]
    return f'{etag[:-1]}-{slot.name if own and slot else "rule"}-{control.configured}"'


def _vector(arrays: Arrays, name: str) -> NDArray[np.float32]:
    slot, rule = average_slot(arrays.spec.average), arrays.rule
    if slot is not None and name in ("average", slot.name):
        return arrays.slots[slot.name]
    assert arrays.weights is not None
    with np.errstate(all="ignore"):
        found = rule.average(arrays.weights, [arrays.slots[each.name] for each in rule.slots])
    if found is None:
        raise _none(arrays, name)
    return found


def _copied(arrays: Arrays, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """A vector that no update writes: a rule may have made a new one, or have named a slot."""
    owned = any(np.may_share_memory(vector, slot) for slot in arrays.slots.values())
    return vector.copy() if owned else vector


def _none(arrays: Arrays, name: str) -> Refused:
    """The refusal: what the run has, and how to have one."""
    slot = average_slot(arrays.spec.average)
    has = RAW if slot is None else f"{RAW}, average or {slot.name}"
    detail = (
        f"weights: expected {has}, which this run has, came {name}: to keep an average from now on, "
        'PATCH the run with {"average": {"name": "ema"}} (or swa, lookahead)'
    )
    return refuse("validation-error", detail)
