"""Batch, stochastic and mini-batch training through the service: how many updates, and which.

Ten samples and n epochs: n updates with the whole batch, 10 n with single samples, ⌈10 / k⌉ n with batches of k.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradserve as gs
from gradserve.losses import half_sse
from gradserve_service.demo.digits import batches

SAMPLES = 10
EPOCHS = 10
LR = 0.05


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, 3)).astype(np.float32)
    return x, (x @ [1.0, -2.0, 3.0]).astype(np.float32)


def all_batches(problem, size):
    """Those of all epochs: the same rows in the same order, every time."""
    rng = np.random.default_rng(1)
    for _ in range(EPOCHS):
        yield from batches(*problem, size, rng)


def train_alone(problem, size):
    """The loop that one writes at home."""
    w = np.zeros(3, np.float32)
    for x, t in all_batches(problem, size):
        _, error = half_sse(x @ w, t)
        w = w - np.float32(LR) * (x.T @ error)
    return w


def train_through(server_url, problem, size):
    """The same through the service; answers the weights and what the server says of the run."""
    with gs.connect(server_url) as client:
        run = client.run(f"ten-{size}", init={"w": np.zeros(3)}, optimizer=gs.Sgd(lr=LR))
        with run.worker("w0") as worker:
            weights = worker.pull()
            for x, t in all_batches(problem, size):
                loss, error = half_sse(x @ weights["w"], t)
                weights = worker.step({"w": x.T @ error}, loss=loss, samples=len(x))
        return weights["w"], run.describe()


@pytest.mark.parametrize("size", [SAMPLES, 1, 3, 4, 5, 9])
def test_the_updates_of_n_epochs(server_url, problem, size):
    """As many as the book says, each of them w ← w − lr · g, and together they learn."""
    w, description = train_through(server_url, problem, size)
    assert description["step"] == EPOCHS * math.ceil(SAMPLES / size)
    assert description["version"] == description["step"]
    np.testing.assert_allclose(w, train_alone(problem, size), rtol=1e-5)
    x, t = problem
    assert half_sse(x @ w, t)[0] < half_sse(np.zeros(SAMPLES), t)[0] / 5
