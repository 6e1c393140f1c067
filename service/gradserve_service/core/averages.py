"""Averages of the weights: a vector beside them, moved at the end of an update, behind everything else.

    ema, swa       a <- a + share (w - a)           share: see `_ema_share`, `_swa_share`
    lookahead      s <- s + alpha (w - s); w <- s   every `sync_period` updates: it changes the weights themselves

The vector is kept with the slots, under the name `ema`, `swa` or `slow`, and its numbers with the rule's memory: so it
is in images, checkpoints, restores, branches and digests, and a replay ends with the same bits. It begins as the
weights are when it is set, and begins anew there when other weights are loaded; a restore brings the one of the state.

An average is of the run's weights, whatever came in a push: a tensor that is left out is averaged over the weights that
it keeps, and the average of a tensor that never trains is its weights. Lookahead leaves the weights of frozen tensors
as they are; their slow weights are the same.

Sources: `gradserve.specs.averages`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from gradserve.specs import AverageSpec, Ema, Lookahead, RunSpec, SwaAverage

from .blocks import BLOCK_ELEMENTS, Array, RunAll, give_back, in_turn, share_out, take_scratch
from .optimizers import MEMORY_NAMES, Memory, Slot, rule_for

__all__ = [
    "AVERAGE_NUMBERS", "RESET_AT", "average_slot", "begin_average", "kept_numbers", "kept_slots", "reset_at",
    "take_average",
]  # fmt: skip

RESET_AT: Final = "reset_at"  # the step at which lookahead last reset the optimizer: its t counts from there

_SLOTS: Final[Mapping[str, Slot]] = {
    "ema": Slot("ema", "a: the decaying mean of the weights", from_weights=True),
    "swa": Slot("swa", "a: the mean of the weights", from_weights=True),
    "lookahead": Slot("slow", "s: the slow weights", from_weights=True),
}
# The numbers of each, with the values they begin with. `…_updates` is n, the weights that are in the average.
_NUMBERS: Final[Mapping[str, Mapping[str, float]]] = {
    "ema": {"ema_updates": 0.0, "ema_left": 1.0},  # left: D, all decays multiplied
    "swa": {"swa_updates": 0.0},
    "lookahead": {},
}
AVERAGE_NUMBERS: Final = frozenset({RESET_AT, *(name for numbers in _NUMBERS.values() for name in numbers)})
assert not AVERAGE_NUMBERS & MEMORY_NAMES, "a rule keeps a number under the name of an average's"


def average_slot(average: AverageSpec | None) -> Slot | None:
    """The vector that is kept for an average."""
    return None if average is None else _SLOTS[average.name]


def kept_slots(spec: RunSpec) -> tuple[Slot, ...]:
    """All that a run keeps beside its weights: the rule's slots, in its order, and the average."""
    slots, average = rule_for(spec.optimizer).slots, average_slot(spec.average)
    return slots if average is None else (*slots, average)


