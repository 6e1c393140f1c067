"""The project's source documents, row by row: what they say of optimizers, schedules and losses holds here.

Documents: 000 optimization functions, 001 loss functions and optimizers, 002 training deep networks faster, 003
gradient descent. Each test names its row, in brackets. Rows about a running service: `test_service.py`; the list of all
rows: `rows.txt`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from core.running import Updates, read_only
from gradserve import losses, specs
from gradserve.specs import OPTIMIZERS, RunSpec
from gradserve_service.core.optimizers import RULES, rule_for
from gradserve_service.core.plateau import PlateauState, after_report, rate
from gradserve_service.core.schedules import resolve
from gradserve_service.demo.digits import batches

W0, G = [0.5, -0.3], [0.2, -0.4]  # the documents' sample weights and gradient


def optimizer(given: Any) -> Any:
    return RunSpec.model_validate({"optimizer": given}).optimizer


def walk(given: Any, updates: int, g: Any = G, w0: Any = W0) -> Any:
    """Weights after some updates with the same gradient, in float64."""
    run = Updates(optimizer(given), np.array(w0, np.float64))
    for _ in range(updates):
        run.step(g)
    return run.weights


def lr_at(given: Any, k: int, lr: float = 0.1) -> float:
    schedule = RunSpec.model_validate({"optimizer": "sgd", "schedule": given}).schedule
    return resolve(schedule, lr, k)[0]


# ---------------------------------------------------------------------------------- 000, optimization functions


def test_000_base_rule() -> None:
    """[A.1 base rule] w <- w - eta dL/dw."""
    assert walk({"name": "sgd", "lr": 0.25}, 1) == pytest.approx([0.5 - 0.25 * 0.2, -0.3 + 0.25 * 0.4], abs=1e-16)


def test_000_sgd() -> None:
    """[A.1 SGD] `w - lr*grad`, lr 0.01."""
    assert walk({"name": "sgd", "lr": 0.01}, 1) == pytest.approx([0.498, -0.296], abs=1e-15)


def test_000_sgd_summary() -> None:
    """[A.1 SGD (summary)] One sample, one gradient, one update: the rule does not change."""
    rows = np.array([[0.2, -0.4], [0.1, 0.3], [-0.5, 0.0]])
    run = Updates(optimizer({"name": "sgd", "lr": 0.01}), np.array(W0))
    for g in rows:
        run.step(g)
    assert run.updates == 3
    assert run.weights == pytest.approx(np.array(W0) - 0.01 * rows.sum(axis=0), abs=1e-15)


def test_000_momentum() -> None:
    """[A.1 Momentum]
    `v = momentum*v - lr*grad; w += v`, in the document's form; torch's walks the same way at a constant lr."""
    v, w = np.zeros(2), np.array(W0)
    for _ in range(5):
        v = 0.9 * v - 0.01 * np.array(G)
        w = w + v
    given = {"name": "momentum", "lr": 0.01}
    assert walk({**given, "lr_in_momentum": True}, 5) == pytest.approx(w, abs=1e-15)
    assert walk(given, 5) == pytest.approx(w, abs=1e-15)


def test_000_adagrad() -> None:
    """[A.1 AdaGrad] `h += g**2; w -= lr/(sqrt(h)+eps)*g`; lr .01, eps 1e-8 beside the root."""
    given = {"name": "adagrad", "lr": 0.01, "eps": 1e-8, "initial_accumulator_value": 0, "eps_in_sqrt": False}
    assert walk(given, 3) == pytest.approx([0.47715543041290487, -0.2771554299545716], abs=1e-15)


def test_000_adagrad_property() -> None:
    """[A.1 AdaGrad property] The steps shrink until learning stops: the rate lr / (sqrt(h) + eps) never rises."""
    path = np.array([walk({"name": "adagrad", "lr": 0.01}, n) for n in range(30)])
    steps = np.abs(np.diff(path, axis=0))
    assert (np.diff(steps, axis=0) < 0).all()


@pytest.mark.parametrize("spelling", ["alpha", "beta", "rho", "decay"])
def test_000_rmsprop(spelling: str) -> None:
    """[A.1 RMSprop] `h = b*h+(1-b)*g**2; w -= lr/(sqrt(h)+eps)*g`; beta .9 under each of its names."""
    given = {"name": "rmsprop", "lr": 0.01, spelling: 0.9, "eps": 1e-8}
    assert walk(given, 3) == pytest.approx([0.4262261907279737, -0.2262261859896759], abs=1e-15)


def test_000_adam_function() -> None:
    """[A.1 Adam (function)]
    Both moments corrected, eps beside the root, lr .01; t is counted here, from 1, and nobody sends it."""
    assert walk({"name": "adam", "lr": 0.01}, 3) == pytest.approx([0.4700000015, -0.27000000075], abs=1e-15)
    with pytest.raises(ValueError, match="came 't'"):
        optimizer({"name": "adam", "t": 3})


def test_000_adam_summary() -> None:
    """[A.1 Adam (summary)]
    `w - lr*m/(sqrt(v)+eps)` without correction: the first step is (1 - b1)/sqrt(1 - b2) = 3.162 times lr."""
    given = {"name": "adam", "lr": 0.01, "bias_correction": False}
    assert walk(given, 3) == pytest.approx([0.3763790957793151, -0.17637902441163256], abs=1e-15)
    assert np.abs(walk(given, 1) - W0) == pytest.approx(3.162 * 0.01, rel=1e-4)


def test_000_state_is_explicit() -> None:
    """[A.1 h, v, m, t as explicit state] h, v and m stand beside the weights under known names, and start from zero."""
    names = {"momentum": ["velocity"], "adagrad": ["sum"], "rmsprop": ["square_avg"], "adam": ["exp_avg", "exp_avg_sq"]}
    for name, slots in names.items():
        assert [(slot.name, slot.initial) for slot in rule_for(optimizer(name)).slots] == [(s, 0.0) for s in slots]


def test_000_snippets_change_the_callers_arrays() -> None:
    """`w += v` in the document; here what was handed in is only read."""
    run, g = Updates(optimizer("momentum"), np.array(W0)), np.array(G)
    run.step(read_only(g))
    assert g.tolist() == G


def test_000_comparison_table_1() -> None:
    """[A.1 comparison table 1] Memory in numbers: slots of 4 bytes a parameter. SGD none, Momentum one, Adam two."""
    slots = {name: len(rule_for(optimizer(name)).slots) for name in ("sgd", "momentum", "adam")}
    assert slots == {"sgd": 0, "momentum": 1, "adam": 2}


def test_000_comparison_table_2() -> None:
    """[A.1 comparison table 2]
    Momentum, AdaGrad and RMSprop hold one slot each, whatever the table says of little and middling."""
    assert {len(rule_for(optimizer(name)).slots) for name in ("momentum", "adagrad", "rmsprop")} == {1}
    for name in RULES:
        entry = OPTIMIZERS.built[name].catalogue_entry()
        assert all(entry[key] for key in ("summary", "formula", "hyperparameters", "source", "use_when"))


def test_000_sparse_features() -> None:
    """[A.1 concepts]
    AdaGrad keeps large steps for rare parameters; it never raises a rate, it only lowers it more slowly."""
    run = Updates(optimizer({"name": "adagrad", "lr": 0.1}), np.zeros(2))
    for t in range(100):
        before = run.weights
        run.step([1.0, 1.0 if t % 25 == 24 else 0.0])
    often, rarely = np.abs(run.weights - before)
    assert rarely == pytest.approx(0.1 / 2, rel=1e-9)  # its fourth gradient
    assert often == pytest.approx(0.1 / 10, rel=1e-9)  # its hundredth


# ------------------------------------------------------------------------- 001, loss functions and optimizers


def test_001_regression_and_classification() -> None:
    """[A.2 regression -> MSE, classification -> cross-entropy]
    Regression with MSE and classification with cross-entropy, both by plain gradient descent, both learn."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3))
    line, classes = x @ [1.0, -2.0, 3.0], np.eye(2)[(x[:, 0] > 0).astype(int)]
    regression = Updates(optimizer({"name": "sgd", "lr": 0.1}), np.zeros(3))
    classifier = Updates(optimizer({"name": "sgd", "lr": 0.1}), np.zeros(6))
    first: list[float] = []
    for _ in range(100):
        error, slope = losses.mse(x @ regression.weights, line)
        loss, logits = losses.softmax_cross_entropy(x @ classifier.weights.reshape(3, 2), classes)
        first = first or [error, loss]
        regression.step(x.T @ slope)
        classifier.step((x.T @ logits / 64).ravel())
    assert error < first[0] / 1000
    assert loss < first[1] / 2


