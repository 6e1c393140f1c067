"""Sentences of the papers, and laws that follow from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.running import Updates
from core.strategies import EACH, label
from gradserve import specs
from gradserve_service.core.optimizers.nadam import RATE
from gradserve_service.core.optimizers.rule import decaying_exponential

each = pytest.mark.parametrize("spec", EACH, ids=label)
FROM_ANEW = ("ftrl", "asgd", "cocob")  # shrink by themselves, or write each weight anew: a zero may lose its sign
STILL_WITHOUT_LR = ("ftrl", "cocob", "madgrad")  # which take lr times the gradient into their sums
WITHOUT_DECAY = [spec for spec in EACH if spec.weight_decay == 0 and spec.name not in ("adamw", *FROM_ANEW)]


def run_of(spec: Any, weights: Any, gradients: Any, lr: float | None = None) -> Updates:
    run = Updates(spec, weights)
    for g in gradients:
        run.step(g, lr)
    return run


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@each
def test_a_learning_rate_of_zero_moves_no_weight(spec: Any) -> None:
    """The state goes on, the weights stay."""
    run = run_of(spec, normal(0, 20), normal(1, 3, 20), lr=0.0)
    assert (run.weights == normal(0, 20)).all()
    if not spec.model_dump().get("lr_in_momentum") and spec.name not in STILL_WITHOUT_LR:
        assert all(slot.any() for slot in run.slots.values())


@pytest.mark.parametrize("spec", WITHOUT_DECAY, ids=label)
def test_a_gradient_of_zero_moves_no_weight(spec: Any) -> None:
    """From the zero state, without decay: not a bit, and not the sign of a zero."""
    weights = np.array([1.5, -2.25, 0.0, -0.0, 1e-40], np.float32)
    run = run_of(spec, weights, np.zeros((3, 5)))
    assert run.weights.tobytes() == weights.tobytes()
    zero = [slot.name for slot in run.rule.slots if slot.initial == 0.0]
    assert not any(run.slots[name].any() for name in ("velocity", "exp_avg", "exp_avg_sq") if name in zero)


@given(st.floats(1e-3, 1.0), st.integers(-10, 10))
@settings(max_examples=50, deadline=None)
def test_a_factor_on_the_gradient_is_a_factor_on_the_lr_of_sgd(lr: float, exponent: int) -> None:
    """sgd(lr a, g) = sgd(lr, a g), bit for bit for a power of two."""
    a = 2.0**exponent
    gradients = normal(9, 4, 15)
    left = run_of(specs.Sgd(lr=lr * a), normal(5, 15), gradients)
    right = run_of(specs.Sgd(lr=lr), normal(5, 15), gradients * np.float32(a))
    assert left.weights.tobytes() == right.weights.tobytes()


@pytest.mark.parametrize("exponent", [-20, -3, 1, 12])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_without_eps_does_not_see_the_scale_of_the_gradient(exponent: int, amsgrad: bool) -> None:
    """ "The magnitudes of parameter updates are invariant to rescaling of the gradient" (Kingma & Ba, section 1)."""
    spec, gradients = specs.Adam(lr=0.1, eps=0.0, amsgrad=amsgrad), normal(9, 5, 15)
    plain = run_of(spec, normal(5, 15), gradients)
    scaled = run_of(spec, normal(5, 15), gradients * np.float32(2.0**exponent))
    assert plain.weights.tobytes() == scaled.weights.tobytes()


def test_adam_without_eps_leaves_untouched_weights_where_they_are() -> None:
    """0 / 0 is no step: a row of an embedding that was never looked up must not become NaN."""
    run = run_of(specs.Adam(lr=0.1, eps=0.0), np.ones(3, np.float32), [[0.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert run.weights[0] == 1.0
    assert np.isfinite(run.weights).all()


def test_the_first_step_of_adam_is_the_learning_rate() -> None:
    """m/(1 - β1) = g and v/(1 - β2) = g²: whatever the gradient, |step| = lr. Uncorrected it is √10 lr."""
    g = np.array([1e-3, -5.0, 1e4])
    corrected = run_of(specs.Adam(lr=0.01, eps=0.0), np.zeros(3), [g])
    assert np.abs(corrected.weights) == pytest.approx([0.01] * 3, rel=1e-13)
    uncorrected = run_of(specs.Adam(lr=0.01, eps=0.0, bias_correction=False), np.zeros(3), [g])
    assert np.abs(uncorrected.weights) == pytest.approx([0.01 * math.sqrt(10)] * 3, rel=1e-13)


def test_no_step_of_adam_is_longer_than_its_bound() -> None:
    """lr (1 - β1) / sqrt((1 - β2)(1 - β1²/β2)) = 7.27 lr, by Cauchy-Schwarz; growing gradients come close to it."""
    beta1, beta2, lr = 0.9, 0.999, 0.01
    bound = lr * (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
    quiet_then_loud = [0.0] * 6000 + [(beta2 / beta1) ** i for i in range(100)]
    random = np.random.default_rng(4)
    wild = random.standard_normal(len(quiet_then_loud)) * np.exp(4 * random.standard_normal(len(quiet_then_loud)))
    run = Updates(specs.Adam(lr=lr, eps=0.0), np.zeros(2))
    longest = np.zeros(2)
    for g in zip(quiet_then_loud, wild, strict=True):
        before = run.weights
        run.step(g)
        longest = np.maximum(longest, np.abs(run.weights - before))
    assert (longest <= bound).all()
    assert longest[0] > 0.9 * bound


def test_momentum_reaches_its_terminal_velocity() -> None:
    """Under a constant gradient a step tends to lr g / (1 - μ): ten times the plain one for μ = 0.9."""
    for spec in (specs.Sgd(lr=0.01, momentum=0.9), specs.Sgd(lr=0.01, momentum=0.9, lr_in_momentum=True)):
        run = run_of(spec, np.zeros(1), [[2.0]] * 400)
        before = run.weights[0]
        run.step([2.0])
        assert before - run.weights[0] == pytest.approx(0.01 * 2.0 / (1 - 0.9), rel=1e-12)


def test_the_first_velocity_is_the_gradient_even_with_dampening() -> None:
    """torch's convention; from the second update on (1 - dampening) counts."""
    run = Updates(specs.Sgd(lr=0.1, momentum=0.5, dampening=0.75), np.zeros(1))
    run.step([8.0])
    assert run.slots["velocity"][0] == 8.0
    run.step([8.0])
    assert run.slots["velocity"][0] == 0.5 * 8.0 + 0.25 * 8.0


