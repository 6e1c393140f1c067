"""Several processes train one model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gradserve as gs
from pytorch.networks import loss_of, network

TESTS = Path(__file__).resolve().parents[1]
STEPS = 60


def test_two_processes_train_one_model(name, server):
    """Each applies its gradients to the same run; at the end both have the same weights, and they have learnt."""
    places = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "pytorch.trainer", name, str(rank), str(STEPS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "PYTHONPATH": places},
        )
        for rank in range(2)
    ]
    said = [process.stdout.readline() for process in processes]
    ends = [process.communicate("go on\n")[0].split() for process in processes]
    assert said == ["trained\n"] * 2
    assert [process.returncode for process in processes] == [0, 0]
    assert ends[0] == ends[1]
    with gs.connect(server.url) as client:
        assert client.run(name).describe()["version"] == 2 * STEPS
    assert float(ends[0][1]) < 0.8 * loss_of(network(), 1_000).item()
