"""Laws of the rules that step by signs, by other second moments, and by mixtures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.running import Updates, partial
from gradserve import specs
from gradserve_service.core.optimizers.anchored import cube_root
from gradserve_service.core.optimizers.rule import negative_logarithm, real_power
from gradserve_service.core.optimizers.variances import rectification


def read(optimizer: Any) -> Any:
    return specs.RunSpec.model_validate({"optimizer": optimizer}).optimizer


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run_of(spec: Any, weights: Any, gradients: Any) -> Updates:
    run = Updates(spec, weights)
    for g in gradients:
        run.step(g)
    return run


@pytest.mark.parametrize("name", ["sign_sgd", "signum", "lion"])
def test_a_step_by_sign_is_the_learning_rate(name: str) -> None:
    """Exactly lr or nothing, whatever the gradient."""
    run = Updates(read({"name": name, "lr": 0.125}), np.zeros(100, np.float32))
    for g in normal(1, 20, 100) * np.float32(1e6):
        before = run.weights
        run.step(g)
        assert set(np.abs(run.weights - before).tolist()) <= {0.0, 0.125}


@pytest.mark.parametrize("exponent", [-20, 1, 12])
@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sign_sgd"}, {"name": "signum"}, {"name": "lion"}, {"name": "rprop"}, {"name": "adopt", "eps": 0.0},
        {"name": "adan", "eps": 0.0}, {"name": "ademamix", "eps": 0.0}, {"name": "optimistic_adam", "eps": 0.0},
        {"name": "simplified_ademamix", "eps": 0.0}, {"name": "adabelief", "eps": 0.0, "eps_root": 0.0},
    ],
    ids=lambda optimizer: optimizer["name"],
)  # fmt: skip
def test_without_eps_the_scale_of_the_gradient_is_not_seen(optimizer: Any, exponent: int) -> None:
    """A power of two on every gradient: the same bits of weights."""
    spec, gradients = read({**optimizer, "lr": 0.1}), normal(9, 5, 15)
    plain = run_of(spec, normal(5, 15), gradients)
    scaled = run_of(spec, normal(5, 15), gradients * np.float32(2.0**exponent))
    assert plain.weights.tobytes() == scaled.weights.tobytes()


def test_rprop_lengthens_a_step_while_the_sign_stays_and_halves_it_when_it_turns() -> None:
    """After a turn the gradient is forgotten: no step, and no second halving."""
    run = Updates(specs.Rprop(lr=1.0), np.zeros(1))
    places = []
    for g in (5.0, 0.1, -3.0, -3.0, -3.0):
        run.step([g])
        places.append(float(run.weights[0]))
    assert places == pytest.approx([-1.0, -2.2, -2.2, -1.6, -0.88])


def test_radam_begins_as_momentum_and_ends_as_adam() -> None:
    """β2 = 0.999: five updates with the corrected first moment alone; the factor tends to 1."""
    run = Updates(specs.RAdam(lr=0.1), np.zeros(1))
    for t in range(1, 6):
        run.step([4.0])
        assert run.weights[0] == pytest.approx(-0.4 * t, rel=1e-12)
    run.step([4.0])
    assert -0.01 < run.weights[0] + 2.0 < 0.0
    factors = [rectification(0.999, t, 5.0) for t in (6, 100, 1000, 100_000)]
    assert factors == sorted(factors)
    assert factors[-1] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", ["acprop", "adopt", "adan"])
def test_a_tensor_that_comes_late_begins_as_all_did(name: str) -> None:
    """No gradient yet, no division by the nothing that is known of it."""
    run = Updates(read({"name": name, "lr": 0.1}), np.zeros(2))
    for t in range(10):
        run.step(partial([1.0 + t % 3, None], np.float64))
    run.step([1.0, 2.0])
    assert abs(run.weights[1]) <= 0.1 * 2.0 * 10


def test_adan_under_a_constant_gradient_knows_no_difference() -> None:
    """v stays 0, and the step is lr."""
    run = run_of(specs.Adan(lr=0.1, eps=0.0), np.zeros(1), [[3.0]] * 20)
    assert run.slots["exp_avg_diff"][0] == 0.0
    assert run.weights[0] == pytest.approx(-2.0, rel=1e-12)


def test_rules_reduce_to_one_another() -> None:
    """Without what is their own: AdEMAMix is Adam, optimistic descent is descent, signum without memory sign_sgd."""
    gradients = np.random.default_rng(0).standard_normal((20, 5))
    pairs = [
        (specs.AdEMAMix(lr=0.1, alpha=0.0), specs.Adam(lr=0.1)),
        (specs.OptimisticGradientDescent(lr=0.1, beta=0.0), specs.Sgd(lr=0.1)),
        (specs.OptimisticAdam(lr=0.1, beta=0.0, nesterov=False), specs.Adam(lr=0.1)),
        (specs.OptimisticAdam(lr=0.1, beta=0.0), specs.Nadam(lr=0.1, variant="constant")),
        (specs.Signum(lr=0.1, beta=0.0), specs.SignSgd(lr=0.1)),
        (specs.Lion(lr=0.1, beta1=0.9, beta2=0.9), specs.Signum(lr=0.1, beta=0.9)),
        (specs.SimplifiedAdEMAMix(lr=0.1, beta1=0.0, beta2=0.9, alpha=0.0),
         specs.RmsProp(lr=0.1, alpha=0.9, bias_correction=True)),
    ]  # fmt: skip
    for left, right in pairs:
        ours, theirs = run_of(left, np.ones(5), gradients), run_of(right, np.ones(5), gradients)
        assert ours.weights == pytest.approx(theirs.weights, rel=1e-12), left.name


def test_the_half_life_of_ademamix_grows_linearly() -> None:
    """From that of beta1 to that of beta3; with one of them 0 there is none to grow."""
    spec = specs.AdEMAMix(beta1=0.5, beta3=0.5**0.1, beta3_warmup=9)
    rule: Any = Updates(spec, np.zeros(1)).rule
    lives = [math.log(0.5) / math.log(rule._slow_decay(t)) for t in range(10)]
    assert lives == pytest.approx(range(1, 11), rel=1e-12)


@given(st.floats(1e-300, 1.0, exclude_max=True))
@settings(max_examples=200, deadline=None)
def test_the_logarithm_is_right_to_the_last_places(x: float) -> None:
    """-ln x without the C library, the same on every machine."""
    assert negative_logarithm(x) == pytest.approx(-math.log(x), rel=4e-16)


@given(st.floats(1e-8, 1e8), st.floats(0.0, 5.0))
@settings(max_examples=200, deadline=None)
def test_a_power_with_any_exponent_is_right_to_the_last_places(base: float, exponent: float) -> None:
    """Without the C library, the same on every machine; 0^0 is 1, as there."""
    assert real_power(base, exponent) == pytest.approx(base**exponent, rel=1e-13)
    assert real_power(base, int(exponent)) == pytest.approx(base ** int(exponent), rel=1e-15)
    assert real_power(0.0, exponent) == 0.0**exponent


def test_names_of_the_federated_papers_stand_for_rules_that_are_there() -> None:
    """A push is the mean change of the clients, its sign turned; none of them corrects for its start."""
    assert read("fedavgm") == specs.Sgd(lr=1.0, momentum=0.9)
    assert read("diloco") == specs.Sgd(lr=0.7, momentum=0.9, nesterov=True)
    assert read("fedadagrad") == specs.Adagrad(lr=0.1, eps=1e-3, initial_accumulator_value=1e-6)
    assert read("fedadam") == specs.Adam(lr=0.1, beta2=0.99, eps=1e-3, bias_correction=False)
    assert read("fedyogi") == specs.Yogi(lr=0.1, beta2=0.99, bias_correction=False)
    assert read("nadamw").weight_decay_mode == read("adamaxw").weight_decay_mode == "decoupled"


def test_rprop_reads_torchs_pairs_and_refuses_bounds_that_cross() -> None:
    """etas and step_sizes."""
    assert read({"name": "Rprop", "etas": [0.3, 1.3], "step_sizes": [0.1, 2.0]}) == specs.Rprop(
        eta_minus=0.3, eta_plus=1.3, step_min=0.1, step_max=2.0
    )
    with pytest.raises(ValueError, match="step_min ≤ step_max"):
        specs.Rprop(step_min=2.0, step_max=1.0)
    with pytest.raises(ValueError, match="expected etas to be"):
        read({"name": "rprop", "etas": 0.5})


@given(st.floats(2.0**-100, 2.0**100))
@settings(max_examples=200, deadline=None)
def test_the_cube_root_is_right_to_the_last_places(x: float) -> None:
    """By roots and Newton's steps: all digits of float32, nearly all of float64; that of 0 is as good as 0."""
    for dtype, bound in ((np.float64, 1e-12), (np.float32, 5e-7)):
        out, a, b = (np.zeros(2, dtype) for _ in range(3))
        cube_root(np.array([x, 0.0], dtype), out, a, b)
        assert out[0] == pytest.approx(math.cbrt(x), rel=bound)
        assert 0 <= out[1] < 1e-12


