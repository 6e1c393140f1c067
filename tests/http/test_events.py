"""Events as they come and the journal as it stands, over a real socket."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gradserve.problems import Rejection
from gradserve_service.replica.events import REJECTIONS_A_SECOND, Feed

PATH = "/v1/runs/run/events"
Told = tuple[int | None, str, dict[str, Any]]


@asynccontextmanager
async def watching(served: Any, last: int | None = None) -> AsyncIterator[AsyncIterator[Told]]:
    """The events of the run, from the moment on at which the stream is open."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    async with served.client.stream("GET", PATH, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.aiter_lines()
        assert await anext(lines) == ": here"
        yield told(lines)


async def told(lines: AsyncIterator[str]) -> AsyncIterator[Told]:
    """Server-sent events, parsed: id, kind, fields."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"])
            fields = {}
        else:
            fields = {}


async def some(events: AsyncIterator[Told], count: int) -> list[Told]:
    """The next events; hangs for at most half a minute."""
    async with asyncio.timeout(30):
        return [await anext(events) for _ in range(count)]


async def train(served: Any, first: int, last: int, **fields: Any) -> None:
    """Pushes of worker w."""
    for sequence in range(first, last + 1):
        answer = await served.push(sequence, {"gradients": {"w": [1.0, 2.0]}, **fields})
        assert answer.status_code == 200, answer.text


async def test_an_update_is_told_when_it_is_made(online: Any) -> None:
    """Only what is new; with all that the history has of it; the id is its position."""
    await online.make_run(weights={"w": [1.0, 1.0]})
    await train(online, 1, 2)
    async with watching(online) as events:
        await train(online, 3, 3, loss=0.5, samples=4)
        ((position, kind, fields),) = await some(events, 1)
    description = (await online.client.get("/v1/runs/run")).json()
    assert (position, kind) == (description["position"], "update")
    assert fields["at"] > 0
    expected = {"position": position, "version": 3, "step": 3, "worker": "w", "loss": 0.5, "lr": 0.5, "samples": 4.0}
    assert {name: fields[name] for name in expected} == expected
    assert fields["staleness"] == 0
    assert fields["gradient_norm"] == pytest.approx(5**0.5)
    assert fields["update_norm"] == pytest.approx(5**0.5 / 2)


async def test_last_event_id_goes_on_behind_a_position(online: Any) -> None:
    """What came in between is told from the journal, then what is new, each position once and in order."""
    await online.make_run(weights={"w": [1.0, 1.0]})
    await train(online, 1, 10)
    async with watching(online, last=4) as events:
        before = await some(events, 7)
        await train(online, 11, 13)
        after = await some(events, 3)
    assert [position for position, _, _ in before + after] == list(range(5, 15))
    assert [fields["version"] for _, _, fields in before + after] == list(range(4, 14))
    assert all(fields["gradient_norm"] for _, _, fields in before + after)


async def test_every_kind_of_entry_is_told(online: Any) -> None:
    """A run's whole life, read from its first entry on."""
    await online.make_run(weights={"w": [1.0, 1.0]}, non_finite="skip")
    client = online.client
    await client.put("/v1/runs/run/workers/w", json={"instance": "one"})
    await train(online, 1, 1)
    await client.post("/v1/runs/run/metrics", json={"values": {"accuracy": 0.5}})
    await client.patch("/v1/runs/run", json={"optimizer": {"lr": 0.1}})
    await online.push(2, {"gradients": {"w": [3e38, 0.0]}})
    await client.delete("/v1/runs/run/workers/w")
    async with watching(online, last=0) as events:
        found = await some(events, 7)
    assert [kind for _, kind, _ in found] == ["load", "worker", "update", "report", "configure", "rejection", "worker"]
    assert [position for position, _, _ in found] == list(range(1, 8))
    assert [fields["action"] for _, kind, fields in found if kind == "worker"] == ["join", "leave"]
    assert found[3][2]["values"] == {"accuracy": 0.5}
    assert found[4][2]["spec"]["optimizer"]["lr"] == 0.1
    assert found[5][2]["code"] == "non-finite-gradient"


def test_many_refusals_in_one_second_are_told_in_part() -> None:
    """They say nothing new, and each costs every reader; the next second begins anew."""
    feed, refusal = Feed(), Rejection("history-rewound", "the history is another")
    feed.open()
    number = feed.number_behind(0)
    assert number is not None
    for at in (*range(1_000, 1_100), *range(2_000, 2_003)):
        feed.tell_rejection("w", refusal, 0, at)
    told = [event.fields["at"] for event in feed.events_from(number) or []]
    assert told == [*range(1_000, 1_000 + REJECTIONS_A_SECOND), *range(2_000, 2_003)]


async def test_a_refusal_is_told_without_an_id(online: Any) -> None:
    """It is not in the journal: who comes again must not be sent behind it."""
    await online.make_run(weights={"w": [1.0, 1.0]})
    async with watching(online) as events:
        for _ in range(3):
            await online.push(9, {"gradients": {"w": [1.0, 2.0]}})
        await train(online, 1, 1)
        seen = []
        while not seen or seen[-1][1] != "update":
            seen += await some(events, 1)
    refused = seen[:-1]
    assert {(position, kind, fields["code"]) for position, kind, fields in refused} == {
        (None, "rejection", "history-rewound")
    }
    assert len(refused) == 3
    assert {(fields["position"], fields["version"], fields["at"] > 0) for _, _, fields in refused} == {(1, 0, True)}


