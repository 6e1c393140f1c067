"""What the rules do where their formula has an edge. Each test is plain: `scripts/mutate.py` calls them as well."""

from __future__ import annotations

import numpy as np

from core.running import Updates
from gradserve import specs
from gradserve.wire import Layout
from gradserve_service.core.optimizers import rule_for
from gradserve_service.core.optimizers.rule import decaying_exponential
from gradserve_service.core.slots import own_layouts


def test_the_exponential_of_a_large_number_is_nothing() -> None:
    """Beyond the smallest double it is 0, and no loop is long."""
    assert decaying_exponential(746.0) == decaying_exponential(1e300) == 0.0


def test_polyak_stands_still_where_the_gradient_is_only_rounding() -> None:
    """At a minimum that is above f_min the gap over the gradient would be a step of any length."""
    run = Updates(specs.PolyakSgd(lr=0.5, eps=0.0), np.zeros(4))
    run.step(np.full(4, 1e-9), loss=3.0)
    assert not run.weights.any()


def test_the_average_of_asgd_is_the_weights_bit_for_bit_until_it_begins() -> None:
    """Also of weights that were loaded in between: a mean of one would round."""
    run, random = Updates(specs.Asgd(lr=1.0), np.zeros(200, np.float32)), np.random.default_rng(1)
    for _ in range(5):
        run.weights = random.standard_normal(200).astype(np.float32)
        run.step(random.standard_normal(200))
        assert run.slots["ax"].tobytes() == run.weights.tobytes()


def test_nothing_over_nothing_is_no_step() -> None:
    """Without eps, and where nothing came yet: zero, not NaN."""
    for spec in (specs.Sm3(lr=0.1, eps=0.0), specs.Yogi(lr=0.1, initial_accumulator_value=0.0)):
        run = Updates(spec, np.ones(3))
        for _ in range(2):
            run.step(np.array([0.0, 1.0, 0.0]))
        assert run.weights[0] == run.weights[2] == 1.0
        assert run.weights[1] < 1.0


def test_rprop_with_a_first_step_of_nothing_stands_still() -> None:
    """Not even by step_min."""
    run = Updates(specs.Rprop(lr=0.0), np.ones(3))
    run.step(np.ones(3))
    assert (run.weights == 1.0).all()


def test_a_group_has_its_own_decay_inside_the_rule() -> None:
    """A rule that takes decay into its step is another rule for a group of another decay, and the same for the same."""
    rule = rule_for(specs.Lamb(weight_decay=0.1))
    assert rule.with_decay(0.1) is rule
    assert rule.with_decay(0.3).weight_decay == 0.3


def test_a_scalar_has_one_accumulator_in_sm3() -> None:
    """As a vector of one element."""
    own = own_layouts(rule_for(specs.Sm3()).slots, Layout.of({"scale": [], "one": [1]}))
    assert own["accumulators"] == Layout.of({"scale": [1], "one": [1]})
