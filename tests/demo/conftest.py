"""A server of its own for the tests of this folder: a real `gradserve serve`, as the demo starts it."""

from __future__ import annotations

import pytest

from gradserve_service.demo.programs import Programs
from gradserve_service.demo.server import start_server


@pytest.fixture(scope="module")
def server_url(tmp_path_factory):
    """The address of a server on the embedded store."""
    folder = tmp_path_factory.mktemp("server")
    with Programs(folder / "logs") as programs:
        yield start_server(programs, f"sqlite:///{folder}/gradserve.db", "journal").url
