"""Laws that hold for every optimizer there is: what is new in the catalogue is asked for them without a word here."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import strategies, tensor_strategies, walks
from core.running import Updates, read_only, tensors_of
from core.strategies import label
from gradserve import specs
from gradserve.specs import OPTIMIZERS
from gradserve_service.core.gradient import Gradient
from gradserve_service.core.optimizers import NEVER_NEGATIVE, RULES

SHAPES = [(4, 3), (5,), (2, 2, 3), ()]
SIZE = 30
EACH = [*strategies.EACH, *tensor_strategies.EACH]
every_path = pytest.mark.parametrize("spec", EACH, ids=label)
every_rule = pytest.mark.parametrize("name", RULES)
BY_TENSOR = tensor_strategies.EACH  # `test_optimizers.py` asks the others
ALLOCATED_MOST = 64 << 10  # bytes: Python's own objects, far from a block
MILLION = 1_000_003


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run_of(spec: Any, gradients: Any, shapes: Any = SHAPES, lr: float | None = None, sign: float = 1.0) -> Updates:
    run = Updates(spec, normal(5, gradients.shape[1]), layout=tensors_of(shapes))
    for k, g in enumerate(gradients):
        run.step(g, lr, loss=sign * (2.0 + k))
    return run


def test_every_optimizer_has_a_twin_and_walks_as_it_does() -> None:
    """One of each path and hyperparameters by chance, in float64, to the last digits."""
    for name in RULES:
        assert len(walks.walks(name)) > 4, f"{name} has few walks: is it in a family of the strategies?"
        assert all(walk.holds() for walk in walks.walks(name)), name


@every_rule
def test_the_rates_that_are_told_are_those_of_the_step(name: str) -> None:
    """Without momentum a weight moves by its rate times its gradient."""
    assert all(walk.rates_hold() for walk in walks.walks(name))


@every_rule
def test_a_slot_is_declared_never_negative_exactly_when_it_never_is(name: str) -> None:
    """States from outside are judged by the slot's name, whichever rule declares it."""
    assert walks.never_negative_holds(name)
    for walk in walks.walks(name):
        assert not walk.sizes_hold() & NEVER_NEGATIVE


@every_path
def test_a_rate_that_is_next_to_nothing_harms_nobody(spec: Any) -> None:
    """As the end of a schedule has it, and a very stale gradient: all stays finite, and the next step is no leap."""
    gradients, factors = normal(4, 12, SIZE), {6: 1e-5, 7: 1e-15, 8: 1e-40, 9: 1e-300}
    run, steps = Updates(spec, normal(5, SIZE), layout=tensors_of(SHAPES)), []
    for k, g in enumerate(gradients):
        before = run.weights
        run.step(g, spec.lr * factors.get(k, 1.0), loss=2.0 + k)
        steps.append(np.abs(run.weights - before).max())
    assert np.isfinite(steps).all()
    assert steps[10] <= 20 * max(steps[1:6]) + 1e-6


@every_path
def test_all_state_is_in_slots_memory_and_the_step(spec: Any) -> None:
    """Half of a run, taken over by another with those alone, ends in the same bits."""
    gradients = normal(2, 6, SIZE)
    whole, half = run_of(spec, gradients), run_of(spec, gradients[:3])
    other = Updates(spec, half.weights, layout=half.layout)
    other.slots = {name: slot.copy() for name, slot in half.slots.items()}
    other.memory, other.updates = dict(half.memory), half.updates
    for k, g in enumerate(gradients[3:], 3):
        other.step(g, loss=2.0 + k)
    assert other.state == whole.state


