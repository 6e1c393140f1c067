"""What a Redis is set up to promise: its durability, and whether it could throw our keys away."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from .protocols import StoreUnavailable, StoreUnfit
from .records import Durability
from .redis_link import Link, StoreRefused

log = logging.getLogger("gradserve.store")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that matter, as Redis tells them."""

    appendonly: bool
    appendfsync: str  # always, everysec, no; "unknown" where CONFIG is forbidden
    maxmemory: int  # bytes; 0: no limit
    maxmemory_policy: str
    server: str  # the id that Redis draws at each start
    replica: bool

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives. Of an unknown appendfsync the common value is assumed: everysec."""
        if not self.appendonly:
            return "memory"
        return "fsync" if self.appendfsync == "always" else "journal"

    def require_fit(self) -> None:
        """Raises StoreUnfit where Redis may evict: a lost entry or chunk would be an acknowledged push lost."""
        if self.maxmemory and self.maxmemory_policy != "noeviction":
            raise StoreUnfit(
                f"this Redis throws keys away when its memory is full (maxmemory-policy {self.maxmemory_policy}): "
                "run 'redis-cli CONFIG SET maxmemory-policy noeviction', and put it in redis.conf"
            )


async def read_settings(link: Link) -> Settings:
    """Ask Redis. Raises StoreUnavailable."""
    known = _pairs(await link.call("INFO"))
    appendfsync = "unknown"
    try:
        reply = await link.call("CONFIG", "GET", "appendfsync")
        appendfsync = reply[1].decode()
    except (StoreRefused, StoreUnavailable, IndexError) as refusal:
        if known.get("aof_enabled") == "1":
            log.warning("CONFIG is forbidden (%s): appendfsync is taken to be everysec, level 'journal'", refusal)
    return Settings(
        appendonly=known.get("aof_enabled") == "1",
        appendfsync=appendfsync,
        maxmemory=int(known.get("maxmemory", "0")),
        maxmemory_policy=known.get("maxmemory_policy", "noeviction"),
        server=known.get("run_id", ""),
        replica=known.get("role") == "slave",
    )


async def memory_share(link: Link) -> float:
    """Used share of maxmemory; 0.0 without a limit."""
    known = _pairs(await link.call("INFO", "memory"))
    limit = int(known.get("maxmemory", "0"))
    return int(known.get("used_memory", "0")) / limit if limit else 0.0


def _pairs(text: bytes) -> dict[str, str]:
    lines = text.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