def test_both_forms_of_momentum_walk_the_same_way_at_a_constant_lr() -> None:
    """With a schedule they differ: the Keras form keeps the old lr in the velocity."""
    for nesterov in (False, True):
        inside = specs.Sgd(lr=0.1, momentum=0.9, nesterov=nesterov, lr_in_momentum=True)
        outside = specs.Sgd(lr=0.1, momentum=0.9, nesterov=nesterov)
        gradients = np.random.default_rng(0).standard_normal((20, 7))
        left, right = run_of(inside, np.ones(7), gradients), run_of(outside, np.ones(7), gradients)
        assert left.weights == pytest.approx(right.weights, rel=1e-12)
        assert left.slots["velocity"] == pytest.approx(-0.1 * right.slots["velocity"], rel=1e-12)
        left.step(gradients[0], lr=0.01)
        right.step(gradients[0], lr=0.01)
        assert left.weights != pytest.approx(right.weights, rel=1e-3)


def test_momentum_zero_is_plain_descent_and_adamw_without_decay_is_adam() -> None:
    """One rule reduces to another, bit for bit."""
    gradients = normal(1, 5, 20)
    plain = run_of(specs.Sgd(lr=0.1), normal(0, 20), gradients)
    resting = run_of(specs.Sgd(lr=0.1, momentum=0.0, dampening=0.5), normal(0, 20), gradients)
    assert plain.state == resting.state
    adam = run_of(specs.Adam(lr=0.1, eps=1e-6), normal(0, 20), gradients)
    adamw = run_of(specs.AdamW(lr=0.1, eps=1e-6, weight_decay=0.0), normal(0, 20), gradients)
    assert adam.state == adamw.state


