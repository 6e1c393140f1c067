"""The rows of the source documents that are about a running service: a real server, over HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

import gradserve as gs
from gradserve import losses

SAMPLES = 10


def descend(run: gs.Run, gradient: Any, updates: int, **fields: Any) -> gs.Weights:
    """Some pushes of one worker; `gradient` is a dict, or a function of the weights."""
    with run.worker("w0") as worker:
        weights = worker.pull()
        for _ in range(updates):
            weights = worker.step(gradient(weights) if callable(gradient) else gradient, **fields)
    return weights


def linear_problem() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.standard_normal((SAMPLES, 3))
    return x, x @ [1.0, -2.0, 3.0]


def batches(size: int, epochs: int) -> Iterator[tuple[Any, Any]]:
    """Shuffled in each epoch, the last batch smaller where it has to be."""
    x, t = linear_problem()
    random = np.random.default_rng(1)
    for _ in range(epochs):
        order = random.permutation(SAMPLES)
        for start in range(0, SAMPLES, size):
            rows = order[start : start + size]
            yield x[rows], t[rows]


def train(client: gs.Client, name: str, size: int, epochs: int) -> dict[str, Any]:
    """The run after some epochs in batches of one size, losses and samples said."""
    run = client.run(name, init={"w": np.zeros(3)}, optimizer=gs.SGD(0.05), dataset_size=SAMPLES)
    with run.worker("w0") as worker:
        weights = worker.pull()
        for x, t in batches(size, epochs):
            loss, error = losses.mse(x @ weights["w"], t)
            weights = worker.step({"w": x.T @ error}, loss=loss, samples=len(x))
    return run.describe()


# ---------------------------------------------------------------------------------- 000, optimization functions


def test_the_service_repeats_the_adjustment(client: gs.Client, name: str) -> None:
    """[A.1 definition] Push a gradient, pull weights; each adjustment is a version, and the loss falls."""
    run = client.run(name, init={"w": [0.5, -0.3]}, optimizer=gs.SGD(0.25))
    sizes = [float(np.square(run.pull()["w"]).sum())]
    with run.worker("w0") as worker:
        for version in range(1, 4):
            result = worker.push({"w": worker.pull()["w"]})
            assert (result.outcome, result.version) == ("applied", version)
            sizes.append(float(np.square(run.pull()["w"]).sum()))
    assert sizes == sorted(sizes, reverse=True)
    assert run.pull().version == 3


def test_one_sample_is_one_push(client: gs.Client, name: str) -> None:
    """[A.1 SGD (summary)] [A.2 SGD] Async mode: each sample's gradient is an update of its own."""
    description = train(client, name, 1, 1)
    assert (description["updates"], description["samples_seen"]) == (SAMPLES, SAMPLES)


def test_the_rates_of_adagrad_never_rise(client: gs.Client, name: str) -> None:
    """[A.1 AdaGrad property] The statistics show lr / (sqrt(h) + eps): least, median and largest, all falling."""
    run = client.run(name, init={"w": np.zeros(3)}, optimizer=gs.Adagrad(0.1))
    seen = []
    for _ in range(3):
        descend(run, {"w": [1.0, 2.0, 4.0]}, 2)
        seen.append(run.statistics()["effective_lr"])
    for key in ("min", "median", "max"):
        rates = [rates[key] for rates in seen]
        assert rates == sorted(rates, reverse=True)
        assert len(set(rates)) == 3
    assert seen[0]["max"] == pytest.approx(0.1 / math.sqrt(2), rel=1e-6)


def test_the_server_owns_t(client: gs.Client, name: str) -> None:
    """[A.1 Adam (function)] t starts at 1 and is nobody else's: the first step is lr, and a pushed t is refused."""
    run = client.run(name, init={"w": [0.5]}, optimizer=gs.Adam(0.01))
    assert float(descend(run, {"w": [0.2]}, 1)["w"][0]) == pytest.approx(0.49, rel=1e-6)
    assert run.describe()["step"] == 1
    answer = httpx.put(f"{client.url}/v1/runs/{run.name}/workers/w1/pushes/1", json={"gradients": {"w": [0.2]}, "t": 9})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation-error")


