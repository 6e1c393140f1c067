"""The large half of a run's state: weights, slots and the rule's memory, and `update`, the arithmetic of one entry.

Weights are a value: each update writes the new ones into another buffer, so readers keep what they hold. Slots, memory
and the sum of an open batch are owned and written in place. If `update` raises, all may be half-written: drop it and
restore from the chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradserve.specs import ClipSpec, Lookahead, RunSpec
from gradserve.wire import Layout, allocate

from .accumulating import Accumulator
from .averages import RESET_AT, begin_average, kept_numbers, kept_slots, reset_at, take_average
from .batches import Batch
from .blocks import RunAll, in_turn
from .clipping import clipped
from .entries import Entry
from .gradient import Gradient
from .groups import Stretch, group_terms, stretches_of, training
from .history import History, Row
from .measuring import measure, measured_at_step, way
from .optimizers import rule_for
from .optimizers.rule import Memory, Rule
from .preprocess import Seen, preprocessed
from .slots import begin_slot, cut, new_slot, own_layouts
from .trail import NextBuffer, Trail, fresh_buffer
from .update import apply_update

Float32 = NDArray[np.float32]
NAN = float("nan")


@dataclass(slots=True)
class Arrays:
    """Weights float32[N], one float32 buffer a slot, the rule's own numbers, what the updates did.

    A slot is as the weights are, N elements, unless it is in `own_layouts`. The run's average is one of the slots, the
    last, and its numbers are among the rule's (`averages.py`).
    """

    spec: RunSpec
    layout: Layout | None = None
    weights: Float32 | None = None
    slots: dict[str, Float32] = field(default_factory=dict)
    own_layouts: dict[str, Layout] = field(default_factory=dict)
    memory: Memory = field(default_factory=dict)
    step: int = 0
    version: int = -1
    history: History = field(default_factory=History)
    accumulator: Accumulator | None = None  # of the open batch
    trail: Trail = field(default_factory=Trail)
    _stretches: tuple[Stretch, ...] | None = None  # of spec and layout, once asked for

    @property
    def rule(self) -> Rule:
        return rule_for(self.spec.optimizer)

    @property
    def rule_step(self) -> int:
        """The updates of the rule's state: its t, which counts anew where lookahead resets that state."""
        return self.step - reset_at(self.memory, self.step)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """Which parameters belong to which group; nothing without groups."""
        assert self.layout is not None
        if self._stretches is None:
            self._stretches = stretches_of(self.spec.groups, self.layout)
        return self._stretches

    @property
    def state_bytes(self) -> int:
        """Bytes of weights, slots, an open batch and history."""
        held = [*self.slots.values(), *([] if self.weights is None else [self.weights])]
        held += [] if self.accumulator is None else [self.accumulator.total]
        return sum(array.nbytes for array in held) + self.history.nbytes

    def copied(self) -> Arrays:
        """The same as a value: weights by reference, a copy of what is written in place."""
        slots = {name: slot.copy() for name, slot in self.slots.items()}
        batch = None if self.accumulator is None else self.accumulator.copied()
        memory, history = dict(self.memory), self.history.frozen()
        return replace(self, slots=slots, memory=memory, history=history, accumulator=batch, trail=Trail())

    def fit(self, spec: RunSpec) -> None:
        """Follow a changed spec: slots and memory of equal name (and layout) are kept, new ones are as they begin."""
        if (spec.optimizer, spec.groups) != (self.spec.optimizer, self.spec.groups):
            self.history.rates = ()  # they were another rule's, or other groups'
        self.spec, self._stretches = spec, None
        if self.layout is None:
            return
        held, self.own_layouts = self.own_layouts, own_layouts(self.rule.slots, self.layout)
        self.slots = {
            slot.name: self.slots[slot.name]
            if slot.name in self.slots and held.get(slot.name) == self.own_layouts.get(slot.name)
            else new_slot(slot, self.slot_layout(slot.name).parameters, self.weights)
            for slot in kept_slots(spec)
        }
        self.memory = kept_numbers(spec, self.memory)

    def reset_rule(self, weights: Float32) -> None:
        """The rule's slots and numbers as they begin at these weights, in place."""
        for slot in self.rule.slots:
            begin_slot(slot, self.slots[slot.name], weights)
        self.memory.update(self.rule.memory)
        self.memory[RESET_AT] = float(self.step)

    def slot_layout(self, name: str) -> Layout:
        """Where each tensor lies in a slot."""
        assert self.layout is not None
        return self.own_layouts.get(name, self.layout)


