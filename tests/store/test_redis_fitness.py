"""Whether a Redis may be used: what it is set up to promise, at the start and after every reconnect."""

from __future__ import annotations

import pytest

from gradserve_service.store import StoreUnavailable, StoreUnfit, open_store
from gradserve_service.store.records import Durability
from gradserve_service.store.redis_store import RedisStore
from real_redis import RealRedis
from store.chains import Chain, connected, record, seen_by_the_loop


async def test_an_evicting_redis_is_refused_with_the_cure() -> None:
    """At open; without a limit there is nothing to evict for."""
    evicting = {"maxmemory-policy": "allkeys-lru"}
    with RealRedis(maxmemory="64mb", **evicting) as server:
        store = open_store(server.url, "memory")
        with pytest.raises(StoreUnfit, match="CONFIG SET maxmemory-policy noeviction"):
            await store.open()
        server.command("CONFIG", "SET", "maxmemory", "0")
        await store.open()
        server.command("CONFIG", "SET", "maxmemory", "64mb")
        with pytest.raises(StoreUnfit, match="allkeys-lru"):
            await store.check()
        await store.close()


async def test_a_redis_that_evicts_after_a_reconnect_is_not_written_to() -> None:
    """Somebody restarted it with other settings: refused before the first byte, told apart from being away."""
    with RealRedis(appendonly="yes", appendfsync="always") as server:
        async with connected(server.url) as store:
            chain = await Chain.create(store)
            server.kill()
            server.settings |= {"maxmemory": "64mb", "maxmemory-policy": "volatile-lru"}
            server.start()
            await seen_by_the_loop(store)
            with pytest.raises(StoreUnavailable, match="volatile-lru"):
                await store.append("u1", chain.head, [record(chain.head)])
            with pytest.raises(StoreUnfit, match="volatile-lru"):
                await store.check()
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await store.check()
            assert await chain.read() == []
            await chain.put(b"after the cure")


LEVELS: list[tuple[dict[str, str], Durability]] = [
    ({"appendonly": "no"}, "memory"),
    ({"appendonly": "yes", "appendfsync": "no"}, "memory"),
    ({"appendonly": "yes", "appendfsync": "everysec"}, "journal"),
    ({"appendonly": "yes", "appendfsync": "always"}, "fsync"),
]


async def test_the_durability_is_what_redis_is_set_to() -> None:
    """Read at open and at each check: no restart is needed to see a cure."""
    with RealRedis() as server:
        async with connected(server.url) as store:
            for settings, level in LEVELS:
                for name, value in settings.items():
                    server.command("CONFIG", "SET", name, value)
                await store.check()
                assert store.durability == level


async def test_where_config_is_forbidden_the_common_value_is_assumed(caplog: pytest.LogCaptureFixture) -> None:
    """As in many managed Redis; it is said in the log. The password is said nowhere."""
    with RealRedis(appendonly="yes", appendfsync="always") as server:
        server.command("ACL", "SETUSER", "trainer", "on", ">hunter2", "~*", "+@all", "-config")
        store = open_store(f"redis://trainer:hunter2@127.0.0.1:{server.port}/0", "fsync")
        await store.open()
        await (await Chain.create(store)).put(b"a")
        assert store.durability == "journal"
        assert "CONFIG is forbidden" in caplog.text
        assert "hunter2" not in caplog.text + store.url + repr(store)
        await store.close()


@pytest.mark.parametrize("login", ["", "trainer:wrong-secret@"])
async def test_a_wrong_password_is_unfit_and_is_not_repeated(login: str) -> None:
    """Waiting does not cure it."""
    with RealRedis() as server:
        server.command("CONFIG", "SET", "requirepass", "right-secret")
        store = open_store(f"redis://{login}127.0.0.1:{server.port}/0", "memory")
        with pytest.raises(StoreUnfit) as unfit:
            await store.open()
        assert "secret" not in str(unfit.value)
        await store.close()


async def test_a_replica_is_unfit_and_a_demoted_primary_is_unavailable() -> None:
    """A failover: the old primary turns read-only under us, then somebody is primary again."""
    with RealRedis() as server, RealRedis() as other:
        async with connected(server.url) as store:
            chain = await Chain.create(store)
            server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
            server.command("REPLICAOF", "127.0.0.1", str(other.port))
            with pytest.raises(StoreUnavailable):
                await store.append("u1", chain.head, [record(chain.head)])
            assert isinstance(store, RedisStore)
            assert not any(lane.is_connected for lane in store._link._idle)  # the next one asks for the primary again
            with pytest.raises(StoreUnfit, match="replica"):
                await store.check()
            server.command("REPLICAOF", "NO", "ONE")
            await store.check()