def test_decoupled_decay_shrinks_weights_and_l2_decay_passes_through_the_rule() -> None:
    """Without a gradient AdamW multiplies by 1 - lr λ; in Adam L2 decay is normalised into a step of lr."""
    weights = np.array([4.0, 1.0])
    assert run_of(specs.AdamW(lr=0.1, weight_decay=0.5), weights, [[0.0, 0.0]]).weights == pytest.approx(weights * 0.95)
    coupled = run_of(specs.Adam(lr=0.1, weight_decay=0.5, eps=0.0), weights, [[0.0, 0.0]])
    assert coupled.weights == pytest.approx(weights - 0.1)
    climbing = run_of(specs.Sgd(lr=0.1, weight_decay=0.5, maximize=True), weights, [[1.0, 1.0]])
    assert climbing.weights == pytest.approx(weights + 0.1 * (1.0 - 0.5 * weights))  # decay always pulls to zero


@pytest.mark.parametrize("fields", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}], ids=str)
def test_both_forms_of_rmsprops_momentum_walk_the_same_way_at_a_constant_lr(fields: dict[str, Any]) -> None:
    """torch's and Keras': with a schedule they differ."""
    gradients = np.random.default_rng(0).standard_normal((20, 7))
    left = run_of(specs.RmsProp(lr=0.1, lr_in_momentum=True, **fields), np.ones(7), gradients)
    right = run_of(specs.RmsProp(lr=0.1, **fields), np.ones(7), gradients)
    assert left.weights == pytest.approx(right.weights, rel=1e-12)
    left.step(gradients[0], lr=0.01)
    right.step(gradients[0], lr=0.01)
    assert left.weights != pytest.approx(right.weights, rel=1e-3)


@each
def test_second_moments_are_never_negative_and_the_largest_never_falls(spec: Any) -> None:
    """v ≥ 0, max v non-decreasing."""
    run, largest = Updates(spec, normal(0, 20)), np.zeros(20, np.float32)
    for g in normal(1, 30, 20):
        run.step(g)
        for name in ("exp_avg_sq", "square_avg", "sum", "exp_inf"):
            assert (run.slots.get(name, largest) >= 0).all()
        assert (run.slots.get("max_exp_avg_sq", largest) >= largest).all()
        largest = run.slots["max_exp_avg_sq"].copy() if "max_exp_avg_sq" in run.slots else largest


def test_a_tiny_clip_factor_does_not_lose_the_second_moment() -> None:
    """The factor is applied before the square: (1 - β2) k² alone would underflow in float32."""
    from gradserve_service.core.gradient import Gradient, Span

    g = np.full(4, 4e18, np.float32)  # the norm is near the largest that passes
    run = Updates(specs.Adam(lr=0.1), np.zeros(4, np.float32), [specs.GlobalNorm(max_norm=1e-3)])
    run.step(Gradient(g, (Span(0, 0, 4),), 4 * 16e36, True))
    assert run.weights == pytest.approx([-0.1] * 4, rel=1e-4)


