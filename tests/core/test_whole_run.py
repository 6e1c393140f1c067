"""Rules that sum over the whole run: sentences of their papers, and what groups and empty gradients are to them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from core.families import adaptation, distances, stepsizes
from core.running import Updates, tensors_of
from core.strategies import first_weights, gradients, label
from gradserve import specs
from gradserve_service.core.groups import GroupTerms, Stretch

EACH = [*stepsizes.EACH, *distances.EACH, *adaptation.EACH]
each = pytest.mark.parametrize("spec", EACH, ids=label)
FINDERS = [
    specs.Dog(reps_rel=1e-3), specs.Dowg(eps=1e-3), specs.DAdaptSgd(lr=0.25, d0=1e-3), specs.DAdaptAdam(d0=1e-3),
    specs.Prodigy(d0=1e-3), specs.Momo(), specs.MomoAdam(lr=0.5),
]  # fmt: skip
SOLUTION = np.array([3.0, -4.0, 0.5, 2.0])


def descended(spec: Any, updates: int) -> Updates:
    """Down a quadratic bowl whose axes are of different steepness, from 0 to SOLUTION."""
    steepness, run = np.array([1.0, 0.5, 2.0, 0.3]), Updates(spec, np.zeros(4), layout=tensors_of([(2,), (2,)]))
    for _ in range(updates):
        way = run.weights - SOLUTION
        run.step(steepness * way, loss=float(0.5 * (steepness * way**2).sum()))
    return run


@pytest.mark.parametrize("spec", FINDERS, ids=label)
def test_a_rate_that_is_found_leads_to_the_solution(spec: Any) -> None:
    """No rate was given that fits this problem; only D-Adaptation of SGD needs a factor where the loss is smooth."""
    run = descended(spec, 800)
    assert np.abs(run.weights - SOLUTION).max() < 0.2


@pytest.mark.parametrize("spec", [specs.DAdaptSgd(), specs.DAdaptAdam(), specs.Prodigy()], ids=label)
def test_the_estimate_of_the_distance_grows_from_almost_nothing_and_never_falls(spec: Any) -> None:
    """ "A lower bound on the distance": from 1e-6 towards its size, on a convex problem never above it."""
    run, last = Updates(spec, np.zeros(4)), spec.d0
    for _ in range(100):
        run.step(np.sign(run.weights - SOLUTION))
        assert run.memory["d"] >= last
        last = run.memory["d"]
    assert 0.01 < last <= np.linalg.norm(SOLUTION)


@each
def test_two_groups_of_the_same_terms_are_one(spec: Any) -> None:
    """Sums are over the run: a cut between groups is no border."""
    weights, pushed, layout = first_weights(1, 9), gradients(1, 5, 9), tensors_of([(5,), (4,)])
    whole, cut = Updates(spec, weights, layout=layout), Updates(spec, weights, layout=layout)
    for g in pushed:
        whole.step(g)
        cut.step(g, terms=[GroupTerms(spec.lr, spec.weight_decay)] * 2, stretches=(Stretch(0, 5, 0), Stretch(5, 9, 1)))
    assert cut.weights == pytest.approx(whole.weights, rel=1e-12)
    assert cut.memory == pytest.approx(whole.memory, rel=1e-12)


@each
def test_a_group_with_a_rate_of_zero_rests(spec: Any) -> None:
    """And the others go on."""
    weights, layout = first_weights(1, 9), tensors_of([(5,), (4,)])
    run = Updates(spec.model_copy(update={"weight_decay": 0.0}), weights, layout=layout)
    for g in gradients(1, 5, 9):
        run.step(
            g, terms=[GroupTerms(spec.lr, 0.0), GroupTerms(0.0, 0.0)], stretches=(Stretch(0, 5, 0), Stretch(5, 9, 1))
        )
    assert np.array_equal(run.weights[5:], weights[5:])
    assert not np.array_equal(run.weights[:5], weights[:5])


@each
def test_a_gradient_of_zero_leaves_numbers(spec: Any) -> None:
    """Nothing is divided by nothing, at the first update and later; without eps too."""
    if "eps" in type(spec).model_fields:
        spec = spec.model_copy(update={"eps": 0.0})
    run = Updates(spec.model_copy(update={"weight_decay": 0.0}), first_weights(1, 4))
    for g in (np.zeros(4), np.zeros(4), np.ones(4), np.zeros(4)):
        run.step(g)
        assert np.isfinite(run.weights).all()
        assert np.isfinite(list(run.memory.values())).all()


def test_a_number_that_overflows_begins_again() -> None:
    """<g, w> of finite numbers may be infinite: what is saved is not, and the next update is as good as any."""
    run = Updates(specs.Momo(lr=1e-3), np.full(2, 1e30, np.float32))
    run.step(np.full(2, 1e15, np.float32))
    assert np.isfinite(run.weights).all()
    assert run.memory["product_mean"] == 0.0
    assert np.isfinite(list(run.memory.values())).all()


def test_the_first_step_of_dog_is_its_first_distance() -> None:
    """r over the norm of the gradient, along the gradient; r = reps_rel (1 + the norm of the weights)."""
    run = Updates(specs.Dog(eps=0.0), np.array([3.0, 4.0]))
    run.step([0.0, -7.0])
    assert run.weights - [3.0, 4.0] == pytest.approx([0.0, 6e-6], rel=1e-9)
    run = Updates(specs.Dog(eps=0.0, initial_distance=0.5), np.array([3.0, 4.0]))
    run.step([0.0, -7.0])
    assert run.weights - [3.0, 4.0] == pytest.approx([0.0, 0.5], rel=1e-12)


def test_the_rates_of_dog_do_not_see_the_scale_of_the_gradient() -> None:
    """A power of two on every gradient: the same bits of weights."""
    runs = [Updates(specs.Dog(eps=0.0, reps_rel=0.1), first_weights(1, 6)) for _ in range(2)]
    for g in gradients(1, 6, 6):
        runs[0].step(g)
        runs[1].step(g * 2.0**12)
    assert runs[0].weights.tobytes() == runs[1].weights.tobytes()


def test_momo_reaches_the_minimum_of_a_linear_model_in_one_step_and_no_further_than_lr() -> None:
    """loss = <g, w>, lower bound 0: the whole way there; then lr is the bound, and below the bound there is no step."""
    w, g = np.array([2.0, 1.0]), np.array([1.0, 1.0])
    for lr, way in ((10.0, 1.5), (0.25, 0.25)):
        run = Updates(specs.Momo(lr=lr), w)
        run.step(g, loss=float(w @ g))
        assert run.weights == pytest.approx(w - way * g, rel=1e-12)
    run = Updates(specs.Momo(lr=10.0, lower_bound=5.0), w)
    run.step(g, loss=3.0)
    assert run.weights.tolist() == w.tolist()


def test_the_decay_of_momo_divides() -> None:
    """w / (1 + lr λ), λ that of the group; a gradient of 0 does nothing else."""
    run = Updates(specs.Momo(lr=0.5, weight_decay=0.2), np.ones(4), layout=tensors_of([(2,), (2,)]))
    terms = [GroupTerms(0.5, 0.2), GroupTerms(0.5, 3.0)]
    run.step(np.zeros(4), terms=terms, stretches=(Stretch(0, 2, 0), Stretch(2, 4, 1)))
    assert run.weights == pytest.approx([1 / 1.1, 1 / 1.1, 1 / 2.5, 1 / 2.5], rel=1e-12)


def test_decoupled_decay_of_a_found_rate_takes_the_rate_that_was_found() -> None:
    """d lr λ, not lr λ: with lr 1 the weights would be gone at once."""
    run = Updates(specs.Prodigy(d0=0.125, weight_decay=0.5), np.full(2, 8.0))
    run.step([0.0, 0.0])
    assert run.weights.tolist() == [8.0 * (1 - 0.125 * 0.5)] * 2


def test_a_growth_rate_bounds_the_growth() -> None:
    """The estimate grows by no more than the factor at any update."""
    for spec in (specs.DAdaptSgd(growth_rate=1.5), specs.DAdaptAdam(growth_rate=1.5), specs.Prodigy(growth_rate=1.5)):
        run, last, grew = Updates(spec, np.zeros(4)), spec.d0, 0
        for _ in range(30):
            run.step(run.weights - SOLUTION)
            # Prodigy's first estimate may be anything; from the second on the factor holds.
            assert run.memory["d"] <= 1.5 * last * (1 + 1e-12) or (spec.name == "prodigy" and last == spec.d0)
            grew, last = grew + math.isclose(run.memory["d"], 1.5 * last), run.memory["d"]
        assert grew > 10, spec.name
