"""Fixtures that more than one folder uses: a real Redis, and a store's URL for each kind of store."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from real_redis import RealRedis


def pytest_configure() -> None:
    """Ctrl-C works in all that is started here. A shell without job control starts what it puts into the background
    with SIGINT ignored, and programs hand that on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RealRedis]:
    """One private Redis for the whole session, without persistence. Tests that kill one start their own `RealRedis`."""
    with RealRedis() as server:
        yield server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """An empty Redis database: of $GRADSERVE_TEST_REDIS_URL (which is emptied!), else of the session's server."""
    if url := os.environ.get("GRADSERVE_TEST_REDIS_URL"):
        _empty(url)
        return url
    server: RealRedis = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    return server.url


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind: a test that takes it runs once on SQLite and once on a real Redis."""
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
        return url
    return f"sqlite:///{tmp_path / 'store.db'}"


def _empty(url: str) -> None:
    """FLUSHDB on a Redis that is reached without a password over TCP."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname or "localhost", place.port or 6379), timeout=10) as connection:
        connection.sendall(f"SELECT {place.path.strip('/') or '0'}\r\nFLUSHDB\r\n".encode())
        connection.recv(1024)
