"""The transformer example: what Gradserve changes in it, and that two processes of it learn."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import gradserve as gs

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "torch_transformer"
STEPS = 16


def test_three_lines_make_the_local_script_remote():
    """Two imports and the optimizer."""
    local, remote = ((EXAMPLE / f"train_{kind}.py").read_text().splitlines() for kind in ("local", "remote"))
    changes = [line for line in difflib.ndiff(local, remote) if line[0] in "+-" and line[1:].strip()]
    added = [line for line in changes if line.startswith("+")]
    assert len(added) == 3
    assert len(changes) == 4  # the optimizer's line was another
    assert "RemoteOptimizer(" in added[-1]


def test_two_processes_train_the_transformer(server, tmp_path):
    """The loss of both ends below the untrained one, every gradient counts, the last to end has the run's weights."""
    words = [sys.executable, "-W", "error", EXAMPLE / "train_remote.py", "--steps", str(STEPS), "--every", str(STEPS)]
    processes = [
        subprocess.Popen(
            [*words, "--batch", "4", "--save", tmp_path / f"{rank}.pt"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    said = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    looks = [[json.loads(line)["held_out"] for line in lines] for lines in said]
    untrained = max(first for first, _ in looks)  # the later process may find the other one's work done already
    for _, last in looks:
        assert last < untrained - 0.3
    with gs.connect(server.url) as client:
        kept = client.run("topics").pull()
    assert kept.version == 2 * STEPS
    saved = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert any(all(np.array_equal(model[name].numpy(), kept[name]) for name in kept) for model in saved)
    assert set(saved[0]) - set(kept) == {"logits.weight"}  # tied to the table of characters