def test_001_learning_rate() -> None:
    """[A.2 gradient descent; learning rate too large / too small]
    Too small hardly moves, too large diverges, a negative one is refused and zero is allowed."""
    ends = {}
    for lr in (1e-5, 0.5, 2.5):
        run = Updates(optimizer({"name": "sgd", "lr": lr}), np.ones(1))
        for _ in range(50):
            run.step(run.weights)  # the gradient of w²/2
        ends[lr] = abs(float(run.weights[0]))
    assert ends[1e-5] > 0.99
    assert ends[0.5] < 1e-10
    assert ends[2.5] > 1e6
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        optimizer({"name": "sgd", "lr": -0.1})
    assert optimizer({"name": "sgd", "lr": 0}).lr == 0.0


@pytest.mark.parametrize(("batch_size", "updates"), [(100, 1), (1, 100), (32, 4)])
def test_001_batch_stochastic_and_mini_batch(batch_size: int, updates: int) -> None:
    """`batch_size=len(trainX)`, `batch_size=1`, `batch_size=32`: updates of one epoch of 100 samples."""
    assert updates_of_epoch(100, batch_size) == updates


def updates_of_epoch(samples: int, batch_size: int) -> int:
    x = np.zeros((samples, 1), np.float32)
    run = Updates(optimizer("sgd"), np.zeros(1))
    for rows, _ in batches(x, x[:, 0], batch_size, np.random.default_rng(0)):
        run.step(rows.mean(axis=0))
    return run.updates