def test_state_is_read_and_brought_by_name(client: gs.Client, name: str) -> None:
    """[A.1 h, v, m, t as explicit state] m, v and t are read under their names, and a run can start from such arrays:
    it walks on as the one that they were taken from."""
    first = client.run(name, init={"w": [0.5, -0.3]}, optimizer=gs.Adam(0.01))
    descend(first, {"w": [0.2, -0.4]}, 3)
    state = first.optimizer_state()
    assert set(state) == {"exp_avg/w", "exp_avg_sq/w"}
    assert state["exp_avg/w"] == pytest.approx(np.array([0.2, -0.4]) * (1 - 0.9**3), rel=1e-6)
    first.checkpoint("then")
    answer = httpx.get(f"{client.url}/v1/runs/{name}/checkpoints/then")
    second = client.run(f"{name}-2", init={"w": [0.0, 0.0]}, optimizer=gs.Adam(0.01))
    put = httpx.put(
        f"{client.url}/v1/runs/{second.name}/checkpoints/brought",
        content=answer.content,
        headers={"Content-Type": "application/vnd.safetensors"},
    )
    assert put.status_code == 201, put.text
    assert second.restore("brought")["step"] == 3
    one, two = (descend(run, {"w": [0.1, 0.1]}, 1) for run in (first, second))
    assert one["w"].tobytes() == two["w"].tobytes()


@pytest.mark.parametrize("table", [1, 2])
def test_the_catalogue_has_numbers_for_the_tables_words(client: gs.Client, table: int) -> None:
    """[A.1 comparison table 1] [A.1 comparison table 2] Memory in bytes a parameter, slots and what they mean,
    hyperparameters with bounds: of SGD, Momentum and Adam, and of AdaGrad and RMSprop beside them."""
    items = {item["name"]: item for item in httpx.get(f"{client.url}/v1/optimizers").json()["optimizers"]}
    if table == 1:
        bytes_each = [items["sgd"]["bytes_per_parameter"], items["adam"]["bytes_per_parameter"]]
        assert bytes_each == [4, 12]
        assert items["sgd"]["aliases"]["momentum"]["bytes_per_parameter"] == 8
    else:
        assert {items[each]["bytes_per_parameter"] for each in ("adagrad", "rmsprop")} == {8}
        assert [slot["name"] for slot in items["adam"]["slots"] if not slot["with"]] == ["exp_avg", "exp_avg_sq"]
        assert all(slot["meaning"] for item in items.values() for slot in item["slots"])
        assert items["rmsprop"]["hyperparameters"]["properties"]["alpha"]["exclusiveMaximum"] == 1


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad", "rmsprop", "adam"])
def test_all_optimizers_run_on_the_same_problem(client: gs.Client, name: str, optimizer: str) -> None:
    """[A.1 comparison table 2] The same start and the same data under each of the five: all of them learn.
    (`gradserve compare` prints the whole table.)"""
    x, t = linear_problem()
    run = client.run(name, init={"w": np.zeros(3)}, optimizer={"name": optimizer, "lr": 0.05})
    weights = descend(run, lambda weights: {"w": x.T @ losses.mse(x @ weights["w"], t)[1]}, 100)
    assert losses.mse(x @ weights["w"], t)[0] < losses.mse(np.zeros(SAMPLES), t)[0]


def test_the_history_shows_how_learning_went(client: gs.Client, name: str) -> None:
    """[A.1 concepts] Speed and stability are read from the run's history, one row an update."""
    description = train(client, name, 2, 2)
    history = client.run(name).history()
    assert len(history["version"]) == description["updates"] == 10
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(history["gradient_norm"]).all()
    assert history["lr"].tolist() == [0.05] * 10


# ------------------------------------------------------------------------- 001, loss functions and optimizers


def test_losses_are_stored_and_averaged_by_their_samples(client: gs.Client, name: str) -> None:
    """[A.2 loss] Each push's loss is kept beside its samples: their weighted mean is the loss of the whole pass."""
    x, t = linear_problem()
    run = client.run(name, init={"w": np.zeros(3)}, optimizer=gs.SGD(0.0))
    with run.worker("w0") as worker:
        weights = worker.pull()
        for rows in (slice(0, 7), slice(7, 10)):
            loss, error = losses.mse(x[rows] @ weights["w"], t[rows])
            worker.push({"w": x[rows].T @ error}, loss=loss, samples=len(t[rows]))
    history = run.history(["loss", "samples"])
    assert history["samples"].tolist() == [7, 3]
    whole, _ = losses.mse(x @ np.zeros(3), t)
    assert np.average(history["loss"], weights=history["samples"]) == pytest.approx(whole, rel=1e-6)


def test_a_loss_that_explodes_is_refused(client: gs.Client, name: str) -> None:
    """[A.2 gradient descent; learning rate too large / too small] A rate that is too large ends in numbers that are
    none: the gradient is refused and names the tensor, the weights stay."""
    run = client.run(name, init={"w": [1.0]}, optimizer=gs.SGD(1e30))
    with run.worker("w0") as worker:
        far = worker.step({"w": worker.pull()["w"]})
        with pytest.raises(gs.NonFiniteGradient, match="w"):
            worker.step({"w": far["w"]})
    assert np.isfinite(run.pull()["w"]).all()
    with pytest.raises(gs.ValidationError):
        run.configure(lr=-0.1)


