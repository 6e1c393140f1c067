"""What a real Redis does to its clients: dies, stalls, fills up, is replaced by one set up in another way."""

from __future__ import annotations

import asyncio
import os
import secrets

import pytest
from redis.asyncio import Redis

from gradserve_service.store import StoreFull, StoreUnavailable, open_store, redis_link, redis_store
from gradserve_service.store.records import Appended, HeadMoved
from gradserve_service.store.redis_keys import CATALOGUE, DELETING, NAMES, run_key
from gradserve_service.store.redis_packing import pack
from gradserve_service.store.redis_scripts import DELETE
from gradserve_service.store.redis_store import RedisStore
from real_redis import RealRedis
from store.chains import Chain, connected, end, record, records, seen_by_the_loop


async def fill(chain: Chain) -> None:
    """Append until the store refuses."""
    while len(chain.entries) < 2_000:
        await chain.put(*[os.urandom(60_000)] * 8, b"small")


async def test_kill_9_of_redis_loses_nothing_acknowledged_at_fsync() -> None:
    """Appended one by one until the kill hits in the middle; every acknowledged entry is there after the restart."""
    with RealRedis(appendonly="yes", appendfsync="always") as server:
        async with connected(server.url) as store:
            assert store.durability == "fsync"
            chain = await Chain.create(store)
            await chain.put(await chain.object(os.urandom(5 << 20)))
            enough = asyncio.Event()

            async def append_for_ever() -> None:
                while True:
                    await chain.put(os.urandom(2_000))
                    if len(chain.entries) == 50:
                        enough.set()

            appending = asyncio.create_task(append_for_ever())
            await enough.wait()
            await asyncio.to_thread(server.kill)
            with pytest.raises(StoreUnavailable):
                await appending
            await asyncio.to_thread(server.start)
            await store.check()
            kept = await chain.read()
            assert kept[: len(chain.entries)] == chain.entries
            assert len(kept) - len(chain.entries) <= 1  # the last one may be in without its reply
            assert await store.head("u1") == end(kept)
            await store.get_object("u1", chain.entries[0].object)


async def test_a_store_comes_back_by_itself_when_redis_does() -> None:
    """Every method says `unavailable` meanwhile; nothing has to be opened again."""
    with RealRedis(appendonly="yes", appendfsync="always") as server:
        async with connected(server.url) as store:
            chain = await Chain.create(store)
            await chain.put(b"before")
            server.kill()
            for question in (
                store.head("u1"),
                store.check(),
                store.find("digits"),
                store.append("u1", chain.head, [record(chain.head)]),
                store.put_object("u1", [b"payload"]),
                store.memory_pressure(),
                store.delete("digits", "u1"),
            ):
                with pytest.raises(StoreUnavailable):
                    await question
            server.start()
            await store.check()
            await chain.put(b"after")
            assert await chain.read() == chain.entries


async def test_a_restart_between_two_appends_is_noticed_before_sending() -> None:
    """The old connection is dead; nothing was sent over it, so the append need not fail."""
    with RealRedis(appendonly="yes", appendfsync="always") as server:
        async with connected(server.url) as store:
            chain = await Chain.create(store)
            server.kill()
            server.start()
            await seen_by_the_loop(store)
            await chain.put(b"after")


async def test_a_server_starts_while_redis_is_away() -> None:
    """`open` says so, and works later on the same store."""
    server = RealRedis()
    store = open_store(server.url, "memory")
    try:
        with pytest.raises(StoreUnavailable):
            await store.open()
        server.start()
        await store.open()
        await Chain.create(store)
    finally:
        await store.close()
        server.stop()