@pytest.mark.parametrize("spec", BY_TENSOR, ids=label)
def test_a_rule_of_tensors_moves_nothing_without_a_rate_or_without_gradients(spec: Any) -> None:
    """A rate of zero: no weight, decay or not. Gradients of zero: not without decay, bit by bit."""
    assert (run_of(spec, normal(1, 3, SIZE), lr=0.0).weights == normal(5, SIZE)).all()
    if spec.name != "fromage":  # which shrinks by itself
        bare = spec.model_copy(update={"weight_decay": 0.0})
        assert run_of(bare, np.zeros((3, SIZE), np.float32)).weights.tobytes() == normal(5, SIZE).tobytes()


@given(strategies.optimizers | tensor_strategies.optimizers | st.sampled_from(EACH), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_to_climb_is_to_descend_the_negative(spec: Any, seed: int) -> None:
    """Bit for bit, with decay too: it pulls to zero either way."""
    other, gradients = spec.model_copy(update={"maximize": not spec.maximize}), normal(seed, 4, SIZE)
    assert run_of(spec, gradients).weights.tobytes() == run_of(other, -gradients, sign=-1.0).weights.tobytes()


@every_path
def test_only_rules_of_tensors_see_where_a_tensor_ends(spec: Any) -> None:
    """A matrix cut in two is the same to elementwise rules and to sums over the run, and never to the others.

    To rules that take gradients of some rows a cut between rows is none, and one through the rows is.
    """
    gradients = normal(1, 3, 24).astype(np.float64)
    cuts: list[Any] = [[(12, 2)], [(5, 2), (7, 2)], [(8, 3)]]
    whole, parts, turned = (run_of(spec, gradients, shapes) for shapes in cuts)
    kind = whole.rule.kind
    if kind == "elementwise":
        assert whole.state == parts.state == turned.state
    elif kind == "whole_run":
        assert parts.weights == pytest.approx(whole.weights, rel=1e-5)
    elif whole.rule.sparse != "no":
        assert whole.state == parts.state
        assert not np.allclose(turned.weights, whole.weights, rtol=1e-3)
    else:
        assert not np.allclose(parts.weights, whole.weights, rtol=1e-3)


@pytest.mark.parametrize("exponent", [-12, 3])
@pytest.mark.parametrize("spec", [specs.Lamb(lr=0.1, eps=0.0), specs.Novograd(lr=0.1, eps=0.0),
                                  specs.Lars(lr=0.1, eps=0.0, momentum=0.0), specs.Fromage(lr=0.1, min_norm=0.0)],
                         ids=label)  # fmt: skip
def test_rules_over_norms_do_not_see_the_scale_of_the_gradient(spec: Any, exponent: int) -> None:
    """Without eps: a power of two on every gradient, the same bits of weights."""
    gradients = normal(9, 4, SIZE)
    scaled = run_of(spec, gradients * np.float32(2.0**exponent))
    assert run_of(spec, gradients).weights.tobytes() == scaled.weights.tobytes()


@pytest.mark.parametrize("spec", [specs.Lamb(lr=0.1), specs.Lars(lr=0.1, eps=0.0), specs.Fromage(lr=0.1)], ids=label)
def test_a_step_by_layers_is_as_large_as_the_weights(spec: Any) -> None:
    """Weights eight times as large move eight times as far at the first update; weights of zero move as if unscaled."""
    g, start = normal(1, SIZE), normal(5, SIZE)
    small, large = (Updates(spec, start * np.float32(size), layout=tensors_of(SHAPES)) for size in (1, 8))
    small.step(g)
    large.step(g)
    assert (large.weights == 8 * small.weights).all()
    if spec.name != "fromage":
        nothing = Updates(spec, np.zeros(SIZE), layout=tensors_of(SHAPES))
        nothing.step(g)
        plain = specs.Adam(lr=0.1, eps=1e-6) if spec.name == "lamb" else specs.Sgd(lr=0.1)
        unscaled = Updates(plain, np.zeros(SIZE))
        unscaled.step(g)
        assert nothing.weights == pytest.approx(unscaled.weights, rel=1e-12)


def test_rules_of_one_shape_reduce_to_those_of_another() -> None:
    """SM3 of vectors is Adagrad; Adam without a mean and without correction is RMSprop."""
    gradients = normal(3, 8, SIZE).astype(np.float64)
    pairs: list[tuple[Any, Any]] = [
        (specs.Sm3(lr=0.1, momentum=0.0, eps=1e-3), specs.Adagrad(lr=0.1, eps=1e-3, eps_in_sqrt=True)),
        (specs.Adam(lr=0.1, beta1=0.0, beta2=0.9, bias_correction=False), specs.RmsProp(lr=0.1, alpha=0.9)),
    ]
    for left, right in pairs:
        ours, theirs = run_of(left, gradients, [(SIZE,)]), run_of(right, gradients, [(SIZE,)])
        assert ours.weights == pytest.approx(theirs.weights, rel=1e-5), left.name


def peak_of(run: Updates, gradient: Gradient) -> int:
    """Bytes that an update allocates at most, beside the next weights that it is given."""
    run.step(gradient)  # scratch blocks are kept from then on
    tracemalloc.start()
    try:
        run.step(gradient)
        return tracemalloc.get_traced_memory()[1] - run.weights.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.kind != "shaped"])
