"""Store URLs, and what may be said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradserve_service.store import StoreUnfit, open_store
from gradserve_service.store.place import sqlite_path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///./x.db", "x.db"),
        ("sqlite:///gradserve-data/x.db", "gradserve-data/x.db"),
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:///with%20space.db", "with space.db"),
    ],
)
def test_three_slashes_are_relative_and_four_are_absolute(url: str, path: str) -> None:
    """As in SQLAlchemy."""
    assert sqlite_path(url) == Path(path)
    assert open_store(url, "journal").kind == "sqlite"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://redis", "redis://redis:6379/0"),
        ("redis://user:secret@host:7000/3", "redis://host:7000/3"),
        ("redis://:secret@host?password=secret&db=2", "redis://host:6379/2"),
        ("rediss://:secret@[::1]:6380/1?ssl_cert_reqs=required", "rediss://[::1]:6380/1"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("unix://user:secret@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
    ],
)
def test_the_url_of_a_redis_is_told_without_its_password(url: str, place: str) -> None:
    """The user's name is not told either."""
    store = open_store(url, "journal")
    assert (store.kind, store.url) == ("redis", place)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gradserve.db",
        "sqlite:gradserve.db",
        "sqlite://gradserve.db",
        "sqlite:///",
        "sqlite:///directory/",
        "sqlite:///:memory:",
        "postgres://user:secret@host/db",
        "redis+cluster://host:6379",
        "redis://user:sec/ret@host:port/0",
        "redis://:secret@host:6379/0?unknown_option=1",
    ],
)
def test_another_url_is_refused_with_the_forms_that_work(url: str) -> None:
    """And without the password that may be in it."""
    with pytest.raises(StoreUnfit, match="redis://host:port/0") as unfit:
        open_store(url, "journal")
    assert "sec" not in str(unfit.value)