async def test_a_redis_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel still takes what we send, and it runs it when it wakes: before the second attempt, or after it."""
    with RealRedis() as server:
        async with connected(server.url) as store:
            chain = await Chain.create(store)
            monkeypatch.setattr(redis_link, "REPLY_SECONDS", 0.2)
            server.pause()
            entry = record(chain.head, b"payload")
            with pytest.raises(StoreUnavailable, match="did not answer"):
                await store.append("u1", chain.head, [entry])
            server.resume()
            monkeypatch.undo()
            assert await store.append("u1", chain.head, [entry]) in (Appended(), HeadMoved(end([entry])))
            assert await chain.read() == [entry]


async def test_a_caller_that_is_cancelled_does_not_spoil_the_connection() -> None:
    """The reply that nobody waits for must not be taken for the answer to the next question."""
    with RealRedis() as server:
        async with connected(server.url) as store:
            chain = await Chain.create(store)
            server.pause()
            waiting = [asyncio.create_task(store.find("digits")) for _ in range(12)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            server.resume()
            assert await store.head("u1") == chain.head
            assert await asyncio.gather(*(store.find("digits") for _ in range(12))) == [chain.run] * 12


async def test_a_full_redis_refuses_and_keeps_nothing_of_what_it_refused() -> None:
    """Batches of payloads until it is full; then the chain is what was acknowledged, and a delete still works."""
    with RealRedis(maxmemory="24mb") as server:
        async with connected(server.url) as store:
            chain = await Chain.create(store)
            await Chain.create(store, "other", "u2")
            with pytest.raises(StoreFull):
                await fill(chain)
            assert len(chain.entries) > 50
            server.command("CONFIG", "SET", "maxmemory", "8mb")  # full to the last byte, whatever was just freed
            assert await store.memory_pressure() > 1
            with pytest.raises(StoreFull):
                await store.append("u1", chain.head, records(chain.head, [b"x"] * 3))
            with pytest.raises(StoreFull):
                await store.put_object("u1", [os.urandom(9 << 20)])
            with pytest.raises(StoreFull):
                await Chain.create(store, "third", "u3")
            assert await store.find("third") is None
            assert await store.head("u1") == chain.head
            assert await chain.read() == chain.entries
            assert await store.delete("digits", "u1")
            server.command("CONFIG", "SET", "maxmemory", "24mb")
            await Chain.create(store, "third", "u3")


async def test_an_object_that_does_not_fit_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MiB for a Redis of 64: what had been written is removed with the refusal, not when it expires, for the memory
    that it fills is everybody's."""
    monkeypatch.setattr(redis_store, "PRESSURE_SECONDS", 0.0)
    with RealRedis(maxmemory="64mb") as server:
        async with connected(server.url) as store, Redis.from_url(server.url) as client:
            await Chain.create(store)
            before = await store.memory_pressure()
            with pytest.raises(StoreFull):
                await store.put_object("u1", [os.urandom(4 << 20)] * 25)
            assert await client.keys("gradserve:{u1}:object:*") == []
            assert await store.memory_pressure() < before + 0.2


async def test_nothing_of_a_refused_stream_runs_after_its_refusal() -> None:
    """What was sent behind the command that found no memory is answered first: here one that waits for a list."""
    with RealRedis() as server:
        async with connected(server.url) as store, Redis.from_url(server.url) as client:
            assert isinstance(store, RedisStore)
            await client.lpush("held", "x")
            await client.config_set("maxmemory", 1)
            begun = asyncio.Event()
            commands = [pack("PING"), pack("SET", "key", "value"), pack("BLPOP", "list", "30")]
            streaming = asyncio.create_task(store._bulk.stream(commands, lambda *_: begun.set()))
            await begun.wait()
            await client.rename("held", "list")  # needs no memory
            with pytest.raises(StoreFull):
                await streaming
            assert not await client.exists("list")


async def test_a_trim_works_when_memory_is_full() -> None:
    """It is what makes room."""
    with RealRedis(maxmemory="24mb") as server:
        async with connected(server.url) as store:
            chain = await Chain.create(store)
            await chain.put(b"first", b"second")
            await chain.publish(1)
            await chain.put(*[os.urandom(60_000)] * 60)
            await chain.publish(61)
            with pytest.raises(StoreFull):
                await fill(chain)
            assert await store.trim("u1") == 1
            server.command("CONFIG", "SET", "maxmemory", "48mb")
            await chain.publish(len(chain.entries))
            server.command("CONFIG", "SET", "maxmemory", "16mb")
            assert await store.trim("u1") == 60


async def test_scripts_that_redis_forgot_are_sent_again(redis_url: str) -> None:
    """SCRIPT FLUSH, or a fail-over to a Redis that never saw them."""
    async with connected(redis_url) as store, Redis.from_url(redis_url) as client:
        chain = await Chain.create(store)
        await client.script_flush()
        await chain.put(b"a")
        await client.script_flush()
        await asyncio.gather(*(store.append("u1", chain.head, [record(chain.head)]) for _ in range(5)))
        assert [entry.position for entry in await chain.read()] == [1, 2]


async def test_an_object_expires_unless_it_is_named(redis_url: str) -> None:
    """Orphans of a crashed upload go by themselves; what an entry or a snapshot names stays for good."""
    async with connected(redis_url) as store, Redis.from_url(redis_url) as client:

        async def seconds_left(identity: str) -> list[int]:
            return [await client.ttl(key) for key in await client.keys(f"gradserve:{{u1}}:object:{identity}:*")]

        chain = await Chain.create(store)
        payload, orphan = [await chain.object(os.urandom(9 << 20)) for _ in range(2)]
        assert all(0 < left <= 900 for left in await seconds_left(payload.id))
        await chain.put(payload)
        snapshot = await chain.publish(1)
        assert await seconds_left(payload.id) == [-1, -1, -1]
        assert await seconds_left(snapshot.object.id) == [-1]
        assert all(0 < left <= 900 for left in await seconds_left(orphan.id))


