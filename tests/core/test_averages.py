"""Averages of the weights: by hand, and what a run keeps of them when its settings change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.running import Averaged
from gradserve.specs import Adam, Ema, Lookahead, ParameterGroup, RunSpec, SwaAverage
from gradserve.wire import Layout
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.averages import AVERAGE_NUMBERS, begin_average, kept_slots
from gradserve_service.core.blocks import RunAll
from gradserve_service.core.entries import Entry
from gradserve_service.core.gradient import Gradient, spans_between
from gradserve_service.core.optimizers import MEMORY_NAMES, RULES

EVERY = [
    Ema(decay=0.75),
    Ema(decay=0.9, debias=True),
    Ema(decay=0.999, warmup=True),
    Ema(decay=0.9, debias=True, warmup=True, every=3),
    SwaAverage(),
    SwaAverage(start=5, period=3),
    Lookahead(sync_period=3, alpha=0.5),
    Lookahead(sync_period=2, alpha=1.0),
]
every = pytest.mark.parametrize("average", EVERY, ids=str)
LAYOUT = Layout.of({"a": [3], "b": [2]})


@pytest.fixture(scope="module")
def four_threads() -> Iterator[RunAll]:
    with ThreadPoolExecutor(4) as pool:
        yield lambda tasks: [future.result() for future in [pool.submit(task) for task in tasks]] and None


def by_hand(average: Any, path: Sequence[float]) -> Iterator[tuple[float, float]]:
    """The weight and its average after each update, one number at a time, from the definitions: every weight that
    counts with the share that it has in the end. `path[0]` is the first weight, the others what is added to it."""
    counted: list[tuple[float, float]] = []  # weight, decay
    w = slow = path[0]
    for t, moved in enumerate(path[1:], 1):
        w += moved
        if average.name == "lookahead":
            if t % average.sync_period == 0:
                slow = w = slow + average.alpha * (w - slow)
            yield w, slow
            continue
        start, period = (0, average.every) if average.name == "ema" else (average.start, average.period)
        if t >= start and (t - start) % period == 0:
            n = len(counted)
            decay = getattr(average, "decay", 0.0)
            counted.append((w, min(decay, (1 + n) / (10 + n)) if getattr(average, "warmup", False) else decay))
        yield w, _mean(average, counted) if counted else w


def _mean(average: Any, counted: Sequence[tuple[float, float]]) -> float:
    if average.name == "swa":
        return math.fsum(w for w, _ in counted) / len(counted)
    total = first = 0.0
    for place, (w, decay) in enumerate(counted):
        later = math.prod(d for _, d in counted[place + 1 :])
        first = 1.0 if place == 0 and not average.debias else 1.0 - decay
        total += w * first * later
    return total / (1.0 - math.prod(d for _, d in counted)) if average.debias else total


averages = st.one_of(
    st.builds(Ema, decay=st.floats(0.0, 0.999), debias=st.booleans(), warmup=st.booleans(), every=st.integers(1, 4)),
    st.builds(SwaAverage, start=st.integers(0, 9), period=st.integers(1, 4)),
    st.builds(Lookahead, sync_period=st.integers(1, 6), alpha=st.floats(0.1, 1.0)),
)


@given(averages, st.lists(st.floats(-4, 4), min_size=2, max_size=20))
def test_every_average_is_what_its_definition_says(average: Any, path: list[float]) -> None:
    """In double the two differ by rounding alone."""
    run = Averaged(average, path[:1])
    for moved, (w, a) in zip(path[1:], by_hand(average, path), strict=True):
        run.move(run.weights + moved)
        assert run.weights[0] == pytest.approx(w, rel=1e-9, abs=1e-9)
        assert run.vector[0] == pytest.approx(a, rel=1e-9, abs=1e-9)


@every
@pytest.mark.parametrize("block", [1, 7, 4_096])
def test_blocks_and_threads_do_not_change_the_bits(average: Any, block: int, four_threads: RunAll) -> None:
    walk = np.random.default_rng(5).standard_normal((7, 1_000)).astype(np.float32)
    alone, shared = Averaged(average, walk[0], np.float32), Averaged(average, walk[0], np.float32)
    for weights in walk[1:]:
        alone.move(weights)
        shared.move(weights, block_elements=block, run_all=four_threads)
        assert alone.vector.tobytes() == shared.vector.tobytes()
        assert alone.weights.tobytes() == shared.weights.tobytes()


def test_no_rule_keeps_anything_under_the_name_of_an_average() -> None:
    """They lie in the same dictionaries."""
    for average in (Ema(), SwaAverage(), Lookahead()):
        for name, rule in RULES.items():
            spec = RunSpec.model_validate({"optimizer": name, "average": average})
            assert kept_slots(spec)[-1].name not in {slot.name for slot in rule().slots}
    assert not AVERAGE_NUMBERS & MEMORY_NAMES


@every
def test_numbers_of_a_file_from_outside_cannot_stop_a_run(average: Any) -> None:
    """Any finite numbers: what comes of them is an average, and no error."""
    for number in (-1.0, -1e300, 0.5, 1e300):
        run = Averaged(average, [1.0])
        run.memory = {name: number for name in run.memory}
        for _ in range(6):
            run.move([2.0])
        assert np.isfinite(run.vector).all()


# What a run keeps of it


def changed(arrays: Arrays, **fields: Any) -> None:
    """One entry that sets these fields of the run's settings."""
    spec = RunSpec.model_validate({**arrays.spec.canonical(), **fields})
    update(arrays, entry("configure", spec=spec.canonical()), None)


