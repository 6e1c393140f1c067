"""Flip one bit in something stored, let a fresh server read everything, and judge what it served.

A template is filled once: two runs (payloads in their entries, payloads as objects) with two snapshots, journal before
and behind the newest one, checkpoints, workers and a deleted run. Every flip is made in a copy of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from redis import Redis

from gradserve.specs import PushFields, RunChanges
from gradserve_service.http.problems import rejection_of
from gradserve_service.limits import Limits
from gradserve_service.replica import Replica, Replicas
from gradserve_service.replica.verification import complaints
from gradserve_service.store import StoreUnfit, open_store, open_to_read
from gradserve_service.store.redis_keys import CATALOGUE, NAMES
from gradserve_service.store.sqlite_schema import POSITION_BITS
from replica.runs import ADAM, a_run, gradient, server

RUNS = {"inline": 16, "objects": 400}  # parameters: a frame of at most, or of more than INLINE_BYTES
LIMITS = {"inline_payload_bytes_max": 512, "snapshot_journal_bytes_min": 12_000, "snapshot_state_factor": 1}
SERVED_LIMITS = {"quarantine_seconds_min": 60.0}
# What a refusal may say. `run-not-found` is a name that can no longer be found: nothing is served under it.
REFUSALS = {"quarantined", "store-unavailable", "store-lost", "checkpoint-not-found", "run-not-found", "backpressure"}


@dataclass(frozen=True)
class Verdict:
    """What came of one flip."""

    outcome: str  # refused, recovered, verify only, harmless, served wrong
    why: str


@dataclass
class Counts:
    """Of all flips, by what was hit."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, place: str, verdict: Verdict) -> None:
        self.outcomes.setdefault(kind, Counter())[verdict.outcome] += 1
        if verdict.outcome == "harmless":
            self.reasons[f"{kind}, {place.partition(' of ')[0]}: {verdict.why}"] += 1
        if verdict.outcome == "served wrong":
            self.wrong.append(f"{kind} ({place}): {verdict.why}")

    @property
    def total(self) -> Counter[str]:
        return sum(self.outcomes.values(), Counter[str]())


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


# What is stored


async def fill(url: str) -> None:
    """The template."""
    async with server(url, **LIMITS) as replicas:
        for name, size in RUNS.items():
            run = await a_run(replicas, size, ADAM, name)
            sequencer = replicas._open[name][1]
            sequence = 0
            while len(await replicas.store.snapshots(run.uid)) < 2 or sequence < 20:
                sequence += 1
                await _push(run, sequence, size)
                await sequencer._snapshots.finish()
                if sequence == 5:
                    await run.checkpoints.create("early")
            for _ in range(2):  # behind the newest snapshot, and not enough for the next
                sequence += 1
                await _push(run, sequence, size)
            await run.configure(RunChanges.model_validate({"optimizer": {"lr": 0.05}}))
            await run.report({"loss": 0.5}, None)
            await run.checkpoints.create("late")
        await a_run(replicas, 4, ADAM, "gone")
        await replicas.delete_run("gone")


async def _push(run: Replica, sequence: int, size: int) -> None:
    await run.push("w0", sequence, gradient(sequence, size), PushFields(loss=1.0 / sequence, cursor=f"at {sequence}"))


# What is served

Answers = dict[str, Any]


async def answers(replicas: Replicas) -> Answers:
    """Everything that a server tells of the template; `(code,)` where it refuses."""
    told: Answers = {"listed": await _asked(_names(replicas))}
    for name in RUNS:
        try:
            run = await replicas.open(name)
        except Exception as error:  # noqa: BLE001 - as the edge of HTTP does
            told |= {f"{name} {question}": _refusal(error) for question in QUESTIONS}
            continue
        for question, ask in QUESTIONS.items():
            told[f"{name} {question}"] = await _asked(ask(run))
    try:
        await replicas.open("gone")
        told["gone"] = "opened"
    except Exception as error:  # noqa: BLE001
        told["gone"] = _refusal(error)
    return told


async def _asked(question: Awaitable[Any]) -> Any:
    try:
        return await question
    except Exception as error:  # noqa: BLE001
        return _refusal(error)


def _refusal(error: Exception) -> Any:
    rejection = rejection_of(error, request_id="flip")
    return (rejection.code,)


async def _names(replicas: Replicas) -> list[str]:
    return [str(row) for row in await replicas.list_runs()]


async def _weights(run: Replica) -> Any:
    published = await run.weights()
    assert published is not None
    return published.weights.tobytes(), published.etag, published.version, published.position, published.step


async def _slots(run: Replica) -> Any:
    layout, slots, metadata = await run.optimizer_state()
    return layout.describe(), slots.tobytes(), metadata


