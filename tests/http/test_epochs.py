"""Samples, updates and epochs are counted by the server."""

from __future__ import annotations

import pytest

WEIGHTS = {"w": [0.0]}


async def test_a_run_counts_updates_samples_and_epochs(server):
    """A duplicate and a refused push count for nothing; without a dataset_size there is no epoch."""
    run = await server.make_run(weights=WEIGHTS, dataset_size=10)
    assert (run["updates"], run["samples_seen"], run["epoch"]) == (0, 0, 0.0)
    body = {"gradients": {"w": [1.0]}, "samples": 4}
    for sequence in (1, 2, 2):
        assert (await server.push(sequence, body)).status_code == 200
    assert (await server.push(3, {"gradients": {"w": [1e30]}})).status_code == 422
    run = (await server.client.get("/v1/runs/run")).json()
    assert (run["updates"], run["samples_seen"], run["epoch"]) == (2, 8, 0.8)
    assert (await server.make_run("other", weights=WEIGHTS))["epoch"] is None


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "10"])
async def test_a_dataset_has_a_whole_number_of_samples(server, problem, size):
    """One at least."""
    answer = await server.client.put("/v1/runs/run", json={"optimizer": "sgd", "dataset_size": size})
    assert "dataset_size: expected" in problem(answer, "validation-error")["detail"]