def entry(kind: str, **header: Any) -> Entry:
    return Entry({"kind": kind, "position": 1, **header}, b"", b"")


def begun(**settings: Any) -> Arrays:
    """A run at its first weights."""
    arrays = Arrays(RunSpec.model_validate({"optimizer": {"name": "sgd", "lr": 1.0}, **settings}))
    layout = dict(zip(LAYOUT.names, LAYOUT.shapes, strict=True))
    update(arrays, entry("load", layout=layout), np.array([1, 2, 3, 4, 5], np.float32))
    return arrays


def pushed(arrays: Arrays, *gradients: float | Gradient) -> Arrays:
    """Updates with gradients that are the same number everywhere, or with those given."""
    for g in gradients:
        if not isinstance(g, Gradient):
            vector = np.full(5, g, np.float32)
            vector.flags.writeable = False
            g = Gradient.whole(vector)
        header = {"update": {"lr": 1.0, "momentum": None}, "weight": 1.0, "loss": None, "base": arrays.version}
        update(arrays, entry("push", **header, samples=1.0, at=0), g)
    return arrays


def test_a_new_average_starts_at_the_present_weights() -> None:
    """Set by a change, switched off and on, or exchanged for another kind."""
    arrays = pushed(begun(), 1.0)
    changed(arrays, average={"name": "ema", "decay": 0.5})
    assert arrays.slots["ema"].tolist() == [0, 1, 2, 3, 4]
    pushed(arrays, 1.0, 1.0)
    assert arrays.slots["ema"].tolist() == [-1.5, -0.5, 0.5, 1.5, 2.5]
    changed(arrays, average={"name": "swa"})
    assert (list(arrays.slots), arrays.slots["swa"].tolist()) == (["swa"], [-2, -1, 0, 1, 2])
    changed(arrays, average=None)
    assert (arrays.slots, arrays.memory) == ({}, {})
    changed(arrays, average={"name": "ema"})
    assert (arrays.slots["ema"].tolist(), arrays.memory) == ([-2, -1, 0, 1, 2], {"ema_updates": 0.0, "ema_left": 1.0})


def test_another_decay_goes_on_with_the_same_average() -> None:
    arrays = pushed(begun(average={"name": "ema", "decay": 0.5}), 1.0, 1.0)
    held = arrays.slots["ema"].tolist()
    changed(arrays, average={"name": "ema", "decay": 0.75})
    assert arrays.slots["ema"].tolist() == held
    pushed(arrays, 0.0)
    assert arrays.slots["ema"][0] == 0.75 * held[0] + 0.25 * -1.0


def test_weights_from_outside_begin_the_average_anew() -> None:
    """Lookahead would else pull them back to where the run was."""
    for average in (Ema(decay=0.5), SwaAverage(), Lookahead(sync_period=3)):
        arrays = pushed(begun(average=average), 1.0, 1.0)
        update(arrays, entry("load", layout=None), np.array([9, 9, 9, 9, 9], np.float32))
        (vector,) = arrays.slots.values()
        assert vector.tolist() == [9] * 5
        pushed(arrays, 0.0, 0.0)
        assert vector.tolist() == arrays.weights.tolist() == [9] * 5  # type: ignore[union-attr]


