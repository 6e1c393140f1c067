"""The examples run as they stand, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name, server_url, *words):
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GRADSERVE_URL": server_url},
    )


def test_the_numpy_worker_finds_the_line(server_url):
    done = run("numpy_worker.py", server_url)
    assert done.returncode == 0, done.stderr
    *steps, result = done.stdout.splitlines()
    assert len(steps) == 6
    words = result.replace("[", " ").replace("]", " ").split()
    found = [float(word) for word in words if word.lstrip("-").replace(".", "").isdecimal()]
    assert all(abs(a - b) < 0.1 for a, b in zip(found, [1.0, -2.0, 3.0, 0.5], strict=True))


def test_a_second_worker_goes_on_where_the_first_ended(server_url):
    """The run is found by its name, with the weights that it has."""
    run("numpy_worker.py", server_url)
    done = run("numpy_worker.py", server_url, "w1")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[0].split()[-1]) < 0.1  # the loss of step 50: nothing is left to learn
