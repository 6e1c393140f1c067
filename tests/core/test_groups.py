"""Parameter groups in the sweep: each tensor is updated as if its group's settings were the whole run's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.running import Updates, partial
from core.strategies import EACH, label
from gradserve.specs import ParameterGroup, Sgd
from gradserve.wire import Layout
from gradserve_service.core.blocks import RunAll
from gradserve_service.core.gradient import Gradient, Span
from gradserve_service.core.groups import GroupTerms, Stretch, cut_by_group, group_terms, stretches_of, training

each = pytest.mark.parametrize("spec", EACH, ids=label)
SIZE = 60
STRETCHES = (Stretch(0, 7, 1), Stretch(7, 30, 0), Stretch(30, 31, 2), Stretch(31, 55, 1), Stretch(55, 60, 0))


@pytest.fixture(scope="module")
def four_threads() -> Iterator[RunAll]:
    with ThreadPoolExecutor(4) as pool:
        yield lambda tasks: [future.result() for future in [pool.submit(task) for task in tasks]] and None


def gradients(updates: int = 4) -> Any:
    return np.random.default_rng(5).standard_normal((updates, SIZE)).astype(np.float32)


def first_weights() -> Any:
    return np.random.default_rng(6).standard_normal(SIZE).astype(np.float32)


def grouped(spec: Any, terms: list[GroupTerms], **how: Any) -> Updates:
    run = Updates(spec, first_weights())
    for g in gradients():
        run.step(g, terms=terms, stretches=STRETCHES, **how)
    return run


@each
@pytest.mark.parametrize("mode", ["l2", "decoupled", "independent", "cautious"])
def test_a_group_is_updated_as_a_run_of_its_own_settings(spec: Any, mode: str) -> None:
    """Each group's weights, slots and the rule's memory have the bits of a run whose lr and decay are the group's."""
    known = get_args(type(spec).model_fields["weight_decay_mode"].annotation)
    spec = spec.model_copy(update={"weight_decay_mode": mode if mode in known else known[0]})
    terms = [GroupTerms(0.1, 0.0), GroupTerms(0.01, 0.3), GroupTerms(0.5, spec.weight_decay)]
    run = grouped(spec, terms)
    for place, term in enumerate(terms):
        alone = Updates(spec.model_copy(update={"weight_decay": term.weight_decay}), first_weights())
        for g in gradients():
            alone.step(g, term.lr)
        own = np.concatenate([np.arange(s.start, s.stop) for s in STRETCHES if s.group == place])
        assert run.weights[own].tobytes() == alone.weights[own].tobytes()
        assert all(run.slots[name][own].tobytes() == alone.slots[name][own].tobytes() for name in run.slots)
        if term.lr == max(each.lr for each in terms):  # what a rule remembers goes by the largest rate
            assert run.memory == alone.memory


@each
def test_groups_give_the_same_bits_for_any_block_and_thread(spec: Any, four_threads: RunAll) -> None:
    """Where a group begins is a border between blocks, and no more than that."""
    terms = [GroupTerms(0.1, 0.01), GroupTerms(0.01, 0.0), GroupTerms(0.5, 0.3)]
    whole = grouped(spec, terms).state
    assert grouped(spec, terms, block_elements=1).state == whole
    assert grouped(spec, terms, block_elements=7, run_all=four_threads).state == whole


@each
def test_groups_without_a_difference_change_no_bit(spec: Any) -> None:
    """Cutting a run into groups of the same settings is no change at all."""
    same = [GroupTerms(0.1, spec.weight_decay)] * 3
    plain = Updates(spec, first_weights())
    for g in gradients():
        plain.step(g, 0.1)
    assert grouped(spec, same).state == plain.state


@each
def test_a_partial_push_meets_its_groups(spec: Any) -> None:
    """Only what came is updated, by the settings of the group that it lies in."""
    terms = [GroupTerms(0.1, 0.01), GroupTerms(0.01, 0.0), GroupTerms(0.5, 0.3)]
    run, whole = Updates(spec, first_weights()), Updates(spec, first_weights())
    came = [*range(5, 12), 30, *range(50, 58)]
    g = gradients()[0]
    run.step(partial([g[i] if i in came else None for i in range(SIZE)], np.float32), terms=terms, stretches=STRETCHES)
    whole.step(g, terms=terms, stretches=STRETCHES)
    assert run.weights[came].tobytes() == whole.weights[came].tobytes()
    absent = np.setdiff1d(np.arange(SIZE), came)
    assert run.weights[absent].tobytes() == first_weights()[absent].tobytes()


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_cutting_by_group_loses_and_doubles_nothing(came: list[bool], length: int) -> None:
    """Every element that came is in one piece, under its own group, beside its own gradient."""
    size = len(came)
    stretches = [Stretch(i, min(i + length, size), i // length % 3) for i in range(0, size, length)]
    gradient = partial([float(i) if there else None for i, there in enumerate(came)], np.float64)
    seen = {}
    for span, group in cut_by_group(gradient.spans, stretches):
        for i in range(span.length):
            seen[span.weights_start + i] = (gradient.vector[span.gradient_start + i], group)
    assert seen == {i: (float(i), i // length % 3) for i, there in enumerate(came) if there}


def test_a_tensor_belongs_to_the_first_group_that_matches_it() -> None:
    """Neighbours of one group are one stretch; a tensor without elements is in none."""
    layout = Layout.of({"a.bias": [2], "b.bias": [0], "b.weight": [2, 2], "c.bias": [3], "d.weight": [1]})
    groups = (ParameterGroup(name="c", match="c.*"), ParameterGroup(name="bias", match=("*.bias", "c.*")))
    assert stretches_of(groups, layout) == (
        Stretch(0, 2, 2),
        Stretch(2, 6, 0),
        Stretch(6, 9, 1),
        Stretch(9, 10, 0),
    )
    assert stretches_of((), layout) == ()


def test_the_terms_of_the_groups() -> None:
    """lr_scale multiplies the shared rate, a rate of the group's own stands, the staleness weight is for all."""
    groups = (
        ParameterGroup(name="slow", match="a", lr_scale=0.5),
        ParameterGroup(name="own", match="b", lr_scale=0.5, weight_decay=0.0),
    )
    update = {"lr": 0.4, "momentum": None, "group_lr": {"own": 0.3}}
    assert group_terms(Sgd(weight_decay=0.1), groups, update, 0.5) == [
        GroupTerms(0.4 * 0.5, 0.1),
        GroupTerms(0.4 * 0.5 * 0.5, 0.1),
        GroupTerms(0.3 * 0.5, 0.0),
    ]


def test_a_frozen_tensor_is_as_one_that_was_left_out() -> None:
    """Vector, spans and norm are those of a push without it: it is neither in the norm nor in a clip by the norm."""
    groups = (ParameterGroup(name="off", match="b", frozen=True), ParameterGroup(name="on", match="c"))
    stretches = (Stretch(0, 1, 2), Stretch(1, 2, 0), Stretch(2, 5, 1), Stretch(5, 6, 2))
    kept = training(groups, stretches)
    assert kept == [(0, 2), (5, 6)]
    assert training(groups[1:], stretches) is None
    gradient = Gradient.whole(np.array([3.0, 0.0, 50.0, 60.0, 70.0, 4.0], np.float32))
    left = gradient.within(kept)
    assert (left.vector.tolist(), left.sum_of_squares) == ([3.0, 0.0, 4.0], 25.0)
    assert left.spans == (Span(0, 0, 2), Span(5, 2, 1))
    assert gradient.within([(0, 6)]) is gradient
    assert gradient.within([]).sum_of_squares == 0.0
