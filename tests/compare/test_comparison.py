"""What the comparison measures: the same numbers every time, of the server's own rules."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from gradserve.problems import Rejection
from gradserve.specs import OPTIMIZERS, RunSpec
from gradserve_service.compare import comparison
from gradserve_service.compare.comparison import Row, compare, every_optimizer, optimizer_called
from gradserve_service.compare.in_memory import InMemoryRun, Refusal
from gradserve_service.compare.picture import spread
from gradserve_service.compare.table import legend
from gradserve_service.compare.trial import HIDDEN, Problem, Trial, train
from gradserve_service.core.optimizers import rule_for
from gradserve_service.demo.digits import CLASSES, PIXELS
from gradserve_service.demo.mlp import initial_parameters, loss_and_gradients

# It divides by the spread of the update before: where a pixel was dark in the first batch that is nothing but eps.
UNSTEADY = {"acprop"}
QUICKER = {"shampoo": {"precondition_frequency": 10}}  # as it is meant to be used: not roots at every update


@pytest.fixture(scope="module")
def problem():
    return Problem.of(updates=60, batch_size=32, seed=3)


def trial(lr, loss, curve=()):
    """A training that nobody ran."""
    return Trial(lr, ((0, 2.5), *curve, (100, loss)), loss, 0.5, not math.isfinite(loss), 4.0, 1.0)


def row(*trials, default=0):
    return Row("some", trials, trials[default], target=0.1)


def test_a_training_is_the_loop_that_one_writes_at_home(problem):
    """Plain SGD through the machine gives w ← w − lr · g over the same batches."""
    trained = train(problem, optimizer_called("sgd", 0.5))
    weights = initial_parameters(PIXELS, HIDDEN, CLASSES, problem.seed)
    for x, t in problem.batches():
        _, gradients = loss_and_gradients(weights, x, t)
        weights = {name: value - np.float32(0.5) * gradients[name] for name, value in weights.items()}
    loss, _ = loss_and_gradients(weights, problem.digits.train_x, problem.digits.train_t)
    assert trained.curve[-1] == (60, pytest.approx(loss, rel=1e-4))


def test_every_optimizer_that_is_built_is_compared():
    assert set(OPTIMIZERS.built) < set(every_optimizer())


@pytest.mark.parametrize("name", every_optimizer())
def test_every_optimizer_trains_and_its_memory_is_that_of_its_slots(problem, name):
    trained = train(problem, optimizer_called(name).model_copy(update=QUICKER.get(name, {})))
    if name not in UNSTEADY:
        assert not trained.diverged
        assert trained.curve[-1][1] < trained.curve[0][1]
    shapes = [tensor.shape for tensor in initial_parameters(PIXELS, HIDDEN, CLASSES, problem.seed).values()]
    parameters = sum(map(math.prod, shapes))
    kept = 4 * (parameters + slot_elements(name, shapes))
    assert trained.bytes_a_parameter == pytest.approx(kept / parameters, rel=1e-12)
    assert trained.microseconds > 0


def slot_elements(name, shapes):
    """What the rule says that it keeps: a vector as long as the weights, or a shape of its own for each tensor."""
    elements = 0
    for slot in rule_for(optimizer_called(name)).slots:
        kept = shapes if slot.shape is None else [slot.shape(shape) for shape in shapes]
        elements += sum(math.prod(shape) for shape in kept if shape is not None)
    return elements


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(problem):
    """Times aside: they are the only thing that a machine adds."""
    first, second, other = (
        untimed(compare(which, ["sgd", "adam"], [0.01, 0.1], 0.5, 1).to_json())
        for which in (problem, Problem.of(60, 32, 3), Problem.of(60, 32, 4))
    )
    assert first == second
    assert first["optimizers"] != other["optimizers"]


def untimed(table):
    rows = [{**row, "microseconds_an_update": 0} for row in table["optimizers"]]
    return {**table, "optimizers": rows}


def test_too_large_a_rate_is_diverged_and_not_an_error(problem):
    trained = train(problem, optimizer_called("rmsprop", 100.0))
    assert trained.diverged
    assert math.isnan(trained.loss)


def test_a_gradient_that_the_run_does_not_take_is_not_passed_over():
    first = {"w": np.zeros(3, np.float32)}
    run = InMemoryRun(RunSpec.model_validate({"optimizer": "adam"}), first)
    with pytest.raises(Refusal) as caught:
        run.push({"w": np.array([1, np.nan, 0], np.float32)}, 1.0, 1)
    assert caught.value.code == "non-finite-gradient"


def test_one_that_cannot_be_compared_is_named_and_the_others_go_on(problem, monkeypatch):
    """A push that is refused, a declaration without a rate."""

    class Rateless(RunSpec):
        """Something without `lr`."""

    called, trained = comparison.optimizer_called, comparison.train

    def refusing(problem, optimizer):
        if optimizer.name == "adam":
            raise Refusal(Rejection("validation-error", "not this one"))
        return trained(problem, optimizer)

    monkeypatch.setattr(comparison, "train", refusing)
    monkeypatch.setattr(
        comparison,
        "optimizer_called",
        lambda name, lr=None: Rateless.model_construct() if name == "rmsprop" else called(name, lr),
    )
    result = compare(problem, ["adam", "rmsprop", "sgd"], [0.1], 0.1, 1)
    assert [row.name for row in result.rows] == ["sgd"]
    assert result.left_out == (("adam", "not this one"), ("rmsprop", "it has no learning rate"))
    assert [each["name"] for each in result.to_json()["left_out"]] == ["adam", "rmsprop"]
    assert legend(result).endswith(
        "Not compared: adam (not this one). Not compared: rmsprop (it has no learning rate)."
    )


def test_a_grid_whose_end_is_the_best_goes_on(problem):
    """SGD likes more than 0.01: it is not judged there."""
    [sgd] = compare(problem, ["sgd"], [0.001, 0.01], 0.1, 1).rows
    assert [each.lr for each in sgd.trials] == [0.001, 0.01, 0.1, 1.0, 10.0]
    assert sgd.best.lr == 1.0


def test_the_rates_that_reach_the_target_are_the_stretch_around_the_best():
    """A rate beyond a gap does not widen it."""
    reached = ((50, 0.05),)
    some = row(
        trial(1e-4, 0.09, reached), trial(1e-3, 0.5), trial(1e-2, 0.05), trial(0.1, 0.01), trial(1, 0.2, reached),
        trial(10, math.nan),
    )  # fmt: skip
    assert some.best.lr == 0.1
    assert some.reaching == (1e-2, 1)
    assert some.to_json()["decades_reaching_target"] == 2.0


def test_what_never_reaches_the_target_says_so():
    some = row(trial(0.01, 0.5), trial(0.1, 0.3))
    assert some.reaching is None
    assert some.best.updates_to(0.1) is None


def test_lost_are_the_larger_rates_that_know_no_more_than_a_guess():
    """A rate too small to have learned yet is not lost."""
    some = row(trial(1e-4, 2.4), trial(0.1, 0.2), trial(1, 2.31), trial(10, math.nan), trial(100, 1.0))
    assert some.lost == 2


def test_of_equally_good_rates_the_one_nearest_to_the_default_is_the_best():
    some = row(trial(0.01, 0.2), trial(0.1, 0.2), trial(1, 0.2), default=1)
    assert some.best.lr == 0.1


def test_names_in_the_picture_do_not_touch():
    """They keep their order and stay inside, and move no more than they must."""
    assert spread([0.1, 0.5], 0.1) == [0.1, 0.5]
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    moved = spread([0.0, 0.0, 0.05, 0.98, 1.0], 0.1)
    assert moved == sorted(moved)
    assert min(b - a for a, b in itertools.pairwise(moved)) >= 0.1 - 1e-9
    assert moved[0] >= 0
    assert moved[-1] <= 1
