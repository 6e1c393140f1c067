"""Conditions that a Redis comes into under a running server: each has its refusal, and goes by itself or is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from gradserve.problems import Refused
from gradserve_service.replica import Replica, Replicas
from gradserve_service.store import StoreUnfit, open_store, redis_link
from real_redis import RealRedis
from replica.runs import ADAM, a_run, push, refusal, server, whole_state
from store.chains import kept_objects


@pytest.fixture
def redis() -> Iterator[RealRedis]:
    """One of its own, with an append-only file."""
    with RealRedis(appendonly="yes", appendfsync="everysec") as redis:
        yield redis


@asynccontextmanager
async def a_pushed_run(redis: RealRedis) -> AsyncIterator[tuple[Replicas, Replica]]:
    """A server with a run at version 1."""
    async with server(redis.url) as replicas:
        run = await a_run(replicas)
        await push(run, 1)
        yield replicas, run


async def test_a_primary_that_is_demoted_refuses_and_comes_back(redis: RealRedis) -> None:
    """READONLY: 503 store-unavailable; once it is a primary again the same connection's server goes on."""
    async with a_pushed_run(redis) as (replicas, run):
        redis.command("REPLICAOF", "127.0.0.1", "1")
        assert await refusal(push(run, 2)) == "store-unavailable"
        assert "replica" in (await replicas.ready())[0]
        redis.command("REPLICAOF", "NO", "ONE")
        assert (await push(run, 2)).outcome["version"] == 2
        assert await replicas.ready() == []


async def test_an_evicting_policy_set_at_run_time_makes_the_server_red(redis: RealRedis) -> None:
    """/readyz says what to type, and is green again once it was."""
    async with a_pushed_run(redis) as (replicas, run):
        redis.command("CONFIG", "SET", "maxmemory", "100mb")
        redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert "maxmemory-policy noeviction" in (await replicas.ready())[0]
        redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert await replicas.ready() == []
        assert (await push(run, 2)).outcome["version"] == 2


async def test_a_changed_password_is_store_unavailable_until_it_is_right(redis: RealRedis) -> None:
    """A server that runs stays up and says so; one that starts does not start."""
    async with a_pushed_run(redis) as (replicas, run):
        change_password(redis, "other")
        assert await refusal(push(run, 2)) == "store-unavailable"
        assert "Redis refuses us" in (await replicas.ready())[0]
        with pytest.raises(StoreUnfit, match="Redis refuses us"):
            await Replicas(open_store(redis.url, "memory")).start()
        change_password(redis, None)
        assert (await push(run, 2)).outcome["version"] == 2
        assert await replicas.ready() == []


def change_password(redis: RealRedis, password: str | None) -> None:
    """Of the default user, whose connections all end; over one that has another user's rights."""
    redis.command("ACL", "SETUSER", "operator", "on", ">operator", "~*", "+@all")
    with Redis(unix_socket_path=str(redis.socket), username="operator", password="operator") as client:
        client.execute_command("ACL", "SETUSER", "default", "nopass" if password is None else "resetpass")
        if password is not None:
            client.execute_command("ACL", "SETUSER", "default", f">{password}")
        client.execute_command("CLIENT", "KILL", "USER", "default")


async def test_connections_that_are_killed_cost_nothing(redis: RealRedis) -> None:
    """CLIENT KILL of all, again and again, and scripts forgotten: every push is applied once."""
    async with a_pushed_run(redis) as (_, run):
        for sequence in range(2, 22):
            redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            redis.command("SCRIPT", "FLUSH")
            while (outcome := await outcome_of(run, sequence)) is None:  # the SDK sends it again
                pass
            assert outcome["version"] == sequence


async def outcome_of(run: Replica, sequence: int, meanwhile: str = "store-unavailable") -> dict[str, Any] | None:
    """Of one push; None where it was refused for now."""
    try:
        return dict((await push(run, sequence)).outcome)
    except Refused as refused:
        if refused.rejection.code != meanwhile:
            raise
        return None


async def test_a_full_disk_is_backpressure_until_there_is_room(redis: RealRedis) -> None:
    """The append-only file cannot grow: gradients are refused and weights are served; with room it goes on."""
    async with a_pushed_run(redis) as (replicas, run):
        redis.limit_files(16_000)
        sequence = 2
        while await outcome_of(run, sequence, "backpressure") is not None:
            sequence += 1
        assert await refusal(replicas.create_run("another", ADAM)) == "backpressure"
        weights = await run.weights()
        assert weights is not None
        assert weights.version == sequence - 1
        redis.limit_files(-1)
        while (outcome := await outcome_of(run, sequence, "backpressure")) is None:  # Redis tries again each second
            pass
        assert (outcome["outcome"], outcome["version"]) == ("applied", sequence)