@pytest.mark.parametrize("exponent", [-20, -3, 1, 12])
@pytest.mark.parametrize(
    "spec",
    [
        specs.Adagrad(lr=0.1, eps=0.0),
        specs.RmsProp(lr=0.1, eps=0.0, bias_correction=True),
        specs.RmsProp(lr=0.1, eps=0.0, momentum=0.9, centered=True),
        specs.Adamax(lr=0.1, eps=0.0),
        specs.Nadam(lr=0.1, eps=0.0),
        specs.Nadam(lr=0.1, eps=0.0, variant="constant"),
    ],
    ids=label,
)
def test_without_eps_a_normalised_step_does_not_see_the_scale_of_the_gradient(spec: Any, exponent: int) -> None:
    """A power of two on the gradient, from the first update on: the same bits of weights."""
    gradients = normal(9, 5, 15)
    plain = run_of(spec, normal(5, 15), gradients)
    scaled = run_of(spec, normal(5, 15), gradients * np.float32(2.0**exponent))
    assert plain.weights.tobytes() == scaled.weights.tobytes()


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adamax", "nadam"])
def test_without_eps_untouched_weights_stay_where_they_are(name: str) -> None:
    """0 / 0 is no step."""
    spec = specs.RunSpec.model_validate({"optimizer": {"name": name, "eps": 0.0}}).optimizer
    run = run_of(spec, np.ones(3, np.float32), [[0.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert run.weights[0] == 1.0
    assert np.isfinite(run.weights).all()


def test_the_rates_of_adagrad_never_rise() -> None:
    """lr / (sqrt(h) + eps), element by element; under a constant gradient the t-th step is lr / sqrt(t)."""
    run, rate = Updates(specs.Adagrad(lr=0.1), normal(0, 20)), np.full(20, np.inf, np.float32)
    for g in normal(1, 50, 20):
        run.step(g)
        now = np.float32(0.1) / (np.sqrt(run.slots["sum"]) + np.float32(1e-10))
        assert (now <= rate).all()
        rate = now
    constant = Updates(specs.Adagrad(lr=0.1, eps=0.0), np.zeros(1))
    for t in range(1, 101):
        before = constant.weights[0]
        constant.step([3.0])
        assert before - constant.weights[0] == pytest.approx(0.1 / math.sqrt(t), rel=1e-12)


def test_the_rate_of_adagrad_decays_as_inverse_time() -> None:
    """lr_decay is the schedule inverse_time inside the rule: k = t - 1."""
    gradients = np.random.default_rng(0).standard_normal((20, 5))
    inside = run_of(specs.Adagrad(lr=0.1, lr_decay=0.2), np.ones(5), gradients)
    outside = Updates(specs.Adagrad(lr=0.1), np.ones(5))
    for k, g in enumerate(gradients):
        outside.step(g, lr=0.1 / (1 + 0.2 * k))
    assert inside.weights == pytest.approx(outside.weights, rel=1e-14)


def test_the_step_of_rmsprop_tends_to_the_rate_under_a_constant_gradient() -> None:
    """v tends to g²; corrected it is g² from the first update on; centered, the step outgrows every bound but eps."""
    run = Updates(specs.RmsProp(lr=0.01, alpha=0.9, eps=0.0), np.zeros(1))
    corrected = Updates(specs.RmsProp(lr=0.01, alpha=0.9, eps=0.0, bias_correction=True), np.zeros(1))
    for t in range(1, 401):
        run.step([-2.0])
        corrected.step([-2.0])
        assert corrected.weights[0] == pytest.approx(0.01 * t, rel=1e-12)
    before = run.weights[0]
    run.step([-2.0])
    assert run.weights[0] - before == pytest.approx(0.01, rel=1e-12)


def test_centered_rmsprop_stays_finite_where_torchs_does_not() -> None:
    """A constant gradient: v - a² goes to zero and, by rounding, below. In torch the first NaN comes at update 1209."""
    run = Updates(specs.RmsProp(lr=0.01, centered=True), np.zeros(1000, np.float32))
    g = normal(0, 1000)
    for _ in range(1500):
        run.step(g)
    assert np.isfinite(run.weights).all()


def test_the_step_of_adamax_is_at_most_the_rate() -> None:
    """|m / (1 - β1^t)| is a mean of gradients and u ≥ β2^j |g| of each: |step| ≤ lr where β2 is nearly 1."""
    spec = specs.Adamax(lr=0.01, eps=0.0, beta2=1 - 1e-12)
    random = np.random.default_rng(4)
    run = Updates(spec, np.zeros(50))
    for g in random.standard_normal((200, 50)) * np.exp(4 * random.standard_normal((200, 50))):
        before = run.weights
        run.step(g)
        assert (np.abs(run.weights - before) <= 0.01 * (1 + 1e-9)).all()
        assert (run.slots["exp_inf"] >= np.abs(g)).all()


def test_nadam_without_momentum_is_rmsprop_with_correction() -> None:
    """β1 = 0: n = g in both variants, v / (1 - β2^t) below it."""
    gradients = np.random.default_rng(0).standard_normal((20, 5))
    rmsprop = run_of(specs.RmsProp(lr=0.1, alpha=0.9, bias_correction=True), np.ones(5), gradients)
    for variant in ("dozat", "constant"):
        nadam = run_of(specs.Nadam(lr=0.1, beta1=0.0, beta2=0.9, variant=variant), np.ones(5), gradients)
        assert nadam.weights == pytest.approx(rmsprop.weights, rel=1e-12)


def test_the_momentum_of_nadam_rises_from_half_beta1_to_beta1() -> None:
    """μ(t) = β1 (1 - 0.96^(t ψ) / 2); with ψ = 0 it is β1 / 2 for ever, and the product is its power."""
    run = Updates(specs.Nadam(momentum_decay=0.0, beta1=0.5), np.zeros(1))
    for t in range(1, 11):
        run.step([1.0])
        assert run.memory["mu_product"] == 0.25**t
    late = Updates(specs.Nadam(momentum_decay=1.0, beta1=0.5), np.zeros(1))
    late.updates = 10_000
    late.step([1.0])
    assert late.memory["mu_product"] == 0.5


@given(st.floats(0, 800))
@settings(max_examples=200, deadline=None)
def test_the_exponential_is_right_to_the_last_places_of_one(x: float) -> None:
    """e^-x without the C library, the same on every machine."""
    assert decaying_exponential(x) == pytest.approx(math.exp(-x), rel=1e-12, abs=2e-15)
    assert abs(decaying_exponential(x) - math.exp(-x)) <= 2e-15


def test_the_exponential_at_its_ends() -> None:
    """e^0 is 1 exactly, e^-∞ nothing, e^-RATE 0.96."""
    assert decaying_exponential(0.0) == 1.0
    assert decaying_exponential(1e300) == 0.0
    assert decaying_exponential(RATE) == pytest.approx(0.96, rel=1e-15)


def test_a_schedules_momentum_is_passed_over_by_a_rule_that_has_none() -> None:
    """one_cycle beside Adagrad or RMSprop without velocity: the rate cycles, nothing else."""
    for spec in (specs.Adagrad(), specs.RmsProp(), specs.RmsProp(centered=True), specs.Sgd()):
        cycled, plain = Updates(spec, np.ones(3)), Updates(spec, np.ones(3))
        cycled.step([1.0, 2.0, 3.0], momentum=0.5)
        plain.step([1.0, 2.0, 3.0])
        assert cycled.state == plain.state


@each
def test_a_quadratic_falls_tenfold(spec: Any) -> None:
    """Every optimizer goes downhill (uphill where asked): catches any sign that is wrong."""
    sign = -1.0 if spec.maximize else 1.0
    curvature = np.linspace(0.1, 1.0, 10)
    lr = {"adagrad": 0.5, "adadelta": 20.0, "simplified_ademamix": 5e-3, "ftrl": 1.0}.get(spec.name, 0.05)
    run = Updates(spec.model_copy(update={"lr": lr, "weight_decay": 0.0}), np.linspace(-1, 1, 10))
    first = float((curvature * run.weights**2).sum())
    for _ in range(300):
        run.step(sign * curvature * run.weights)
    assert float((curvature * run.weights**2).sum()) < first / 10