async def test_a_checkpoint_and_a_restore_are_told(online: Any) -> None:
    """The checkpoint once, however often it is asked for, and without an id: it is no entry. A restore says of what."""
    await online.make_run(weights={"w": [1.0, 1.0]})
    await train(online, 1, 1)
    async with watching(online) as events:
        for _ in range(2):
            item = (await online.client.put("/v1/runs/run/checkpoints/best")).json()
        await train(online, 2, 2)
        await online.client.post("/v1/runs/run/restore", json={"checkpoint": "best"})
        (place, kind, made), update, restored = await some(events, 3)
    assert (place, kind, update[1]) == (None, "checkpoint", "update")
    expected = {"position": 2, "version": 1, "at": item["created_at"], "name": "best", "step": 1}
    assert made == {**expected, "etag": item["etag"], "bytes": item["bytes"]}
    assert (restored[0], restored[1]) == (4, "load")
    assert (restored[2]["version"], restored[2]["action"], restored[2]["source"]) == (
        3,
        "restore",
        {"checkpoint": "best"},
    )


async def test_a_warning_comes_before_its_update(online: Any) -> None:
    """Live and from the journal."""
    await online.make_run(weights={"a": [1.0], "b": [1.0]})
    async with watching(online) as events:
        await online.push(1, {"gradients": {"a": [1.0], "b": [0.0]}})
        live = await some(events, 2)
    async with watching(online, last=1) as events:
        assert await some(events, 2) == live
    assert [(position, kind) for position, kind, _ in live] == [(None, "warning"), (2, "update")]
    assert live[0][2]["warning"] == "vanishing"


async def test_streams_end_in_order_when_the_server_drains(online: Any) -> None:
    """A whole answer, not a broken one; and no more are let in."""
    await online.make_run(weights={"w": [1.0, 1.0]})
    async with watching(online) as events:
        online.app.state.waits.end()
        async with asyncio.timeout(30):
            assert [event async for event in events] == []
    assert (await online.client.get(PATH)).status_code == 503


async def test_streams_are_bounded(serve: Callable[..., Any], problem: Callable[..., Any]) -> None:
    """Past the limit 429, answered before anything is sent."""
    async with serve(waiting_requests_max=0) as served:
        await served.make_run()
        problem(await served.client.get(PATH), "backpressure")


async def test_a_reader_that_hangs_up_is_forgotten(online: Any) -> None:
    """Its place is free again, and the run keeps no events any more."""
    await online.make_run(weights={"w": [1.0, 1.0]})
    waits = online.app.state.waits
    async with watching(online):
        assert waits.count == 1
        (stream,) = waits._tasks
    async with asyncio.timeout(30):
        await asyncio.wait([stream])
    assert waits.count == 0


async def test_a_deleted_run_ends_its_streams(online: Any) -> None:
    """And asking again says why."""
    await online.make_run(weights={"w": [1.0, 1.0]})
    async with watching(online) as events:
        await online.client.delete("/v1/runs/run")
        async with asyncio.timeout(30):
            assert [event async for event in events] == []
    assert (await online.client.get(PATH)).status_code == 410


async def journal(served: Any, query: str = "") -> list[dict[str, Any]]:
    """GET …/journal, parsed."""
    answer: httpx.Response = await served.client.get(f"/v1/runs/run/journal{query}")
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_the_journal_can_be_checked_by_whoever_reads_it(server: Any) -> None:
    """A line without its last member is the header as it was hashed: each hash follows from the one before."""
    await server.make_run(weights={"w": [1.0, 1.0]})
    await train(server, 1, 200)
    answer = await server.client.get("/v1/runs/run/journal")
    lines = answer.text.splitlines()
    assert [json.loads(line)["position"] for line in lines] == list(range(1, 202))
    head = json.loads(lines[0])["hash"]
    for line in lines[1:]:
        raw, _, claimed = line.rpartition(',"hash":"')
        head = hashlib.sha256(bytes.fromhex(head) + f"{raw}}}".encode()).hexdigest()
        assert claimed == f'{head}"}}'
    assert head == (await server.client.get("/v1/runs/run")).json()["head"]


async def test_since_and_limit_cut_the_journal(server: Any) -> None:
    """Positions behind `since`, `limit` of them at most; behind the head there is nothing."""
    await server.make_run(weights={"w": [1.0, 1.0]})
    await train(server, 1, 9)
    assert [entry["position"] for entry in await journal(server, "?since=3&limit=4")] == [4, 5, 6, 7]
    assert [entry["kind"] for entry in await journal(server, "?since=9")] == ["push"]
    assert await journal(server, "?since=1000") == []


@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?limit=0", "?after=3"])
async def test_the_journals_query_is_checked(server: Any, problem: Callable[..., Any], query: str) -> None:
    """A typo is refused, not ignored."""
    await server.make_run()
    problem(await server.client.get(f"/v1/runs/run/journal{query}"), "validation-error")


async def test_head_on_the_events_answers_at_once(server):
    """The stream's headers alone, and the connection serves the next request."""
    await server.make_run(weights={"w": [1.0]})
    answer = await server.client.head("/v1/runs/run/events")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (await server.client.get("/v1/runs/run")).status_code == 200


async def test_a_reader_from_another_history_hears_of_the_gap_at_once(online):
    """Its last event lies past the head: the first that comes says so, with the head as its id."""
    await online.make_run(weights={"w": [1.0]})
    async with watching(online, last=99) as events:
        (position, kind, fields), *_ = await some(events, 1)
    assert (position, kind, fields["position"]) == (1, "gap", 99)