async def test_what_a_full_disk_leaves_of_a_delete_goes_when_there_is_room(redis: RealRedis) -> None:
    """Two runs: the removal of one is interrupted, that of the other refused from the start. Both deletes are answered,
    the server is ready meanwhile, and nothing of either stays."""
    async with a_pushed_run(redis) as (replicas, run):
        uids = [(await a_run(replicas, name=name)).uid for name in ("one", "other")]
        redis.command("ACL", "SETUSER", "default", "-zrange")  # the first step of a removal, and only that
        await replicas.delete_run("one")
        redis.command("ACL", "SETUSER", "default", "+zrange")
        redis.limit_files(16_000)
        sequence = 2
        while await outcome_of(run, sequence, "backpressure") is not None:
            sequence += 1
        assert await replicas.ready() == []
        assert await refusal(replicas.delete_run("other")) == "backpressure"
        redis.limit_files(-1)
        while await outcome_of(run, sequence, "backpressure") is None:
            pass
        assert await replicas.ready() == []
        await replicas.delete_run("other")
        for uid in uids:
            assert b"*1\r\n" in redis.command("KEYS", f"gradserve:{{{uid}}}:*")  # the mark


@pytest.mark.parametrize("naming", ["publish", "keep_checkpoint"])
async def test_an_image_that_finds_no_room_for_its_name_leaves_nothing(redis: RealRedis, naming: str) -> None:
    """Written, and then Redis is full: a snapshot's and a checkpoint's go at once, not when they expire."""
    async with a_pushed_run(redis) as (replicas, run):
        name = getattr(replicas.store, naming)

        async def in_a_full_redis(*said: Any, **more: Any) -> Any:
            assert await kept_objects(redis.url, run.uid) != set()
            redis.command("CONFIG", "SET", "maxmemory", "1")
            try:
                return await name(*said, **more)
            finally:
                redis.command("CONFIG", "SET", "maxmemory", "0")

        setattr(replicas.store, naming, in_a_full_redis)
        if naming == "publish":
            assert not await replicas._open["run"][1].leave_snapshot()
        else:
            assert await refusal(run.checkpoints.create("one")) == "backpressure"
        assert await kept_objects(redis.url, run.uid) == set()


async def test_a_redis_whose_disk_is_full_at_always_ends_and_is_taken_up_again(redis: RealRedis) -> None:
    """It acknowledges nothing that it cannot sync, and exits; started again with room, nothing is lost."""
    redis.command("CONFIG", "SET", "appendfsync", "always")
    redis.settings["appendfsync"] = "always"
    async with a_pushed_run(redis) as (replicas, run):
        redis.limit_files(16_000)
        sequence = 2
        while await outcome_of(run, sequence) is not None:
            sequence += 1
        assert await replicas.ready() != []
        redis.kill()  # it has ended
        redis.start()
        assert await replicas.ready() == []
        assert (await push(run, sequence)).outcome["version"] == sequence
        assert (await run.describe())["version"] == sequence


async def test_an_emptied_redis_is_lost_and_never_made_anew(redis: RealRedis) -> None:
    """FLUSHALL under load: store-lost for reads, gradients and creation."""
    async with a_pushed_run(redis) as (replicas, run):
        redis.command("FLUSHALL")
        assert await refusal(push(run, 2)) == "store-lost"
        assert await refusal(run.weights()) == "store-lost"
        assert await refusal(replicas.create_run("run", ADAM)) == "store-lost"


async def test_a_rewrite_of_the_append_only_file_is_not_noticed(redis: RealRedis) -> None:
    """BGREWRITEAOF while pushes go on; after a restart everything is there."""
    async with a_pushed_run(redis) as (_, run):
        for sequence in range(2, 42):
            if sequence % 10 == 0:
                redis.command("BGREWRITEAOF")
            await push(run, sequence)
        before = await whole_state(run)
        redis.command("WAITAOF", "1", "0", "5000")
    async with server(redis.url) as replicas:
        assert await whole_state(await replicas.open("run")) == before


async def test_a_redis_that_stands_still_is_given_up_and_taken_up_again(
    redis: RealRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP past the deadline of a reply: 503; after SIGCONT the push that hung is known, and is applied once."""
    async with a_pushed_run(redis) as (_, run):
        with monkeypatch.context() as patch:
            patch.setattr(redis_link, "REPLY_SECONDS", 0.3)
            redis.pause()
            assert await refusal(push(run, 2)) == "store-unavailable"
        redis.resume()
        answer = (await push(run, 2)).outcome
        assert (answer["outcome"] in ("applied", "duplicate"), answer["version"]) == (True, 2)
        assert (await run.describe())["version"] == 2