def test_ftrl_starts_from_the_weights_and_keras_from_nothing() -> None:
    """A gradient of 0: w0 is the leader of no gradients; Keras' form forgets it."""
    kept, forgotten = (run_of(specs.Ftrl(keep_initial=keep), np.ones(3), [np.zeros(3)]) for keep in (True, False))
    assert kept.weights == pytest.approx(np.ones(3), rel=1e-14)
    assert (forgotten.weights == 0).all()
    sparse = run_of(specs.Ftrl(lr=0.1, l1=5.0), np.full(3, 0.1), [[0.1, -0.1, 20.0]] * 3)
    assert (sparse.weights[:2] == 0).all()
    assert sparse.weights[2] != 0


def test_ftrl_keeps_what_it_has_learned_whatever_the_rate_is() -> None:
    """A gradient of nothing moves nothing at a tenth of the rate, zeros of l1 stay zeros, and n may start at 0."""
    for fields in ({}, {"l1": 3.0}, {"beta": 1.0}, {"initial_accumulator_value": 0.0}):
        run = run_of(specs.Ftrl(lr=0.5, **fields), [0.1, -2.0, 3.0, 0.5], [[0.1, 1.0, -1.0, 0.0]] * 5)
        before = run.weights
        assert (before[0] == 0) == ("l1" in fields)
        for rate in (0.05, 1e-30, 0.5):
            run.step(np.zeros(4), rate)
            assert run.weights == pytest.approx(before, rel=1e-12)
            assert (run.weights[before == 0] == 0).all()


def test_the_average_of_asgd_begins_after_t0() -> None:
    """Until then it is the weights."""
    run, seen = Updates(specs.Asgd(lr=0.1, t0=3.0), np.zeros(1)), []
    for t in range(1, 9):
        run.step([float(t)])
        seen.append(float(run.weights[0]))
        expected = seen[-1] if t <= 5 else np.mean(seen[4:])
        assert run.slots["ax"][0] == pytest.approx(expected, rel=1e-12)
        assert run.rule.average(run.weights, [run.slots["ax"]]) == pytest.approx([expected], rel=1e-12)


def test_the_average_of_a_weight_that_never_moved_is_the_weight() -> None:
    """A frozen tensor is evaluated as it is, not at 0; and a rule without an average of its own says so."""
    run = Updates(specs.Asgd(lr=0.1), np.ones(2))
    run.step(partial([1.0, None], np.float64))
    averaged = run.rule.average(run.weights, list(run.slots.values()))
    assert averaged is not None
    assert averaged.tolist() == run.weights.tolist()
    assert Updates(specs.Adam(), np.ones(2)).rule.average(np.ones(2), []) is None