def test_an_update_allocates_nothing(name: str) -> None:
    """A million parameters: all is written in place, or into blocks that are kept."""
    gradient = Gradient.whole(read_only(normal(1, MILLION)))
    for fields in ({}, *RULES[name].forms):
        spec = OPTIMIZERS.built[name].model_validate(fields)
        assert peak_of(Updates(spec, normal(5, MILLION)), gradient) < ALLOCATED_MOST


# ------------------------------------------------------------------------------------------------------ convex problems

CURVATURE = np.linspace(0.1, 1.0, 10)
POINTS = np.random.default_rng(8).standard_normal((40, 10))
SIDES = np.where(POINTS @ np.linspace(-1, 1, 10) + np.random.default_rng(9).standard_normal(40) > 0, 1.0, -1.0)
RATES = (0.05, 0.5, None, 5e-3, 20.0)  # None: its own, where others are too large
CONVEX_UPDATES = 400


def quadratic(w: Any) -> tuple[float, Any]:
    """½ Σ c w², least at 0."""
    return float(0.5 * (CURVATURE * w * w).sum()), CURVATURE * w


def logistic(w: Any) -> tuple[float, Any]:
    """Mean log(1 + e^(-y x·w)) and a little of |w|²: no side can win without end."""
    margin = SIDES * (POINTS @ w)
    loss = float(np.log1p(np.exp(-margin)).mean() + 0.05 * (w * w).sum())
    return loss, -(POINTS * (SIDES / (1 + np.exp(margin)))[:, None]).mean(0) + 0.1 * w


@cache
def least(problem: Callable[[Any], tuple[float, Any]]) -> float:
    """The smallest loss, by plain descent."""
    w = np.ones(10)
    for _ in range(5000):
        w -= 0.5 * problem(w)[1]
    return problem(w)[0]


@pytest.mark.parametrize("problem", [quadratic, logistic])
@every_rule
def test_every_optimizer_brings_a_convex_loss_near_its_least(name: str, problem: Any) -> None:
    """What is above the least falls tenfold, at the optimizer's own rate or at another: not with any sign wrong."""
    floor = least(problem)
    start = 2.0 * np.linspace(-1, 1, 10)[::-1]
    for rate in RATES:
        fields = {} if rate is None else {"lr": rate}
        run = Updates(OPTIMIZERS.built[name].model_validate({**fields, "weight_decay": 0.0}), start)
        for _ in range(CONVEX_UPDATES):
            loss, gradient = problem(run.weights)
            if loss - floor < (problem(start)[0] - floor) / 10:
                return
            run.step(gradient, loss=loss - floor)
    raise AssertionError(f"{name} lowers the loss at none of the rates {RATES}")