@every
def test_a_frozen_group_keeps_its_average_at_its_weights(average: Any) -> None:
    """To the bit, from the beginning on; the others' average is another than their weights."""
    frozen = ParameterGroup(name="still", match=("b",), frozen=True)
    arrays = pushed(begun(average=average, groups=[frozen]), *[0.3, -0.1, 0.7, 0.2, 0.9, -0.4, 0.1])
    (vector,) = arrays.slots.values()
    assert arrays.weights is not None
    assert vector[3:].tolist() == arrays.weights[3:].tolist() == [4, 5]
    assert average.name == "lookahead" or vector[:3].tolist() != arrays.weights[:3].tolist()


def test_a_tensor_that_is_left_out_is_averaged_over_the_weights_that_it_keeps() -> None:
    """As every version of the weights counts, whatever moved in it; one that never moved is its own average."""
    arrays = pushed(begun(average={"name": "ema", "decay": 0.5}), 0.0)
    sent = Layout.of({"a": [3]})
    vector = np.float32([2.0, 2.0, 2.0])
    vector.flags.writeable = False
    partly = Gradient(vector, spans_between(sent, LAYOUT), 12.0, True)
    pushed(arrays, partly)
    assert arrays.slots["ema"].tolist() == [0, 1, 2, 4, 5]
    pushed(arrays, 1.0, partly)
    assert arrays.slots["ema"].tolist() == [-2.5, -1.5, -0.5, 3.25, 4.25]


def test_lookahead_leaves_weights_that_were_frozen_on_the_way() -> None:
    """Their slow weights come to them, at the next meeting."""
    arrays = pushed(begun(average={"name": "lookahead", "sync_period": 4}), 1.0, 1.0)
    changed(arrays, groups=[{"name": "still", "match": "b", "frozen": True}])
    assert arrays.weights is not None
    assert arrays.slots["slow"][3:].tolist() == [4, 5]
    pushed(arrays, 1.0, 1.0)
    assert arrays.weights.tolist() == arrays.slots["slow"].tolist() == [-1, 0, 1, 2, 3]


def test_lookahead_can_begin_the_optimizers_state_anew() -> None:
    """After a meeting it is that of a new run at those weights: slots, and the t of the bias correction."""
    adam = {"name": "adam", "lr": 1.0}
    average = {"name": "lookahead", "sync_period": 3, "alpha": 1.0, "reset_state": True}
    run, other = begun(optimizer=adam, average=average), begun(optimizer=adam)
    pushed(run, 0.3, -0.1, 0.7)
    assert (run.step, run.rule_step) == (3, 0)
    assert not run.slots["exp_avg"].any()
    assert run.weights is not None
    update(other, entry("load", layout=None), run.weights)
    pushed(run, 0.5, 0.1)
    pushed(other, 0.5, 0.1)
    assert run.weights.tobytes() == other.weights.tobytes()  # type: ignore[union-attr]
    assert run.rule_step == 2
    changed(run, average=None)
    assert run.rule_step == 2  # what the moments know is as young as before


def test_without_a_reset_the_optimizers_state_goes_on() -> None:
    average = {"name": "lookahead", "sync_period": 3, "alpha": 1.0}
    run, plain = begun(optimizer=Adam(lr=1.0), average=average), begun(optimizer=Adam(lr=1.0))
    pushed(run, 0.3, -0.1, 0.7, 0.2)
    pushed(plain, 0.3, -0.1, 0.7, 0.2)
    assert run.weights.tobytes() == plain.weights.tobytes()  # type: ignore[union-attr]


def test_an_average_of_weights_that_overflow_is_told_and_not_an_error() -> None:
    run = Averaged(Ema(decay=0.5), [3e38], np.float32)
    run.move([3e38])
    run.move([-3e38])
    assert not np.isfinite(run.vector).all()


def test_beginning_anew_sets_the_numbers_back_too() -> None:
    run = Averaged(Ema(decay=0.5, debias=True), [1.0])
    run.move([2.0])
    begin_average(run.average, run.slots, run.memory, np.array([7.0]))
    assert (run.vector.tolist(), run.memory) == ([7.0], {"ema_updates": 0.0, "ema_left": 1.0})