def update(
    arrays: Arrays,
    entry: Entry,
    payload: Gradient | Float32 | None,
    *,
    new_buffer: Callable[[int], Float32] = allocate,
    next_buffer: NextBuffer = fresh_buffer,
    run_all: RunAll = in_turn,
) -> None:
    """Apply one entry. `payload` is the entry's gradient, or the weights of a `load`, in layout order.

    `new_buffer` gives memory for what is loaded, `next_buffer` for the weights after an update.
    """
    if entry.kind == "load":
        assert isinstance(payload, np.ndarray)
        _load(arrays, entry.header, payload, new_buffer)
    elif entry.kind == "configure":
        arrays.fit(RunSpec.model_validate(entry.header["spec"]))
    elif entry.kind == "report" and entry.header["version"] is not None:
        arrays.history.add_report(entry.header["version"], entry.header["values"])
    elif entry.kind == "push" and (entry.header["update"] is not None or entry.header["outcome"] == "contributed"):
        assert isinstance(payload, Gradient)
        _push(arrays, entry.header, payload, new_buffer, next_buffer, run_all)


def _load(arrays: Arrays, header: Mapping[str, Any], weights: Float32, new_buffer: Callable[[int], Float32]) -> None:
    first = header["layout"] is not None
    arrays.trail = Trail()
    if first:
        arrays.layout = Layout.of(header["layout"])
    # A copy: the payload may lie in the buffer of a request body, or in the journal's own bytes.
    state = header.get("state")
    if state is None:
        arrays.weights = _copied(weights, new_buffer)
        if first:
            arrays.fit(arrays.spec)
        else:  # an anchor or an average of weights that are gone would pull the new ones back
            for slot in arrays.rule.slots:
                if slot.from_weights:
                    begin_slot(slot, arrays.slots[slot.name], arrays.weights)
            begin_average(arrays.spec.average, arrays.slots, arrays.memory, arrays.weights)
    else:
        _restore(arrays, state, weights, new_buffer)
    arrays.version += 1
    arrays.accumulator = None  # what its gradients were computed at is no more


def _restore(arrays: Arrays, state: Mapping[str, Any], vectors: Float32, new_buffer: Callable[[int], Float32]) -> None:
    """A whole state: the vector holds the weights and then each slot of the rule that it was saved with."""
    assert arrays.layout is not None
    arrays.own_layouts = {name: Layout.of(shapes) for name, shapes in state["slots"].items() if shapes is not None}
    sizes = [arrays.slot_layout(name).parameters for name in state["slots"]]
    weights, *slots = cut(vectors, [arrays.layout.parameters, *sizes])
    arrays.weights = _copied(weights, new_buffer)
    arrays.slots = {name: _copied(slot, new_buffer) for name, slot in zip(state["slots"], slots, strict=True)}
    arrays.memory = dict(state["memory"])
    arrays.step = state["step"]
    arrays.history.rates = ()
    arrays.fit(arrays.spec)  # the present rule may have other slots than the one that left these


def _copied(vector: Float32, new_buffer: Callable[[int], Float32]) -> Float32:
    copy = new_buffer(vector.size)
    np.copyto(copy, vector)
    return copy


def _push(
    arrays: Arrays,
    header: Mapping[str, Any],
    gradient: Gradient,
    new_buffer: Callable[[int], Float32],
    next_buffer: NextBuffer,
    run_all: RunAll,
) -> None:
    """One gradient: an update, a contribution to the open batch, or the one that completes it.

    A batch of one push never sees the accumulator: it is the update that it would be without one, bit for bit.
    """
    assert arrays.layout is not None
    spec = arrays.spec
    if not header.get("finite", True):
        gradient = gradient.zeroed(run_all)
    gradient = _training(arrays, gradient, run_all)
    last = header["update"] is not None
    batch = Batch.from_json(header.get("batch"))
    if last and batch.pushes <= 1:
        staleness = arrays.version - header["base"]
        alone = Batch().with_push(header["samples"], header["weight"], staleness, header["loss"])
        _apply(arrays, header, _Due(gradient, alone, spec.clip), next_buffer, run_all)
        return
    each = spec.accumulate is not None and spec.accumulate.clip_each
    if arrays.accumulator is None:
        arrays.accumulator = Accumulator.empty(arrays.layout, new_buffer)
    _contribute(arrays, header, gradient, spec.clip if each else (), run_all)
    if last:
        accumulator, arrays.accumulator = arrays.accumulator, None
        mean = _training(arrays, accumulator.mean(arrays.layout, run_all), run_all)  # groups may have changed since
        due = _Due(mean, batch, () if each else spec.clip, accumulator.scale)
        _apply(arrays, header, due, next_buffer, run_all)


