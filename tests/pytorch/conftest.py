"""A server for all tests of the PyTorch adapter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sdk.serving import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lives as long as the tests; each test has runs of its own."""
    running = Server(tmp_path_factory.mktemp("server")).start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A run's name that no other test has."""
    return request.node.name.replace("[", ".").replace("]", "")[:100]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """This process is no ranked worker, whatever started the tests; its server is the shared one."""
    for variable in ("RANK", "JOB_COMPLETION_INDEX", "GRADSERVE_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GRADSERVE_URL", server.url)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: more threads only cost time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
