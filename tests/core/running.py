"""Running updates in tests: a run of the service's arithmetic without the service."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradserve import specs
from gradserve.wire import Layout
from gradserve_service.core.averages import kept_numbers, kept_slots, take_average
from gradserve_service.core.blocks import BLOCK_ELEMENTS, Array, RunAll, in_turn, sum_of_squares
from gradserve_service.core.gradient import Gradient, Span, spans_between
from gradserve_service.core.groups import GroupTerms, Stretch
from gradserve_service.core.optimizers import Rule, rule_for
from gradserve_service.core.slots import new_slots
from gradserve_service.core.update import UpdateStatistics, apply_update


class Updates:
    """Weights and slots of one dtype, and `step` after `step` on them. Every buffer for new weights starts as NaN."""

    def __init__(
        self,
        spec: Any,
        weights: Any,
        clip: Sequence[Any] = (),
        rule: Rule | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.rule = rule or rule_for(spec)
        self.lr, self.clip = spec.lr, clip
        self.weights: Array = np.array(weights)
        self.layout = layout or Layout.of({"all": [self.weights.size]})
        self.slots = new_slots(self.rule.slots, self.layout, self.weights)
        self.memory = dict(self.rule.memory)
        self.updates = 0

    def step(
        self,
        gradient: Any,
        lr: float | None = None,
        momentum: float | None = None,
        run_all: RunAll = in_turn,
        block_elements: int = BLOCK_ELEMENTS,
        terms: Sequence[GroupTerms] = (),
        stretches: Sequence[Stretch] = (),
        loss: float = 1.0,
    ) -> UpdateStatistics:
        if not isinstance(gradient, Gradient):
            gradient = Gradient.whole(read_only(np.asarray(gradient, self.weights.dtype)))
        self.updates += 1
        weights, next_weights = read_only(self.weights), np.full_like(self.weights, np.nan)
        statistics = apply_update(
            self.rule,
            self.clip,
            weights=weights,
            next_weights=next_weights,
            slots=self.slots,
            memory=self.memory,
            gradient=gradient,
            terms=terms or [GroupTerms(self.lr if lr is None else lr, self.rule.weight_decay)],
            stretches=stretches,
            layout=self.layout,
            loss=loss,
            momentum=momentum,
            step=self.updates,
            run_all=run_all,
            block_elements=block_elements,
        )
        self.weights = next_weights
        return statistics

    def gradient_of(self, vector: Any, present: Sequence[bool]) -> Gradient:
        """Those tensors of a whole gradient that are present, in the layout's order."""
        names, shapes = self.layout.names, self.layout.shapes
        sent = Layout.of({n: s for n, s, here in zip(names, shapes, present, strict=True) if here})
        pieces = [vector[self.layout.span(name)] for name in sent.names]
        flat = read_only(np.concatenate([*pieces, vector[:0]]).astype(self.weights.dtype))
        return Gradient(flat, spans_between(sent, self.layout), sum_of_squares(flat), True)

    @property
    def state(self) -> bytes:
        """All bytes of weights, slots and memory."""
        vectors = [self.weights, *self.slots.values(), *map(np.float64, self.memory.values())]
        return b"".join(vector.tobytes() for vector in vectors)


class Averaged:
    """A vector of weights that is moved from outside, and its average."""

    def __init__(self, average: specs.AverageSpec, weights: Any, dtype: Any = np.float64) -> None:
        self.average, self.weights = average, np.array(weights, dtype)
        spec = specs.RunSpec(optimizer=specs.Sgd(), average=average)
        self.slots = {slot.name: self.weights.copy() for slot in kept_slots(spec)}
        self.memory = kept_numbers(spec, {})
        self.step = 0

    def move(self, to: Any, **how: Any) -> None:
        self.step += 1
        self.weights = np.array(to, self.weights.dtype)
        take_average(self.average, self.step, weights=self.weights, slots=self.slots, memory=self.memory, **how)

    @property
    def vector(self) -> Any:
        (vector,) = self.slots.values()
        return vector


def tensors_of(shapes: Sequence[Sequence[int]]) -> Layout:
    """The layout of tensors in this order."""
    return Layout.of({f"{place:02}": shape for place, shape in enumerate(shapes)})


def read_only(array: Array) -> Array:
    """A view that raises when somebody writes to it."""
    view = array.view()
    view.flags.writeable = False
    return view


def partial(values: Sequence[float | None], dtype: Any) -> Gradient:
    """The gradient of the elements that are not None."""
    came = [i for i, value in enumerate(values) if value is not None]
    spans: list[Span] = []
    for place, i in enumerate(came):
        last = spans[-1] if spans else None
        if last and last.weights_start + last.length == i:
            spans[-1] = Span(last.weights_start, last.gradient_start, last.length + 1)
        else:
            spans.append(Span(i, place, 1))
    vector = read_only(np.array([values[i] for i in came], dtype))
    return Gradient(vector, tuple(spans), sum_of_squares(vector), True)


def golden_run(case: Mapping[str, Any], given: Mapping[str, Any], dtype: Any) -> Iterator[Updates]:
    """The run after each of the golden gradients (`scripts/make_golden.py`)."""
    spec = specs.RunSpec.model_validate({"optimizer": case["optimizer"], "clip": case["clip"]})
    run = Updates(spec.optimizer, np.array(given["weights"], dtype), spec.clip, layout=Layout.of(given["shapes"]))
    for gradient, factor in zip(given["gradients"], given["lr_factors"], strict=True):
        lr = spec.optimizer.lr * (1.0 if case.get("constant_lr") else factor)
        run.step(gradient, lr, loss=given_loss(run.updates))
        yield run


def given_loss(k: int) -> float:
    """The loss of update k, from 0, where a rule needs one."""
    return 2.0 + (k % 7) / 4


def state_digest(case: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """SHA-256 of weights and slots, float32, after all golden gradients."""
    *_, last = golden_run(case, given, np.float32)
    return hashlib.sha256(last.state).hexdigest()
