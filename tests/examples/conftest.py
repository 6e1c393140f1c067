"""A real server for the examples, and a way to run one as a reader would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdk.serving import Server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def server_url(tmp_path_factory):
    """The address of a server on the embedded store."""
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server.url
    server.stop()


@pytest.fixture
def run_example():
    """Run an example to its end, warnings as errors, `$GRADSERVE_URL` set if a URL is given; gives its stdout."""

    def run(name, *words, url=None):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GRADSERVE_")}
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / name, *words],
            capture_output=True,
            text=True,
            check=False,
            env=environment if url is None else {**environment, "GRADSERVE_URL": url},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