async def _history(run: Replica) -> Any:
    return {name: column.tobytes() for name, column in (await run.past.history(None, -1, None)).items()}


async def _journal(run: Replica) -> Any:
    return [(record.position, record.header, record.hash) async for record in await run.past.journal(0, None)]


async def _checkpoint(run: Replica, name: str) -> Any:
    async with run.checkpoints.file(name) as (item, file):
        return item, bytes(file)


QUESTIONS: dict[str, Callable[[Replica], Awaitable[Any]]] = {
    "weights": _weights,
    "slots": _slots,
    "description": lambda run: run.describe(),
    "history": _history,
    "workers": lambda run: run.workers(),
    "outcome": lambda run: run.push_outcome("w0", 10_000),
    "journal": _journal,
    "checkpoints": lambda run: run.checkpoints.listed(),
    "checkpoint early": lambda run: _checkpoint(run, "early"),
    "checkpoint late": lambda run: _checkpoint(run, "late"),
}


class Trial:
    """The template, what is served from it whole, and the judgement of each flip."""

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self.counts = Counts()
        self._whole: Answers = {}

    async def prepare(self) -> None:
        """Fill the store, keep it, and ask a server of it everything."""
        await fill(self.medium.url)
        self.medium.keep()
        async with server(self.medium.url, **SERVED_LIMITS) as replicas:
            self._whole = await answers(replicas)
        refused = [name for name, told in self._whole.items() if _is_refusal(told) and name not in ("gone",)]
        assert refused == [f"{name} outcome" for name in RUNS], refused
        self.medium.renew()
        assert await self._damage() == []

    async def flip(self, kind: str, dice: random.Random) -> Verdict:
        """One flip and its judgement."""
        self.medium.renew()
        where = self.medium.flip(kind, dice)
        verdict = await self._judge()
        self.counts.add(kind, where, verdict)
        return verdict

    async def _judge(self) -> Verdict:
        replicas = Replicas(open_store(self.medium.url, "memory"), limits=Limits(**SERVED_LIMITS))  # type: ignore[arg-type]
        try:
            await replicas.start()
        except StoreUnfit as unfit:
            return Verdict("refused", str(unfit))
        try:
            told = await answers(replicas)
            fallback = any(each.state is not None and each.state.damaged for _, each in replicas._open.values())
        finally:
            await replicas.close()
        verdict = self._compare(told)
        if verdict is not None:
            return verdict
        if fallback:
            return Verdict("recovered", "from the previous image")
        found = await self._damage()
        return Verdict("verify only", found[0]) if found else Verdict("harmless", "equal answers, nothing to find")

    def _compare(self, told: Answers) -> Verdict | None:
        """None: every answer is as without the flip."""
        differing = {name for name, value in told.items() if value != self._whole[name]}
        refused = {name for name in differing if _is_refusal(told[name])}
        wrong = differing - refused
        # A list without what is refused by name is no lie.
        if "listed" in wrong and set(told["listed"]) < set(self._whole["listed"]):
            wrong.discard("listed")
            refused.add("listed")
        for name in RUNS:
            items = f"{name} checkpoints"
            if items in wrong and all(item in self._whole[items] for item in told[items]):
                wrong.discard(items)
                refused.add(items)
        codes = {told[name][0] for name in refused if _is_refusal(told[name])}
        if wrong or codes - REFUSALS:
            return Verdict("served wrong", f"{sorted(wrong)} {sorted(codes)}")
        if refused:
            return Verdict("refused", ", ".join(sorted(codes)))
        return None

    async def _damage(self) -> list[str]:
        """What `gradserve inspect --verify` finds."""
        store = await open_to_read(self.medium.url)
        try:
            found = await store.complaints()
            for record in await store.names():
                found += [text async for text in complaints(store, record)]
            return found
        finally:
            await store.close()


def _is_refusal(told: Any) -> bool:
    return isinstance(told, tuple) and len(told) == 1


async def flip_many(trial: Trial, flips: int, seed: int, progress: Callable[[int], None] = lambda done: None) -> Counts:
    """That many flips, the kinds in turn."""
    dice = random.Random(seed)
    kinds = trial.medium.kinds
    for number in range(flips):
        await trial.flip(kinds[number % len(kinds)], dice)
        progress(number + 1)
    return trial.counts


def run(medium: Medium, flips: int, seed: int, progress: Callable[[int], None] = lambda done: None) -> Counts:
    """A whole trial, in an event loop of its own."""

    async def whole() -> Counts:
        trial = Trial(medium)
        await trial.prepare()
        return await flip_many(trial, flips, seed, progress)

    return asyncio.run(whole())