@pytest.mark.parametrize("shards", [2, 3, 10])
def test_shards_weighted_by_their_samples_are_the_whole_batch(client: gs.Client, name: str, shards: int) -> None:
    """[A.2 batch GD] One update of the whole batch; the mean of K shards' gradients, weighted by their samples and
    taken by the worker, is that update. (Rounds in which the server takes the mean of K workers are not built yet.)"""
    x, t = linear_problem()
    w0 = np.array([0.1, 0.2, 0.3])

    def gradient(rows: Any) -> Any:
        return x[rows].T @ losses.mse(x[rows] @ w0, t[rows])[1]

    parts = np.array_split(np.arange(SAMPLES), shards)
    mean = sum(len(rows) * gradient(rows) for rows in parts) / SAMPLES
    ends = []
    for label, each in (("whole", gradient(np.arange(SAMPLES))), ("shards", mean)):
        run = client.run(f"{name}-{label}", init={"w": w0}, optimizer=gs.Adam(0.1))
        ends.append(descend(run, {"w": each}, 1, samples=SAMPLES)["w"])
        assert (run.describe()["updates"], run.describe()["samples_seen"]) == (1, SAMPLES)
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


def test_a_push_says_how_many_samples_it_is_of(client: gs.Client, name: str) -> None:
    """[A.2 mini-batch] `samples: 32` is kept in the history and counted in the run."""
    run = client.run(name, init={"w": np.zeros(3)}, optimizer=gs.SGD(0.1))
    descend(run, {"w": np.ones(3)}, 3, samples=32)
    assert run.history(["samples"])["samples"].tolist() == [32] * 3
    assert run.describe()["samples_seen"] == 96


def test_epochs_are_counted_from_samples(client: gs.Client, name: str) -> None:
    """[A.2 epoch, batch] samples_seen / dataset_size; without a dataset_size there is none."""
    description = train(client, name, 4, 3)
    assert (description["updates"], description["samples_seen"], description["epoch"]) == (9, 30, 3.0)
    assert client.run(f"{name}-2", init={"w": [0.0]}, optimizer="sgd").describe()["epoch"] is None


# ------------------------------------------------------------------- 002, training deep networks faster


def test_vanishing_and_exploding_gradients_are_told(client: gs.Client, name: str) -> None:
    """[A.3 002 gradient vanishing / exploding] Norm, largest value and share of zeros of each tensor; a tensor whose
    norm is under a millionth of the largest one's, and a total far above its running median, are warnings; clipping."""
    run = client.run(name, init={"low": np.zeros(4), "top": np.zeros(2)}, optimizer=gs.SGD(0.0))
    descend(run, {"low": [1e-9, 0.0, 0.0, 0.0], "top": [3.0, -4.0]}, 12)
    statistics = run.statistics()
    low, top = statistics["tensors"]
    assert (low["name"], top["gradient_norm"], top["gradient_max"]) == ("low", 5.0, 4.0)
    assert low["zero_fraction"] == 0.75
    assert low["norm_ratio"] < 1e-6
    assert any("low" in warning for warning in statistics["warnings"])
    before = statistics["warnings"]
    descend(run, {"low": np.full(4, 1e5), "top": [3e5, -4e5]}, 1)
    assert set(run.statistics()["warnings"]) - set(before)
    run.configure(clip=gs.GlobalNorm(max_norm=1.0))
    with run.worker("w0") as worker:
        result = worker.push({"low": np.zeros(4), "top": [3.0, -4.0]})
    assert result.clip_scale == pytest.approx(0.2, rel=1e-5)


def test_the_remedies_that_are_the_servers(client: gs.Client, name: str) -> None:
    """[A.3 002 too little data, slow training, overfitting] Pre-trained weights are the initial state, lower layers
    stay frozen (`trainable: false`, `lr_scale: 0`), the rest decays."""
    trained = {"body": [1.0, 2.0], "neck": [3.0], "head": [4.0]}
    groups = [{"match": "body", "trainable": False}, {"match": "neck", "lr_scale": 0}]
    optimizer = gs.AdamW(0.5, weight_decay=0.1)
    run = client.run(name, init=trained, optimizer=optimizer, groups=groups)
    assert {tensor: value.tolist() for tensor, value in run.pull().items()} == trained
    weights = descend(run, {"body": [1.0, 1.0], "neck": [1.0], "head": [0.0]}, 1)
    assert (weights["body"].tolist(), weights["neck"].tolist()) == ([1.0, 2.0], [3.0])
    assert weights["head"][0] == pytest.approx(4.0 * (1 - 0.5 * 0.1), rel=1e-6)
    assert not run.optimizer_state()["exp_avg/body"].any()
    assert run.optimizer_state()["exp_avg/neck"].any()