def test_001_momentum_adds_the_previous_direction() -> None:
    """[A.2 Momentum] The second step is the gradient's step and 0.9 of the first one."""
    one, two = (walk({"name": "momentum", "lr": 0.1}, n, [1.0], [0.0])[0] for n in (1, 2))
    assert two - one == pytest.approx(0.9 * one + one, rel=1e-15)


def test_001_adam_of_keras() -> None:
    """[A.2 Adam]
    `keras.optimizers.Adam(lr=0.001, beta_1=0.9, beta_2=0.999, epsilon=None, decay=0.0, amsgrad=False)`, as JSON."""
    config = {"lr": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": None, "decay": 0.0, "amsgrad": False}
    spec = RunSpec.model_validate({"optimizer": {"class_name": "Adam", "config": config}})
    assert spec.schedule is None
    # Keras 2: lr_t = lr sqrt(1 - b2^t) / (1 - b1^t);  p -= lr_t m / (sqrt(v) + 1e-7)
    m, v, w = np.zeros(2), np.zeros(2), np.array(W0)
    run = Updates(spec.optimizer, np.array(W0))
    for t in range(1, 6):
        m, v = 0.9 * m + 0.1 * np.array(G), 0.999 * v + 0.001 * np.square(G)
        w = w - 0.001 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
        run.step(G)
        assert run.weights == pytest.approx(w, abs=1e-15)


def test_001_decay_of_keras() -> None:
    """[A.2 Adam] `decay=0.01`: lr / (1 + 0.01 iterations), iterations from 0; amsgrad keeps a third slot."""
    config = {"lr": 0.001, "decay": 0.01, "amsgrad": True}
    spec = RunSpec.model_validate({"optimizer": {"class_name": "Adam", "config": config}})
    for k in (0, 1, 100):
        assert resolve(spec.schedule, spec.optimizer.lr, k)[0] == pytest.approx(0.001 / (1 + 0.01 * k), rel=1e-15)
    assert [slot.name for slot in rule_for(spec.optimizer).slots][2] == "max_exp_avg_sq"


# ------------------------------------------------------------------- 002, training deep networks faster


def keras_call(class_name: str, **config: Any) -> Any:
    """The document writes `keras.optimizers.SGD(lr=0.001, …)`; here the same as JSON."""
    return optimizer({"class_name": class_name, "config": config})


def test_002_momentum() -> None:
    """[A.3 002 Momentum]
    `SGD(lr=0.001, momentum=0.9)`; under a constant gradient a step tends to lr g / (1 - 0.9), ten plain ones."""
    spec = keras_call("SGD", lr=0.001, momentum=0.9)
    assert spec == specs.Sgd(lr=0.001, momentum=0.9, lr_in_momentum=True, weight_decay_mode="decoupled")
    run = Updates(spec, np.zeros(1))
    for _ in range(400):
        before = float(run.weights[0])
        run.step([2.0])
    assert (before - float(run.weights[0])) / (0.001 * 2.0) == pytest.approx(10.0, rel=1e-4)


def test_002_nag() -> None:
    """[A.3 002 NAG] `SGD(lr=0.001, momentum=0.9, nesterov=True)`: v <- mu v - lr g, then w += mu v - lr g."""
    run = Updates(keras_call("SGD", lr=0.001, momentum=0.9, nesterov=True), np.array(W0))
    v, w = np.zeros(2), np.array(W0)
    for _ in range(5):
        v = 0.9 * v - 0.001 * np.array(G)
        w = w + 0.9 * v - 0.001 * np.array(G)
        run.step(G)
        assert run.weights == pytest.approx(w, abs=1e-15)


def test_002_adagrad() -> None:
    """[A.3 002 AdaGrad] `Adagrad(lr=0.001)`: the sum starts at 0.1, eps 1e-7 under the root."""
    run = Updates(keras_call("Adagrad", lr=0.001), np.array(W0))
    run.step(G)
    g = np.array(G)
    assert run.weights == pytest.approx(W0 - 0.001 * g / np.sqrt(0.1 + g * g + 1e-7), abs=1e-16)


def test_002_rmsprop() -> None:
    """[A.3 002 RMSProp] `RMSprop(lr=0.001, rho=0.9)`: eps 1e-7 under the root."""
    run = Updates(keras_call("RMSprop", lr=0.001, rho=0.9), np.array(W0))
    run.step(G)
    g = np.array(G)
    assert run.weights == pytest.approx(W0 - 0.001 * g / np.sqrt(0.1 * g * g + 1e-7), abs=1e-15)


def test_002_adam() -> None:
    """[A.3 002 Adam] `Adam(lr=0.001, beta_1=0.9, beta_2=0.999)`: eps 1e-7 beside the uncorrected root."""
    spec = keras_call("Adam", lr=0.001, beta_1=0.9, beta_2=0.999)
    assert (spec.lr, spec.beta1, spec.beta2, spec.eps, spec.eps_hat) == (0.001, 0.9, 0.999, 1e-7, True)


def test_002_adamax() -> None:
    """[A.3 002 Adamax]
    `Adamax(lr=0.001, beta_1=0.9, beta_2=0.999)`: scaled by the decayed maximum, eps added after it."""
    run = Updates(keras_call("Adamax", lr=0.001, beta_1=0.9, beta_2=0.999), np.array(W0))
    run.step(G)
    run.step(np.array(G) / 100)
    m, u = 0.9 * 0.1 * np.array(G) + 0.1 * np.array(G) / 100, 0.999 * np.abs(G)
    first = W0 - 0.001 * np.array(G) / (np.abs(G) + 1e-7)
    assert run.weights == pytest.approx(first - 0.001 / (1 - 0.81) * m / (u + 1e-7), abs=1e-15)


def test_002_nadam() -> None:
    """[A.3 002 Nadam]
    `Nadam(lr=0.001, beta_1=0.9, beta_2=0.999)`: momentum decay 1 in Keras 3, 0.004 in the Keras of the document."""
    spec = keras_call("Nadam", lr=0.001, beta_1=0.9, beta_2=0.999)
    assert (spec.lr, spec.eps, spec.momentum_decay) == (0.001, 1e-7, 1.0)
    assert keras_call("Nadam", lr=0.001, schedule_decay=0.004).momentum_decay == 0.004


def test_002_power_scheduling() -> None:
    """[A.3 002 power scheduling] lr = lr0 / (1 + steps/s)^c."""
    for k in (0, 20, 40, 500):
        assert lr_at({"name": "power", "s": 20, "c": 2}, k) == pytest.approx(0.1 / (1 + k / 20) ** 2, rel=1e-15)


def test_002_exponential_scheduling() -> None:
    """[A.3 002 exponential scheduling] The source book's lr0 * 0.1^(steps/s): a tenth every s updates."""
    for k in (0, 10, 20, 40, 500):
        expected = 0.1 * 0.1 ** (k / 20)
        assert lr_at({"name": "exponential", "decay_rate": 0.1, "decay_steps": 20}, k) == pytest.approx(
            expected, rel=1e-14
        )


def test_002_piecewise_constant_scheduling() -> None:
    """[A.3 002 piecewise constant] Constant for n epochs, then smaller: 5 epochs at 0.1, 10 at 0.005, then 0.001."""
    given = {"name": "piecewise_constant", "boundaries": [5, 15], "values": [0.1, 0.005, 0.001]}
    assert [lr_at(given, k) for k in (0, 4, 5, 14, 15, 99)] == [0.1, 0.1, 0.005, 0.005, 0.001, 0.001]


def test_002_performance_scheduling() -> None:
    """[A.3 002 performance scheduling]
    Validate every N steps; reduce the rate when the error stops falling: here to half, after 2 bad means of 3."""
    spec = specs.ReduceOnPlateau(style="keras", factor=0.5, patience=2, every=3)
    state, rates = PlateauState(), []
    for value in [1.0] * 3 + [0.5] * 3 + [0.6, 0.5, 0.4] * 4:
        state = after_report(spec, state, value, 0.1)
        rates.append(rate(spec, state, 0.1))
    assert rates == [0.1] * 11 + [0.05] * 6 + [0.025]


def test_002_one_cycle() -> None:
    """[A.3 002 1cycle]
    Half up in a line, half down, the last tenth by orders of magnitude; momentum 0.95, 0.85, 0.95, 0.95."""
    schedule = RunSpec.model_validate(
        {"optimizer": "momentum", "schedule": {"name": "1cycle", "style": "geron", "total_steps": 100, "max_lr": 1.0}}
    ).schedule
    corners = {
        0: (0.1, 0.95),
        22: (0.55, 0.9),
        44: (1.0, 0.85),
        88: (0.1, 0.95),
        94: (0.05005, 0.95),
        100: (1e-4, 0.95),
    }
    for k, expected in corners.items():
        assert resolve(schedule, 0.1, k) == pytest.approx(expected, rel=1e-14)
    assert resolve(schedule, 0.1, 10**6) == resolve(schedule, 0.1, 100)


# --------------------------------------------------------------------------------------- 003, gradient descent


def test_003_gradient_step() -> None:
    """[A.3 003 gradient step] dw = -alpha dE/dw, alpha 0.1 or 0.01 to begin with, and then changed."""
    run = Updates(optimizer({"name": "sgd", "lr": 0.1}), np.array(W0))
    run.step(G)
    run.step(G, lr=0.01)
    assert run.weights == pytest.approx(np.array(W0) - 0.11 * np.array(G), abs=1e-16)


def test_003_too_large_a_rate_oscillates() -> None:
    """[A.3 003 too large lr oscillates]
    At w²/2 and alpha 1.9 the weight changes sides at each step; with a falling rate it settles."""
    run = Updates(optimizer({"name": "sgd", "lr": 1.9}), np.ones(1))
    signs = []
    for _ in range(10):
        run.step(run.weights)
        signs.append(bool(run.weights[0] > 0))
    assert signs == [False, True] * 5
    settled = Updates(optimizer({"name": "sgd", "lr": 1.9}), np.ones(1))
    for k in range(50):
        settled.step(settled.weights, lr=lr_at({"name": "exponential", "decay_rate": 0.9}, k, 1.9))
    assert abs(float(settled.weights[0])) < 1e-9


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(("row", "batch_size", "updates"), [("BGD", 10, 1), ("SGD", 1, 10), ("mini-batch", 4, 3)])
def test_003_update_counts(row: str, batch_size: int, updates: int, epochs: int) -> None:
    """10 samples, n epochs: n updates of the whole batch, 10 n of single samples, ceil(10/k) n of mini-batches."""
    assert sum(updates_of_epoch(10, batch_size) for _ in range(epochs)) == updates * epochs
    assert updates == math.ceil(10 / batch_size)


@pytest.mark.parametrize("name", ["NAG", "RMSprop", "Adam", "Adagrad"])
def test_003_variants(name: str) -> None:
    """[A.3 003 variants] Each of them is there, and each lowers a square."""
    assert np.abs(walk({"name": name, "lr": 0.01}, 5, W0)).sum() < np.abs(W0).sum()


def test_003_forward_loss_backward() -> None:
    """[A.3 003 forward -> loss -> backward]
    The worker's three steps by hand: prediction, loss, chain rule; the step lowers the loss."""
    x, t = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([1.0, 0.0])
    run = Updates(optimizer({"name": "sgd", "lr": 0.05}), np.array(W0))
    values = []
    for _ in range(3):
        prediction = x @ run.weights
        value, error = losses.half_sse(prediction, t)
        run.step(x.T @ error)
        values.append(value)
    assert values == sorted(values, reverse=True)
