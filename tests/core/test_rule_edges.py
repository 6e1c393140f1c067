"""What the rules do where their formula has an edge. Each test is plain: `scripts/mutate.py` calls them as well."""

from __future__ import annotations

import math

import numpy as np

from core.running import Updates
from gradserve import specs
from gradserve.wire import Layout
from gradserve_service.core.groups import GroupTerms, Stretch
from gradserve_service.core.optimizers import rule_for
from gradserve_service.core.optimizers.rule import decaying_exponential, negative_logarithm, real_power
from gradserve_service.core.slots import own_layouts


def test_the_exponential_of_a_large_number_is_nothing() -> None:
    """Beyond the smallest double it is 0, and no loop is long."""
    assert decaying_exponential(746.0) == decaying_exponential(1e300) == 0.0


def test_the_logarithm_is_right_where_its_series_is_longest_and_where_it_is_nearly_nothing() -> None:
    """Just above the number that is doubled no more, just below, and beside 1, where nothing may cancel out."""
    for x in (0.445, 0.45, 0.6666, 0.667, 0.99, 1.0 - 2.0**-30):
        assert abs(negative_logarithm(x) / -math.log(x) - 1.0) <= 4e-16


def test_a_step_from_the_loss_is_none_where_the_gradient_is_only_rounding() -> None:
    """At a minimum that is above f_min the gap over the gradient would be a step of any length."""
    for spec, g in ((specs.PolyakSgd(lr=0.5, eps=0.0), 1e-9), (specs.Momo(), 1e-9), (specs.MomoAdam(), 1e-17)):
        run = Updates(spec, np.zeros(4))
        run.step(np.full(4, g), loss=3.0)
        assert not run.weights.any()


def test_the_largest_rate_counts_in_what_momo_finds_out() -> None:
    """A group at rest changes nothing for the others, whether it comes first or last."""
    spec = specs.Momo(lr=0.5, weight_decay=0.1, lower_bound=-1.0, adapt_lower_bound=True)
    alone, beside = Updates(spec, np.ones(2)), Updates(spec, np.array([1.0, 1.0, 0.0]))
    for _ in range(4):
        alone.step(np.array([1.0, 2.0]), loss=0.1)
        beside.step(
            np.array([1.0, 2.0, 0.0]), loss=0.1, terms=[GroupTerms(0.5, 0.1), GroupTerms(0.0, 0.1)],
            stretches=(Stretch(0, 2, 0), Stretch(2, 3, 1)),
        )  # fmt: skip
    assert alone.memory == beside.memory


def test_sgd_says_of_rows_what_its_momentum_makes_of_them() -> None:
    """With a velocity every weight goes on, whether its row came or not."""
    assert rule_for(specs.Sgd()).sparse_as_set == "exact"
    assert rule_for(specs.Sgd(momentum=0.9)).sparse_as_set == "lazy"


def test_statistics_that_overflow_in_part_leave_the_matrices_as_they_were() -> None:
    """No decomposition of infinities, which would be an exception in the middle of an update; at a first gradient too.

    A matrix that could not begin begins at the next gradient.
    """
    huge = np.array([1.5e19, 1.5e19, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], np.float32)
    for spec, slot in (
        (specs.Shampoo(lr=0.1), "preconditioners"),
        (specs.Soap(lr=0.1, precondition_frequency=1), "eigenbasis"),
    ):
        for first in (np.eye(3).reshape(-1), np.zeros(9), None):
            run = Updates(spec, np.ones(9, np.float32), layout=Layout.of({"w": [3, 3]}))
            if first is not None:
                run.step(first)
            before = run.slots[slot].copy()
            run.step(huge)
            assert not np.isfinite(run.slots["statistics"]).all()
            assert np.array_equal(run.slots[slot][:9], before[:9])


def test_soap_moves_at_its_second_update_whatever_its_basis_is() -> None:
    """Of a diagonal gradient it is full of zeros, and has begun all the same."""
    run = Updates(specs.Soap(lr=0.1), np.ones(9), layout=Layout.of({"w": [3, 3]}))
    for _ in range(2):
        run.step(np.diag([3.0, 2.0, 1.0]).reshape(-1))
    assert (np.diag(run.weights.reshape(3, 3)) < 1.0).all()


def test_soap_turns_vectors_where_it_is_told_to() -> None:
    """And a vector without a matrix is Adam's."""
    layout = Layout.of({"matrix": [2, 3], "vector": [4]})
    for spec, names in ((specs.Soap(), ("matrix",)), (specs.Soap(precondition_vectors=True), ("matrix", "vector"))):
        assert own_layouts(rule_for(spec).slots, layout)["eigenbasis"].names == names


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
    """A rule that takes decay into its step is another rule for a group of another decay, and the same for the same.

    Elementwise rules leave all other modes to the driver; sums over a tensor may need the decay in any mode.
    """
    for spec in (
        specs.Lamb(weight_decay=0.1),
        specs.Lamb(weight_decay=0.1, weight_decay_mode="decoupled"),
        specs.ScheduleFreeAdamW(weight_decay=0.1),
    ):
        assert rule_for(spec).with_decay(0.1) is rule_for(spec)
        assert rule_for(spec).with_decay(0.3).weight_decay == 0.3
    for mode in ("l2", "decoupled", "cautious"):
        plain = rule_for(specs.Adam(weight_decay=0.1, weight_decay_mode=mode))
        assert plain.with_decay(0.3) is plain


def test_a_power_of_nothing_and_of_one_is_exact() -> None:
    """0^0 is 1, as a sum's weight without an exponent needs it."""
    assert real_power(0.0, 0.0) == real_power(1.0, 0.5) == real_power(7.0, 0.0) == 1.0
    assert real_power(0.0, 0.5) == real_power(0.0, 2.0) == 0.0


def test_a_scalar_has_one_accumulator_in_sm3() -> None:
    """As a vector of one element."""
    own = own_layouts(rule_for(specs.Sm3()).slots, Layout.of({"scale": [], "one": [1]}))
    assert own["accumulators"] == Layout.of({"scale": [1], "one": [1]})


def test_a_scalar_has_matrices_of_one_element() -> None:
    """As a vector of one element, however short the longest axis may be."""
    for spec, slot in (
        (specs.Shampoo(max_preconditioner_dim=1), "preconditioners"),
        (specs.Soap(max_preconditioner_dim=1, precondition_vectors=True), "eigenbasis"),
    ):
        own = own_layouts(rule_for(spec).slots, Layout.of({"scale": [], "one": [1]}))
        assert own[slot] == Layout.of({"scale": [1], "one": [1]})
