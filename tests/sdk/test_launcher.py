"""Who this worker is."""

from __future__ import annotations

import pytest

from gradserve.launcher import worker_rank


@pytest.fixture
def environment(monkeypatch):
    for name in ("RANK", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_torchrun_and_kubernetes_give_the_rank(environment):
    """torchrun's word counts first; without a launcher there is no rank, which counts as 0."""
    assert worker_rank() is None
    environment.setenv("JOB_COMPLETION_INDEX", "3")
    assert worker_rank() == 3
    environment.setenv("RANK", "1")
    assert worker_rank() == 1


def test_a_rank_that_is_none_is_refused(environment):
    """Two workers that both took themselves for rank 0 would be found much later."""
    environment.setenv("RANK", "one")
    with pytest.raises(ValueError, match="RANK"):
        worker_rank()
