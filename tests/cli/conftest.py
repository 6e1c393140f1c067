"""The command as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

END_SECONDS_MAX = 60


@pytest.fixture
def environment() -> dict[str, str]:
    """The test's environment without settings of another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GRADSERVE_")}


@pytest.fixture
def gradserve(tmp_path: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command to its end, in an empty directory."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gradserve_service", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={**environment, **variables}, capture_output=True, text=True,
            timeout=END_SECONDS_MAX, check=False,
        )  # fmt: skip

    return run


class Server:
    """`gradserve serve --json …` until it is told to end. `address` is its start-up line."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.log = folder / "serve.log"
        command = [sys.executable, "-m", "gradserve_service", "serve", "--json", *arguments]
        with self.log.open("w") as log:
            self.child = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, self.log.read_text()
        self.address: dict[str, Any] = json.loads(line)

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.child.terminate()
        return self.wait()

    def wait(self) -> int:
        """The exit code."""
        code = self.child.wait(END_SECONDS_MAX)
        assert self.child.stdout is not None
        self.child.stdout.close()
        return code


@pytest.fixture
def serve(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Start a server; it is ended with the test if it still runs."""
    started: list[Server] = []

    def start(*arguments: str, **variables: str) -> Server:
        place = () if "--uds" in arguments or "--port" in arguments else ("--port", "0")
        server = Server([*place, *arguments], tmp_path, {**environment, **variables})
        started.append(server)
        return server

    yield start
    for server in started:
        if server.child.poll() is None:
            server.child.kill()
            server.wait()