async def test_a_repeated_upload_cannot_re_arm_the_expiry_of_a_committed_chunk(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very command of the upload, run once more, late."""
    async with connected(redis_url) as store, Redis.from_url(redis_url) as client:
        chain = await Chain.create(store)
        ref = await chain.object(b"payload")
        await chain.put(ref)
        monkeypatch.setattr(secrets, "token_hex", lambda _: ref.id)
        with pytest.raises(StoreUnavailable, match="there already"):
            await chain.object(b"another")
        assert await client.ttl(f"gradserve:{{u1}}:object:{ref.id}:0") == -1
        assert await store.get_object("u1", ref) == b"payload"


async def test_an_interrupted_delete_is_resumed_at_open(redis_url: str) -> None:
    """A server died right after it had set the mark."""
    async with connected(redis_url) as store, Redis.from_url(redis_url) as client:
        chain = await Chain.create(store)
        await chain.put(b"a", await chain.object())
        await chain.publish(1)
        keys = (CATALOGUE, NAMES, DELETING, run_key("u1"))
        assert await client.eval(DELETE.source, len(keys), *keys, "digits", "u1") == 1
        assert len(await client.keys("gradserve:{u1}:*")) == 5
    async with connected(redis_url), Redis.from_url(redis_url) as client:
        assert await client.keys("gradserve:{u1}:*") == [run_key("u1")]  # the mark
        assert 0 < await client.ttl(run_key("u1")) <= 30 * 24 * 3600
        assert await client.scard(DELETING) == 0


async def test_a_delete_cut_off_by_redis_is_resumed_when_it_is_back() -> None:
    """The mark was set, then Redis went away: the answer is True, and `check` removes the keys later."""
    with RealRedis(appendonly="yes", appendfsync="always") as server:
        async with connected(server.url) as store, Redis.from_url(server.url) as client:
            chain = await Chain.create(store)
            await chain.put(b"a", await chain.object())
            await client.config_set("maxmemory", 0)
            # Redis refuses ZRANGE, the first step of the removal, and only that: as if it had gone away there.
            await client.execute_command("ACL", "SETUSER", "default", "-zrange")
            assert await store.delete("digits", "u1")
            await client.execute_command("ACL", "SETUSER", "default", "+zrange")
            assert len(await client.keys("gradserve:{u1}:*")) == 4
            await store.check()
            assert await client.keys("gradserve:{u1}:*") == [run_key("u1")]


async def test_nothing_is_left_of_a_run_that_lived_and_was_deleted(redis_url: str) -> None:
    """Every key in the database is counted."""
    async with connected(redis_url) as store, Redis.from_url(redis_url) as client:
        chain = await Chain.create(store)
        for _ in range(4):
            await chain.put(b"inline", await chain.object(os.urandom(5 << 20)))
        for position in (2, 4, 6):
            await chain.publish(position, os.urandom(5 << 20))
            await store.trim("u1")
        # run, journal, objects; 2 payloads and 2 images of 2 chunks each; catalogue, names
        assert await client.dbsize() == 3 + 8 + 2
        await store.delete("digits", "u1")
        assert set(await client.keys("*")) == {CATALOGUE, run_key("u1")}


async def test_a_page_of_names_is_full_whatever_is_left_out(redis_url: str) -> None:
    """Fewer names than asked for mean that there are no more: not that one was deleted meanwhile, or cannot be read. A
    damaged name is passed as it stands in Redis."""
    async with connected(redis_url) as store, Redis.from_url(redis_url) as client:
        for number, name in enumerate(("a", "c", "e")):
            await Chain.create(store, name, f"u{number}")
        await client.zadd(NAMES, {"b": 0, b"d\xe9": 0, "d": 0})  # as of a run whose record is gone by now
        await client.hset(CATALOGUE, mapping={b"d\xe9": await client.hget(CATALOGUE, "a"), "d": "not a record"})
        pages, after = [], ""
        while page := await store.names(after=after, limit=2):
            pages.append([(run.name, run.sound) for run in page])
            after = page[-1].name
        assert pages == [[("a", True), ("c", True)], [("d\\xe9", False), ("e", True)]]


async def test_a_run_is_the_same_over_the_unix_socket() -> None:
    """One server over TCP, another over the socket: one chain."""
    with RealRedis() as server:
        async with connected(server.url) as first, connected(server.unix_url) as second:
            chain = await Chain.create(first)
            await chain.put(b"over tcp", await chain.object(os.urandom(9 << 20)))
            assert await second.read("u1", after=0, limit=9) == chain.entries
            entry = record(chain.head)
            assert await second.append("u1", chain.head, [entry]) == Appended()
            assert await first.append("u1", chain.head, [entry]) == HeadMoved(end([entry]))