def _training(arrays: Arrays, gradient: Gradient, run_all: RunAll) -> Gradient:
    """The gradient without the parameters that are frozen now."""
    kept = training(arrays.spec.groups, arrays.stretches)
    return gradient if kept is None else gradient.within(kept, run_all)


def _contribute(
    arrays: Arrays, header: Mapping[str, Any], gradient: Gradient, clip: Sequence[ClipSpec], run_all: RunAll
) -> None:
    """Add the gradient to the open batch; with `clip`, each on its own."""
    assert arrays.layout is not None
    assert arrays.accumulator is not None
    gradient, rest, scale = preprocessed(clip, gradient, _seen(arrays), run_all)
    plan = clipped(rest, gradient, run_all)
    arrays.accumulator.add(
        gradient, header["samples"], arrays.layout, clip=plan, scale=scale * plan.clip_scale, run_all=run_all
    )


def _seen(arrays: Arrays) -> Seen:
    assert arrays.weights is not None
    assert arrays.layout is not None
    return Seen(arrays.weights, arrays.layout, arrays.step + 1, arrays.history.column("gradient_norm"))


@dataclass(frozen=True, slots=True)
class _Due:
    """What an update is made of."""

    gradient: Gradient  # as it came, or the mean of the batch
    batch: Batch
    clips: Sequence[ClipSpec]  # that the gradient gets still
    clip_scale: float = 1.0  # what its parts were scaled by before, on the mean


def _apply(arrays: Arrays, header: Mapping[str, Any], due: _Due, next_buffer: NextBuffer, run_all: RunAll) -> None:
    assert arrays.weights is not None
    assert arrays.layout is not None
    spec = arrays.spec
    next_weights, rest_is_there = arrays.trail.next_weights(
        arrays.weights, due.gradient, arrays.layout, next_buffer, run_all
    )
    gradient, clip, scale = preprocessed((*due.clips, *spec.optimizer.stages), due.gradient, _seen(arrays), run_all)
    terms = group_terms(spec.optimizer, spec.groups, header["update"], due.batch.weight)
    statistics = apply_update(
        arrays.rule,
        clip,
        weights=arrays.weights,
        next_weights=next_weights,
        slots=arrays.slots,
        memory=arrays.memory,
        gradient=gradient,
        terms=terms,
        stretches=arrays.stretches,
        layout=arrays.layout,
        momentum=header["update"]["momentum"],
        step=arrays.rule_step + 1,
        loss=due.batch.loss,
        rest_is_there=rest_is_there,
        run_all=run_all,
    )
    arrays.step += 1
    arrays.version += 1
    if take_average(
        spec.average,
        arrays.step,
        weights=next_weights,
        slots=arrays.slots,
        memory=arrays.memory,
        trained=training(spec.groups, arrays.stretches),
        run_all=run_all,
    ):
        arrays.reset_rule(next_weights)
    if isinstance(spec.average, Lookahead):
        arrays.trail = Trail()  # it may have moved every weight
    moved = _measure(arrays, due.gradient, next_weights, run_all)
    arrays.weights = next_weights
    arrays.history.rates = tuple(each.lr for each in terms)
    arrays.history.add(
        Row(
            version=arrays.version,
            step=arrays.step,
            loss=NAN if due.batch.loss is None else due.batch.loss,
            lr=header["update"]["lr"],
            gradient_norm=math.sqrt(due.gradient.sum_of_squares),
            update_norm=moved,
            clip_scale=statistics.clip_scale * scale * due.clip_scale,
            staleness=due.batch.staleness,
            samples=due.batch.samples,
            time=header["at"] / 1000,
        )
    )


def _measure(arrays: Arrays, gradient: Gradient, next_weights: Float32, run_all: RunAll) -> float:
    """The gradient by tensor and the way that the weights go (returned), where this update is one to measure."""
    assert arrays.layout is not None
    assert arrays.weights is not None
    if not measured_at_step(arrays.step, arrays.layout):
        return NAN
    arrays.history.add_measurement(arrays.version, arrays.layout.names, measure(gradient, arrays.layout, run_all))
    moved = way(arrays.weights, next_weights, gradient, arrays.layout, run_all)
    arrays.history.watch_weights(arrays.version, moved)
    return moved
