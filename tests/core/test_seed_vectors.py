"""The project's source documents compute these numbers: w0 = [0.5, -0.3], g = [0.2, -0.4] at every step, zero state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.running import Updates
from gradserve import specs

MOMENTUM = [[0.498, -0.296], [0.4942, -0.2884], [0.48878, -0.27756]]
SEEDS: dict[str, tuple[Any, list[list[float]]]] = {
    "sgd": (specs.Sgd(lr=0.01), [[0.498, -0.296], [0.496, -0.292], [0.494, -0.288]]),
    "momentum": (specs.Sgd(lr=0.01, momentum=0.9, lr_in_momentum=True), MOMENTUM),
    "momentum in torch's form": (specs.Sgd(lr=0.01, momentum=0.9), MOMENTUM),
    "adagrad": (
        specs.Adagrad(lr=0.01, eps=1e-8),
        [
            [0.4900000005, -0.29000000025],
            [0.4829289329381345, -0.2829289325631345],
            [0.47715543041290487, -0.2771554299545716],
        ],
    ),
    "rmsprop": (
        specs.RmsProp(lr=0.01, alpha=0.9, eps=1e-8),
        [
            [0.4683772283983154, -0.268377225898316],
            [0.4454356576428379, -0.24543565382704918],
            [0.4262261907279737, -0.2262261859896759],
        ],
    ),
    "adam": (
        specs.Adam(lr=0.01),
        [[0.4900000005, -0.29000000025], [0.480000001, -0.2800000005], [0.4700000015, -0.27000000075]],
    ),
    "adam, no correction": (
        specs.Adam(lr=0.01, bias_correction=False),
        [
            [0.46837727339823715, -0.2683772483982964],
            [0.42588140404190034, -0.22588135528011855],
            [0.3763790957793151, -0.17637902441163256],
        ],
    ),
}
cases = pytest.mark.parametrize(("spec", "expected"), SEEDS.values(), ids=SEEDS)


@cases
def test_float64_gives_the_documents_numbers(spec: Any, expected: list[list[float]]) -> None:
    """To 1e-15: the folded arithmetic is the documents' arithmetic."""
    run = Updates(spec, np.array([0.5, -0.3]))
    for after in expected:
        run.step([0.2, -0.4])
        assert np.abs(run.weights - after).max() <= 1e-15


@cases
def test_float32_gives_the_documents_numbers_in_float32(spec: Any, expected: list[list[float]]) -> None:
    """To two units in the last place of the start: 6e-8."""
    run = Updates(spec, np.array([0.5, -0.3], np.float32))
    for after in expected:
        run.step([0.2, -0.4])
        assert np.abs(run.weights - after).max() <= 6e-8