def test_the_rate_falls_when_reports_stop_improving(client: gs.Client, name: str) -> None:
    """[A.3 002 performance scheduling] Validation errors are reported; after `every` N of them their mean counts, and
    when it stops falling the next updates have a smaller rate."""
    schedule = gs.specs.ReduceOnPlateau(monitor="validation", factor=0.5, patience=1, every=2, style="keras")
    run = client.run(name, init={"w": [0.0]}, optimizer=gs.SGD(1.0), schedule=schedule)
    rates = []
    for value in (1.0, 1.0, 0.5, 0.5, 0.6, 0.6, 0.4, 0.4):
        run.report({"validation": value})
        descend(run, {"w": [0.0]}, 1)
        rates.append(run.describe()["lr"])
    assert rates == [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert run.history(["lr"])["lr"].tolist() == rates


def test_one_cycle_moves_rate_and_momentum(client: gs.Client, name: str) -> None:
    """[A.3 002 1cycle] Up in a line, down in a line, then down by orders of magnitude, and the cycle is over."""
    schedule = gs.OneCycle(style="geron", total_steps=10, max_lr=1.0)
    run = client.run(name, init={"w": [0.0]}, optimizer=gs.SGD(0.1, momentum=0.9), schedule=schedule)
    descend(run, {"w": [0.0]}, 11)
    rates = run.history(["lr"])["lr"]
    assert rates[[0, 4, 8, 10]] == pytest.approx([0.1, 1.0, 0.1, 1e-4])
    assert rates.argmax() == 4


# --------------------------------------------------------------------------------------- 003, gradient descent


def test_the_rate_is_tuned_while_the_run_goes_on(client: gs.Client, name: str) -> None:
    """[A.3 003 gradient step] dw = -alpha g; alpha begins at 0.1, is changed, and the change is in the journal."""
    run = client.run(name, init={"w": [1.0]}, optimizer=gs.SGD(0.1))
    descend(run, {"w": [1.0]}, 1)
    run.configure(lr=0.01)
    assert descend(run, {"w": [1.0]}, 1)["w"][0] == pytest.approx(1 - 0.1 - 0.01, rel=1e-6)
    settings = [entry for entry in run.journal() if entry["kind"] == "configure"]
    assert [entry["spec"]["optimizer"]["lr"] for entry in settings] == [0.01]
    assert run.history(["lr"])["lr"].tolist() == [0.1, 0.01]


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("size", [10, 1, 4])
def test_updates_of_n_epochs(client: gs.Client, name: str, size: int, epochs: int) -> None:
    """[A.3 003 BGD process] [A.3 003 SGD process] [A.3 003 mini-batch] Ten samples, n epochs: n updates of the whole
    batch, 10 n of single samples, ceil(10 / k) n of batches of k; each sample is seen n times."""
    description = train(client, name, size, epochs)
    assert description["updates"] == description["step"] == math.ceil(SAMPLES / size) * epochs
    assert description["samples_seen"] == SAMPLES * epochs


def test_a_run_tells_when_it_has_converged(client: gs.Client, name: str) -> None:
    """[A.3 003 stop when the derivative is near 0] The moving mean of the gradient's norm is below a tolerance."""
    run = client.run(name, init={"w": [1.0, 1.0]}, optimizer=gs.SGD(0.5))
    asked = f"{client.url}/v1/runs/{name}/statistics?tolerance=1e-3"
    descend(run, lambda weights: {"w": weights["w"]}, 2)
    assert httpx.get(asked).json()["converged"] is False
    descend(run, lambda weights: {"w": weights["w"]}, 60)
    statistics = httpx.get(asked).json()
    assert statistics["converged"] is True
    assert statistics["gradient_norm"] < 1e-3


def test_the_worker_takes_the_three_steps(client: gs.Client, name: str) -> None:
    """[A.3 003 forward -> loss -> backward] Prediction, loss and chain rule are the worker's; the server needs names
    and shapes. The loss falls at each step."""
    x, t = linear_problem()
    run = client.run(name, init={"w": np.zeros(3)}, optimizer=gs.SGD(0.1))
    with run.worker("w0") as worker:
        weights = worker.pull()
        for _ in range(5):
            prediction = x @ weights["w"]
            loss, error = losses.mse(prediction, t)
            weights = worker.step({"w": x.T @ error}, loss=loss)
    values = run.history(["loss"])["loss"]
    assert (np.diff(values) < 0).all()
