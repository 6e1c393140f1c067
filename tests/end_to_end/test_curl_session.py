"""What http-api.md promises, typed with curl: session.txt against a real server, on both stores, with two optimizers.

The session kills the server with kill -9 and goes on with a new process on the same store.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from end_to_end.session import Session, require_curl
from faults.processes import serving
from gradserve.wire import decode_frame

SCRIPT = Path(__file__).with_name("session.txt")

# The gradients of the session's five updates: three elements of w, then b (None: left out); and their learning rates.
GRADIENTS = ((1, -2, 3, 1), (0.5, 0.25, -1, None), (-1, 0.125, 2, -3), (1, 1, 1, 1), (2, 2, 2, 2))
LR = (0.5, 0.5, 0.5, 0.5, 0.25)
OPTIMIZERS = {
    "sgd": '{"name": "sgd", "lr": 0.5, "momentum": 0.9}',
    "adam": '{"name": "adam", "lr": 0.5}',
}


def sgd(gradients: list[float | None]) -> list[float]:
    """One weight after each update, by the textbook: b ← 0.9 b + g, w ← w − lr b."""
    w = b = 0.0
    path = []
    for g, lr in zip(gradients, LR, strict=True):
        if g is not None:
            b = 0.9 * b + g
            w -= lr * b
        path.append(w)
    return path


def adam(gradients: list[float | None]) -> list[float]:
    """One weight after each update, by the paper; t counts the run's updates, also those that leave the tensor out."""
    w = m = v = 0.0
    path = []
    for t, (g, lr) in enumerate(zip(gradients, LR, strict=True), 1):
        if g is not None:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w -= lr * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        path.append(w)
    return path


@dataclass(frozen=True)
class Ended:
    """A session that went through: what the server served at its end."""

    weights: bytes
    slots: dict[str, bytes]


def play(store: str, optimizer: str, folder: Path, kind: str) -> Ended:
    """The whole session on a fresh store."""
    require_curl()
    rule = {"sgd": sgd, "adam": adam}[optimizer]
    paths = [rule([update[element] for update in GRADIENTS]) for element in range(4)]
    values = {"OPTIMIZER": OPTIMIZERS[optimizer], "KIND": kind}
    for update, name in ((3, ""), (4, "4"), (5, "5")):
        values[f"W{name}"] = str([path[update - 1] for path in paths[:3]])
        values[f"B{name}"] = str(paths[3][update - 1])
    # The session's Redis keeps nothing on disk, and /readyz is red on a store that gives less than is wanted.
    durability = "memory" if kind == "redis" else "journal"
    with serving(store, folder, durability=durability) as server:
        session = Session(server, folder, values)
        session.play(SCRIPT)
    before, after = session.saved["weights before"], session.saved["weights after"]
    assert before == after, "kill -9 changed the weights"
    state = decode_frame(session.saved["optimizer-state final"])
    slots = {name: view.tobytes() for name, view in state.layout.views(state.vector()).items()}
    return Ended(session.saved["weights final"], slots)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_session_is_answered_as_documented_on_both_stores(optimizer, tmp_path, redis_url):
    """Every status, code and member of session.txt; and both stores serve the same bytes at its end."""
    ended = {}
    for kind, store in (("sqlite", f"sqlite:///{tmp_path}/store.db"), ("redis", redis_url)):
        folder = tmp_path / kind
        folder.mkdir()
        ended[kind] = play(store, optimizer, folder, kind)
    assert ended["sqlite"].weights == ended["redis"].weights
    assert ended["sqlite"].slots == ended["redis"].slots
