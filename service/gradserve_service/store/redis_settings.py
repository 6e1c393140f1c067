"""What a Redis is set up to promise: its durability, and whether it could throw our keys away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .protocols import StoreUnfit
from .records import Durability

VERSION_MIN = (6, 2)  # XTRIM MINID

# Asked on every new connection before its first use, in one round trip.
QUESTIONS: tuple[tuple[str, ...], ...] = (("INFO",), ("CONFIG", "GET", "appendfsync"))


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that matter, as Redis tells them."""

    version: tuple[int, ...]
    replica: bool
    cluster: bool
    appendonly: bool
    appendfsync: str | None  # always, everysec, no; None where CONFIG is forbidden
    maxmemory: int  # bytes; 0: no limit
    maxmemory_policy: str

    @classmethod
    def parse(cls, replies: list[Any]) -> Settings:
        """Of the replies to QUESTIONS; where CONFIG is forbidden the second is an exception."""
        known = pairs(replies[0])
        config = replies[1]
        version = known.get("redis_version", "0").split(".")
        return cls(
            version=tuple(int(part) for part in version if part.isdigit()),
            replica=known.get("role") == "slave",
            cluster=known.get("cluster_enabled") == "1",
            appendonly=known.get("aof_enabled") == "1",
            appendfsync=config[1].decode() if isinstance(config, list) and len(config) == 2 else None,
            maxmemory=int(known.get("maxmemory", "0")),
            maxmemory_policy=known.get("maxmemory_policy", "noeviction"),
        )

    @property
    def durability(self) -> Durability:
        """What an acknowledged write survives. An appendfsync that Redis does not tell is taken to be everysec."""
        if not self.appendonly or self.appendfsync == "no":
            return "memory"
        return "fsync" if self.appendfsync == "always" else "journal"

    def require_fit(self) -> None:
        """Raises StoreUnfit with the cure."""
        if self.version < VERSION_MIN:
            found, wanted = (".".join(map(str, version)) for version in (self.version, VERSION_MIN))
            raise StoreUnfit(f"this is Redis {found}: use Redis {wanted} or newer, or Valkey")
        if self.cluster:
            raise StoreUnfit("this Redis is part of a cluster, which this release does not use: name one that is not")
        if self.replica:
            raise StoreUnfit("this Redis is a replica, it takes no writes: name its primary")
        # What is evicted is an acknowledged push lost, and nobody is told.
        if self.maxmemory and self.maxmemory_policy != "noeviction":
            raise StoreUnfit(
                f"this Redis throws keys away when its memory is full (maxmemory-policy {self.maxmemory_policy}): "
                "type 'redis-cli CONFIG SET maxmemory-policy noeviction', and write it into redis.conf"
            )


def memory_share(reply: bytes) -> float:
    """Used share of maxmemory, of the reply to INFO memory; 0.0 without a limit."""
    known = pairs(reply)
    limit = int(known.get("maxmemory", "0"))
    return int(known.get("used_memory", "0")) / limit if limit else 0.0


def pairs(reply: bytes) -> dict[str, str]:
    """`name:value` lines of INFO."""
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
