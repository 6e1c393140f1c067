"""A server for all tests of the SDK, and one of its own for a test that ends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import gradserve as gs
from sdk.serving import Line, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lives as long as the tests; each test has runs of its own."""
    running = Server(tmp_path_factory.mktemp("server")).start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[gs.Client]:
    """A client of the shared server."""
    with gs.connect(server.url, retry_seconds=30) as connected:
        yield connected


@pytest.fixture
def own_server(tmp_path) -> Iterator[Server]:
    """A server that the test may kill, and start again."""
    running = Server(tmp_path).start()
    yield running
    running.stop()


@pytest.fixture
def line(server: Server) -> Iterator[Line]:
    """A line to the shared server that can be cut."""
    made = Line(server.url)
    yield made
    made.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A run's name that no other test has."""
    return request.node.name.replace("[", ".").replace("]", "")[:100]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is no ranked worker, whatever started the tests."""
    for variable in ("RANK", "JOB_COMPLETION_INDEX", "GRADSERVE_URL", "GRADSERVE_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
