"""Flip one bit in something stored, let a fresh server read everything, and judge what it served.

A template is filled once: two runs (payloads in their entries, payloads as objects) with two snapshots, journal before
and behind the newest one, checkpoints, workers and a deleted run. Every flip is made in a copy of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from faults.media import Medium
from gradserve.specs import PushFields, RunChanges
from gradserve_service.http.problems import rejection_of
from gradserve_service.limits import Limits
from gradserve_service.replica import Replica, Replicas
from gradserve_service.replica.verification import complaints
from gradserve_service.store import StoreUnfit, open_store, open_to_read
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
