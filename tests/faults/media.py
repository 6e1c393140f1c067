"""Kinds of store seen from behind: filled once, put back as they were, and one bit in them made another."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from redis import Redis

from gradserve_service.store.redis_keys import CATALOGUE, NAMES
from gradserve_service.store.sqlite_schema import POSITION_BITS


class Medium(Protocol):
    """A kind of store, seen from behind."""

    url: str

    def keep(self) -> None:
        """What is stored now is the template."""

    def renew(self) -> None:
        """Put the template back in place."""

    def flip(self, kind: str, dice: random.Random) -> str:
        """Change one bit in something of that kind; answers where."""

    @property
    def kinds(self) -> tuple[str, ...]: ...


def flipped(content: bytes, dice: random.Random) -> tuple[bytes, str]:
    """One bit of these bytes is another. Every other time in a byte that is not zero: files have wide empty spaces."""
    written = [at for at, byte in enumerate(content) if byte] if dice.random() < 0.5 else []
    at = dice.choice(written) if written else dice.randrange(len(content))
    bit = 8 * at + dice.randrange(8)
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed), f"byte {bit // 8} of {len(content)}, bit {bit % 8}"


class SqliteMedium:
    """Rows through SQL, and raw bytes of the database and of object files."""

    columns: Mapping[str, tuple[tuple[str, str], ...]] = {
        "entry header": (("entries", "header"),),
        "entry hash": (("entries", "hash"),),
        "entry place": (("entries", "place"), ("entries", "object")),
        "inline payload": (("entries", "inline"),),
        "snapshot record": (
            ("snapshots", "place"), ("snapshots", "hash"), ("snapshots", "object"), ("snapshots", "digest"),
            ("snapshots", "state"), ("snapshots", "seal"),
        ),
        "run record": (
            ("runs", "uid"), ("runs", "genesis"), ("runs", "state"), ("runs", "position"), ("runs", "head"),
            ("runs", "number"),
        ),
        "catalogue record": (
            ("names", "name"), ("names", "uid"), ("names", "creation"), ("names", "genesis"), ("names", "created_at"),
            ("names", "deleted"), ("names", "seal"),
        ),
        "checkpoint record": (
            ("checkpoints", "name"), ("checkpoints", "object"), ("checkpoints", "created_at"), ("checkpoints", "about"),
            ("checkpoints", "run"), ("checkpoints", "seal"),
        ),
    }  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self._database = folder / "now" / "store.db"
        self._kept = folder / "template"
        self.url = f"sqlite:///{self._database}"

    @property
    def kinds(self) -> tuple[str, ...]:
        return (*self.columns, "image", "payload object", "checkpoint file", "database file")

    def keep(self) -> None:
        with contextlib.closing(sqlite3.connect(self._database)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copytree(self._database.parent, self._kept)

    def renew(self) -> None:
        shutil.rmtree(self._database.parent)
        shutil.copytree(self._kept, self._database.parent)

    def flip(self, kind: str, dice: random.Random) -> str:
        if kind == "database file":
            return self._flip_file(self._database, dice)
        with contextlib.closing(sqlite3.connect(self._database)) as database:
            if kind in self.columns:
                where = self._flip_value(database, *dice.choice(self.columns[kind]), dice)
                database.commit()
                return where
            table = {"image": "snapshots", "payload object": "entries", "checkpoint file": "checkpoints"}[kind]
            rows = database.execute(f"SELECT object FROM {table} WHERE object IS NOT NULL").fetchall()
        identity = dice.choice(sorted(rows))[0].partition(":")[0]
        (path,) = self._database.parent.glob(f"store.db-objects/*/{identity}")
        return self._flip_file(path, dice)

    def _flip_file(self, path: Path, dice: random.Random) -> str:
        changed, where = flipped(path.read_bytes(), dice)
        path.write_bytes(changed)
        return f"{path.name}, {where}"

    def _flip_value(self, database: sqlite3.Connection, table: str, column: str, dice: random.Random) -> str:
        key = {"entries": "place", "runs": "number", "names": "name", "snapshots": "number", "checkpoints": "name"}
        where = f"{column} IS NOT NULL AND length(CAST({column} AS BLOB)) > 0"
        rows = database.execute(f"SELECT {key[table]}, {column} FROM {table} WHERE {where} ORDER BY 1").fetchall()
        row, value = dice.choice(rows)
        changed: Any
        if isinstance(value, int):
            bit = dice.randrange(POSITION_BITS + 4)
            changed, place, cast = value ^ 1 << bit, f"bit {bit}", "?"
        else:
            raw = value if isinstance(value, bytes) else value.encode()
            changed, place = flipped(raw, dice)
            cast = "?" if isinstance(value, bytes) else "CAST(? AS TEXT)"
        done = database.execute(
            f"UPDATE OR IGNORE {table} SET {column} = {cast} WHERE {key[table]} = ?", (changed, row)
        )
        if not done.rowcount:  # another row has that key
            return self._flip_value(database, table, column, dice)
        return f"{table}.{column} of {row}, {place}"


class RedisMedium:
    """Values read, changed and written again with Redis' own commands."""

    kinds = (
        "entry header", "entry hash", "entry place", "inline payload", "image", "payload object", "snapshot record",
        "run record", "catalogue record", "checkpoint record", "checkpoint file", "object list", "name list",
    )  # fmt: skip
    parts: Mapping[str, tuple[bytes, ...]] = {
        "entry header": (b"h",), "entry hash": (b"c",), "entry place": (b"o", b"id"), "inline payload": (b"p",),
    }  # fmt: skip

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = Redis.from_url(url)
        self._kept: dict[bytes, bytes] = {}

    def keep(self) -> None:
        self._kept = {key: self._client.dump(key) for key in self._client.scan_iter()}

    def renew(self) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.flushdb()
            for key, content in self._kept.items():
                pipeline.restore(key, 0, content)
            pipeline.execute()

    def flip(self, kind: str, dice: random.Random) -> str:
        client = self._client
        if kind in self.parts:
            return self._flip_entry(dice.choice(self.parts[kind]), dice)
        if kind in ("run record", "snapshot record"):
            key = dice.choice([key for key in self._keys(b":run") if client.hexists(key, "head")])
            fields = (
                (b"newest", b"previous")
                if kind == "snapshot record"
                else (b"genesis", b"head", b"position", b"trimmed")
            )
            return self._flip_field(key, dice.choice(fields), dice)
        if kind == "catalogue record":
            return self._flip_field(CATALOGUE, dice.choice(sorted(client.hkeys(CATALOGUE))), dice)
        if kind == "checkpoint record":
            key = dice.choice(self._keys(b":checkpoints"))
            return self._flip_field(key, dice.choice(sorted(client.hkeys(key))), dice)
        if kind == "object list":
            return self._flip_member(dice.choice(self._keys(b":objects")), dice)
        if kind == "name list":
            return self._flip_member(NAMES, dice)
        key = dice.choice(self._chunks(kind))
        content = client.get(key)
        changed, where = flipped(content, dice)
        client.set(key, changed, keepttl=True)
        return f"{key!r}, {where}"

    def _keys(self, end: bytes) -> list[bytes]:
        return sorted(key for key in self._client.scan_iter() if key.endswith(end))

    def _chunks(self, kind: str) -> list[bytes]:
        named: set[bytes] = set()
        if kind == "image":
            for key in self._keys(b":run"):
                named |= {text.split(b" ")[2] for text in self._client.hmget(key, "newest", "previous") if text}
        elif kind == "checkpoint file":
            named = {text.split(b" ")[0] for key in self._keys(b":checkpoints") for text in self._client.hvals(key)}
        else:
            named = {ref for key in self._keys(b":objects") for ref in self._client.zrange(key, 0, -1)}
        ids = {ref.partition(b":")[0] for ref in named}
        return sorted(key for key in self._client.scan_iter() if key.rsplit(b":", 2)[-2] in ids)

    def _flip_field(self, key: bytes, name: bytes, dice: random.Random) -> str:
        changed, where = flipped(self._client.hget(key, name), dice)
        self._client.hset(key, name, changed)
        return f"{key!r} {name!r}, {where}"

    def _flip_member(self, key: bytes, dice: random.Random) -> str:
        member, score = dice.choice(sorted(self._client.zrange(key, 0, -1, withscores=True)))
        changed, where = flipped(member, dice)
        self._client.zrem(key, member)
        self._client.zadd(key, {changed: score})
        return f"{key!r} {member!r}, {where}"

    def _flip_entry(self, part: bytes, dice: random.Random) -> str:
        """A stream's entries cannot be changed: all are written again."""
        journals = [(key, self._client.xrange(key)) for key in self._keys(b":journal")]
        held = [
            (key, at) for key, entries in journals for at, (_, entry) in enumerate(entries) if entry.get(part, b"x")
        ]
        key, at = dice.choice(held)
        entries = dict(journals)[key]
        identity, entry = entries[at]
        if part == b"id":
            taken = {old for old, _ in entries} | {b"0-0"}
            flips = {bit: b"%d-0" % (int(identity[:-2]) ^ 1 << bit) for bit in range(40)}
            bit = dice.choice([bit for bit, place in flips.items() if place not in taken])
            entries[at] = (flips[bit], entry)
            where = f"bit {bit} of its position"
        else:
            changed, where = flipped(entry[part], dice)
            entries[at] = (identity, {**entry, part: changed})
        with self._client.pipeline() as pipeline:
            pipeline.delete(key)
            for identity_now, fields in sorted(entries, key=lambda each: int(each[0][:-2])):
                pipeline.xadd(key, fields, id=identity_now)
            pipeline.execute()
        return f"{key!r} {identity!r} {part!r}, {where}"
