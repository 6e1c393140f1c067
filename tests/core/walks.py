"""Walks with a known end, of any optimizer: the dumb twins' steps, computed once and compared with in milliseconds.

Hypothesis compares the arithmetic with the twins as well, on other numbers each time (`test_twin.py`). Here the numbers
are the same each time, so that a change of the arithmetic can be judged by itself: `scripts/mutate.py`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from core import strategies, tensor_strategies
from core.running import Updates, tensors_of
from core.tensor_twin import TensorTwin
from core.twin import Twin
from gradserve import specs
from gradserve_service.core.optimizers import rule_for

SHAPES = [(4,), (3, 2), (2,), (2, 1, 3), ()]
SIZE = sum(math.prod(shape) for shape in SHAPES)
ENDS = np.cumsum([math.prod(shape) for shape in SHAPES])
QUIET = slice(10, 12)  # a tensor that never has a gradient, and
EMPTY = [0, 5]  # updates of some walks that are all zero
ZERO = slice(11, 18)  # one that begins at zero, as does an element of that one
UPDATES, LONG = 7, 40
DRAWS = 12  # of each declaration in the strategies
SHARE = 1e-12
OF_NOTHING = 1e-4  # where a variance that is exactly zero is under a root: half of the digits are rounding
OF_AVERAGE = 20  # one that is drawn from two points is 1/β as far off as they are, and β is 0.05 at the least


@dataclass
class Walk:
    """An optimizer, what is pushed, and the twin's weights, ways and averages after every update."""

    spec: Any
    pushed: Any  # float64[updates, SIZE]
    present: Sequence[Sequence[bool]]  # of each tensor, in each update
    rates: Sequence[float]
    momenta: Sequence[float | None]
    clip: Sequence[Any]
    expected: list[tuple[Any, Any, Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """How much of a step may be rounding."""
        return OF_NOTHING if getattr(self.spec, "centered", False) and self.spec.bias_correction else SHARE

    def holds(self) -> bool:
        """Does the service walk as the twin did, in float64, to the last digits?"""
        run = Updates(self.spec, _start(), self.clip, layout=tensors_of(SHAPES))
        for k, (weights, path, average) in enumerate(self.expected):
            gradient = run.gradient_of(self.pushed[k], self.present[k])
            run.step(gradient, self.rates[k], self.momenta[k], loss=_loss(k), block_elements=5)
            largest = np.maximum(np.abs(weights), np.abs(run.weights)) + path
            bound = self.share * path.max() + 4 * np.spacing(largest) * math.sqrt(run.updates)
            kept = run.rule.average(run.weights, list(run.slots.values()))
            if not np.all(np.abs(run.weights - weights) <= bound):
                return False
            if kept is not None and not np.all(np.abs(kept - average) <= OF_AVERAGE * bound):
                return False
        return True

    def rates_hold(self) -> bool:
        """What is told of a rule's rates is what its step is made of.

        Without momentum, decay and clip a weight moves by its rate times its gradient, at every update.
        """
        plain = {"weight_decay": 0.0, "nesterov": False, rule_for(self.spec).momentum_field: 0.0}
        there = {field: value for field, value in plain.items() if field in type(self.spec).model_fields}
        run = Updates(self.spec.model_copy(update=there), _start(), layout=tensors_of(SHAPES))
        for g, lr in zip(self.pushed, self.rates, strict=True):
            before = run.weights
            run.step(g, lr)
            with np.errstate(all="ignore"):
                rates = run.rule.element_rates(run.updates, lr, list(run.slots.values()))
                if rates is None:
                    return True
                step = np.where(g == 0, 0.0, (-1.0 if run.rule.maximize else 1.0) * rates * g)
            if not np.allclose(before - run.weights, step, rtol=1e-9, atol=self.share * np.abs(step).max() + 1e-15):
                return False
        return True

    def sizes_hold(self) -> set[str]:
        """The slots that were below zero at some time."""
        run, below = Updates(self.spec, _start(), layout=tensors_of(SHAPES)), set()
        for g, lr in zip(self.pushed, self.rates, strict=True):
            run.step(g, lr)
            below |= {name for name, slot in run.slots.items() if (slot < 0).any()}
        return below


def never_negative_holds(name: str) -> bool:
    """Is a slot declared never negative exactly when no walk has it below zero?"""
    below = set().union(*(walk.sizes_hold() for walk in walks(name)))
    declared = {slot.name: slot.never_negative for walk in walks(name) for slot in rule_for(walk.spec).slots}
    return all(never == (slot not in below) for slot, never in declared.items())


def _start() -> Any:
    weights = strategies.first_weights(11, SIZE)
    weights[ZERO] = 0.0
    return weights


def _loss(k: int) -> float:
    return 2 + math.sin(k)


def walks(name: str) -> list[Walk]:
    """Of the optimizer of that name: one of each arithmetic path, and hyperparameters by chance."""
    return _all_walks()[name]


@cache
def _all_walks() -> dict[str, list[Walk]]:
    found: dict[str, list[Walk]] = defaultdict(list)
    drawn: dict[str, list[Any]] = defaultdict(list)
    for spec in (*strategies.EACH, *tensor_strategies.EACH):
        found[spec.name] += [_walk(spec, LONG, 1), _walk(spec, UPDATES, 2)]
    for source in (*strategies.optimizers.branches, *tensor_strategies.optimizers.branches):
        for spec in _draw(source):
            drawn[spec.name].append(spec)
    for name, some in drawn.items():
        found[name] += [_walk(spec, UPDATES, seed) for seed, spec in enumerate(some)]
    return found


def _draw(source: Any) -> list[Any]:
    found: list[Any] = []

    @settings(
        max_examples=DRAWS, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(source)
    def keep(spec: Any) -> None:
        found.append(spec)

    keep()
    return found[DRAWS // 3 :]  # the first ones are simple, and like one another


def _walk(spec: Any, updates: int, seed: int) -> Walk:
    """The twin's walk: tensors that come late or miss an update, rates that change and are zero once, empty pushes."""
    random = np.random.default_rng(seed)
    pushed = strategies.gradients(seed, updates, SIZE)
    pushed[:, QUIET] = 0.0
    if seed % 3 == 2:
        pushed[EMPTY] = 0.0
    present = [[bool(k % 3 != tensor % 3) or updates == LONG for tensor in range(len(SHAPES))] for k in range(updates)]
    rates = [spec.lr * (1 + 0.5 * math.sin(k)) * (k != 4 or updates == LONG) for k in range(updates)]
    by_tensor = not hasattr(Twin, f"_{spec.name}_step")
    rule = rule_for(spec)
    cycles = seed % 2 and rule.momentum_field and rule.with_momentum(0.5).slots == rule.slots
    momenta = [float(x) if cycles and x < 0.5 else None for x in random.random(updates)]
    clip = [] if by_tensor or seed % 3 == 0 else [specs.GlobalNorm(max_norm=2.0)]  # so that `scale` is not 1
    walk = Walk(spec, pushed, present, rates, momenta, clip)
    walk.expected = list(_by_tensor(walk) if by_tensor else _by_element(walk))
    return walk


def _by_element(walk: Walk) -> Iterator[tuple[Any, Any, Any]]:
    twin = Twin(walk.spec, walk.clip, _start())
    for g, present, lr, momentum in zip(walk.pushed, walk.present, walk.rates, walk.momenta, strict=True):
        here = np.repeat(present, np.diff(ENDS, prepend=0))
        twin.step([float(x) if came else None for x, came in zip(g, here, strict=True)], lr, momentum)
        yield np.array(twin.weights), np.array(twin.path), np.array(twin.average)


def _by_tensor(walk: Walk) -> Iterator[tuple[Any, Any, Any]]:
    twin = TensorTwin(walk.spec, SHAPES, [part.tolist() for part in np.split(_start(), ENDS[:-1])])
    field = rule_for(walk.spec).momentum_field
    each = zip(walk.pushed, walk.present, walk.rates, walk.momenta, strict=True)
    for k, (g, present, lr, momentum) in enumerate(each):
        parts = zip(np.split(g, ENDS[:-1]), present, strict=True)
        if field:  # a schedule's momentum: this update's alone
            now = getattr(walk.spec, field) if momentum is None else momentum
            twin.spec = walk.spec.model_copy(update={field: now})
        twin.step([part.tolist() if came else None for part, came in parts], lr, _loss(k))
        yield np.concatenate(twin.weights), np.concatenate(twin.path), np.concatenate(twin.weights)