def kept_numbers(spec: RunSpec, held: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a run, those that are held already as they are. When its optimizer was last reset outlives the
    average that did it: the rule's t depends on it."""
    numbers = dict(rule_for(spec.optimizer).memory)
    if spec.average is not None:
        numbers.update(_NUMBERS[spec.average.name])
    if held.get(RESET_AT):
        numbers[RESET_AT] = held[RESET_AT]
    return {name: held.get(name, initial) for name, initial in numbers.items()}


def reset_at(memory: Mapping[str, float], step: int) -> int:
    """The step at which the optimizer's state was reset, 0 for never. A file from outside may name any number."""
    return int(min(max(memory.get(RESET_AT, 0.0), 0.0), step))


def begin_average(average: AverageSpec | None, slots: Mapping[str, Array], memory: Memory, weights: Array) -> None:
    """Begin anew at these weights, in place."""
    slot = average_slot(average)
    if average is not None and slot is not None:
        np.copyto(slots[slot.name], weights)
        memory.update(_NUMBERS[average.name])


def take_average(
    average: AverageSpec | None,
    step: int,
    *,
    weights: Array,
    slots: Mapping[str, Array],
    memory: Memory,
    trained: Sequence[tuple[int, int]] | None = None,
    run_all: RunAll = in_turn,
    block_elements: int = BLOCK_ELEMENTS,
) -> bool:
    """Move the average behind update number `step`, in place; `weights` are those that the update made, not published
    yet. `trained` are the parameters that are not frozen, None for all. True: the optimizer's state is to begin anew.

    The bits depend neither on `run_all` nor on `block_elements`.
    """
    if average is None:
        return False
    a = slots[_SLOTS[average.name].name]
    if not isinstance(average, Lookahead):
        share = _ema_share(average, step, memory) if isinstance(average, Ema) else _swa_share(average, step, memory)
        if share:
            _in_blocks([(0, a.size)], _towards(share, a, weights), run_all, block_elements, a)
        return False
    if step % average.sync_period:
        return False

    def meet(here: slice, scratch: Array) -> None:
        step_towards(here, scratch)
        np.copyto(weights[here], a[here])

    step_towards = _towards(average.alpha, a, weights)
    spans = [(0, a.size)] if trained is None else trained
    _in_blocks(spans, meet, run_all, block_elements, a)
    _in_blocks(_gaps(spans, a.size), _towards(1.0, a, weights), run_all, block_elements, a)
    return average.reset_state


def _ema_share(average: Ema, step: int, memory: Memory) -> float:
    """What an update's weights get of the average, with n weights in it.

        d = decay, with warmup min(decay, (1 + n) / (10 + n))
        1 where n = 0, else 1 - d; with debias (1 - d) / (1 - D), D the product of all d, this one too

    debias keeps a / (1 - D) of optax' a, which begins at 0, so that what is kept is what is served.
    """
    n = max(memory["ema_updates"], 0.0)
    if step % average.every:
        return 0.0 if n else 1.0
    d = min(average.decay, (1.0 + n) / (10.0 + n)) if average.warmup else average.decay
    left = min(max(memory["ema_left"], 0.0), 1.0) * d
    memory["ema_updates"], memory["ema_left"] = n + 1.0, left
    if not n:
        return 1.0
    return (1.0 - d) / (1.0 - left) if average.debias else 1.0 - d


def _swa_share(average: SwaAverage, step: int, memory: Memory) -> float:
    """1 / (n + 1), with n weights in the average, at the updates that count; before the first the weights are it."""
    n = max(memory["swa_updates"], 0.0)
    if step < average.start or (step - average.start) % average.period:
        return 0.0 if n else 1.0
    memory["swa_updates"] = n + 1.0
    return 1.0 / (n + 1.0)


def _towards(share: float, a: Array, w: Array) -> Callable[[slice, Array], None]:
    """For a block: a <- a + share (w - a); a <- w, to the bit, where the share is 1."""
    if share == 1.0:
        return lambda here, scratch: np.copyto(a[here], w[here])
    part: Any = np.array(share, a.dtype)  # of no dimension: NumPy takes it faster than its own scalars

    def move(here: slice, scratch: Array) -> None:
        np.subtract(w[here], a[here], scratch)
        np.multiply(scratch, part, scratch)
        np.add(a[here], scratch, a[here])

    return move


def _in_blocks(
    spans: Sequence[tuple[int, int]], work: Callable[[slice, Array], None], run_all: RunAll, block: int, like: Array
) -> None:
    """Call `work` for every block of the spans, with a scratch block of its length."""
    pieces = [slice(x, min(x + block, stop)) for start, stop in spans for x in range(start, stop, block)]

    def lane(pieces: Iterable[slice]) -> None:
        (scratch,) = take_scratch(1, min(block, like.size), like.dtype)
        with np.errstate(all="ignore"):  # as in the update: overflow is an outcome
            for here in pieces:
                work(here, scratch[: here.stop - here.start])
        give_back((scratch,))

    share_out(pieces, lane, run_all)


def _gaps(spans: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What lies between spans that are in order."""
    ends = [0, *(stop for _, stop in spans)]
    starts = [*(start for start, _ in spans), size]
    return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]
