"""A server that computed wrongly: the digest of its state is another than the one published at the same position."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from faults.fleet import Fleet, made
from faults.processes import Server

RUN = "/v1/runs/twice"
FLIPPED = 3  # the position after which the second server has one bit wrong; a snapshot is due at each


@pytest.fixture
def fleet(redis_url, tmp_path, monkeypatch) -> Iterator[Fleet]:
    """A server that computes as it should, and one that does so but once."""
    monkeypatch.setenv("FLIP_AT", str(FLIPPED))
    modules = ("faults.small_snapshots", "faults.flipped_weight")
    fleet = Fleet([Server(redis_url, made(tmp_path / name), "memory", module=name) for name in modules])
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.end()


def send(server: Server, method: str, path: str, body: object) -> None:
    """One JSON request that has to succeed."""
    answer = server.answer(method, RUN + path, json.dumps(body).encode(), Content_Type="application/json")
    assert answer.status < 300, answer.body


def published(server: Server, position: int) -> None:
    """Return once the server has published its snapshot of the position."""
    server.log.wait_for(f"position={position} trimmed_entries")


def counted(server: Server) -> int:
    """How many divergences it counted."""
    lines = server.answer("GET", "/metrics").body.decode().splitlines()
    return int(sum(float(line.split()[1]) for line in lines if line.startswith("gradserve_state_diverged_total")))


def test_a_server_that_computed_wrongly_serves_none_of_it(fleet):
    """It sees that its digest is not the published one, takes the store's state, says so and counts it."""
    right, wrong = fleet.servers
    send(right, "PUT", "", {"optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}})
    send(right, "PUT", "/weights", {"weights": {"w": [1.0, 2.0, 3.0]}})
    published(right, 1)
    for sequence in range(1, 5):
        send(right, "PUT", f"/workers/w0/pushes/{sequence}", {"gradients": {"w": [0.1, 0.2, 0.3]}})
        published(right, sequence + 1)
        served = [
            server.answer("GET", f"{RUN}/weights", Accept="application/vnd.safetensors") for server in (right, wrong)
        ]
        assert served[0].body == served[1].body, f"after entry {sequence + 1}"
    assert [counted(server) for server in (right, wrong)] == [0, 1]
    assert "state_diverged" in wrong.log.end()
    warnings = [server.answer("GET", RUN).json()["warnings"] for server in (right, wrong)]
    assert warnings[0] == []
    assert f"state_diverged: at position {FLIPPED}" in warnings[1][0]
