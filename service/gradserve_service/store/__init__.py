"""Floor 3: journal, objects, snapshots and catalogue. Keeps bytes in order; knows no rule of a run."""

from __future__ import annotations

from .place import FORMS, REDIS_SCHEMES, sqlite_path
from .protocols import RunAbsent, Store, StoreDamaged, StoreFull, StoreUnavailable, StoreUnfit
from .records import Durability
from .redis_store import RedisStore
from .sqlite_store import SqliteStore

__all__ = [
    "RunAbsent",
    "Store",
    "StoreDamaged",
    "StoreFull",
    "StoreUnavailable",
    "StoreUnfit",
    "open_store",
    "open_to_read",
]


def open_store(url: str, durability: Durability) -> Store:
    """The store of a URL; nothing is connected or created before its `open()`. Raises StoreUnfit for another URL."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return SqliteStore(sqlite_path(url), durability)
    if scheme in REDIS_SCHEMES:
        try:
            return RedisStore(url, durability)
        except (ValueError, TypeError):  # a port that is no number, an unknown option; the text may hold a password
            raise StoreUnfit(
                f"the store's {scheme} URL has a part that cannot be read; the forms are {FORMS}"
            ) from None
    raise StoreUnfit(f"there is no store for a URL of scheme {scheme!r}; the forms are {FORMS}")


async def open_to_read(url: str) -> Store:
    """The store of a URL, opened only to look: nothing is made, swept or resumed in it. An SQLite store is locked
    meanwhile, as by a server. Raises StoreUnfit and StoreUnavailable."""
    if url.partition(":")[0] == "sqlite":
        embedded = SqliteStore(sqlite_path(url), "fsync")
        await embedded.open_to_read()
        return embedded
    store = open_store(url, "memory")
    try:
        await store.check()
    except BaseException:
        await store.close()
        raise
    return store
