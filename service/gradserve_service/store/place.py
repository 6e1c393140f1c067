"""Store URLs: which store, and where it is in words that may be logged."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from .protocols import StoreUnfit

REDIS_SCHEMES = ("redis", "rediss", "unix")
FORMS = (
    "sqlite:///relative/file.db, sqlite:////absolute/file.db, redis://host:port/0, rediss://…, unix:///path/redis.sock"
)


def sqlite_path(url: str) -> Path:
    """`sqlite:///x.db` is relative to the working directory, `sqlite:////x.db` is absolute. Raises StoreUnfit."""
    rest = url.removeprefix("sqlite:///")
    if rest == url or rest in ("", "/", ":memory:") or rest.endswith("/"):
        raise StoreUnfit(f"store URL {url!r} names no file; the forms are {FORMS}")
    return Path(unquote(rest))


def redis_place(url: str) -> str:
    """The URL without user, password and options."""
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if parts.scheme == "unix":
        return f"unix://{parts.path}?db={options.get('db', ['0'])[0]}"
    database = options.get("db", [parts.path.strip("/") or "0"])[0]
    host = parts.hostname or "localhost"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port or 6379}/{database}"
