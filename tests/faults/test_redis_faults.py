"""Redis killed, stopped and absent, under real load: the server stays up, says so, and goes on by itself."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.processes import Server, a_free_port, serving
from faults.siege import RUN, Siege
from faults.test_server_kills import require_kept
from real_redis import RealRedis

REDIS_KILLS = 5
GHOST_ROUNDS = 5
STILL_SECONDS = 2.0  # workers push every few milliseconds
PUSH = f"/v1/runs/{RUN}/workers/curl/pushes/1"
PUSHED = b'{"gradients": {"bias": [1, 2, 3]}}'


def a_redis(**settings: str) -> RealRedis:
    """A Redis of its own that keeps everything, on a port that nobody is given for an outgoing connection."""
    redis = RealRedis(appendonly="yes", appendfsync="always", **settings)
    redis.port = a_free_port()
    return redis


@pytest.fixture
def lasting_redis() -> Iterator[RealRedis]:
    """Started, with an append-only file that is synced at every write."""
    with a_redis() as redis:
        yield redis


def require_unavailable(server: Server) -> None:
    """The server lives, is not ready, and refuses whatever needs the store: 503 store-unavailable, with Retry-After."""
    assert server.answer("GET", "/healthz").status == 200
    asked = (
        ("GET", "/readyz", None),
        ("GET", f"/v1/runs/{RUN}", None),
        ("GET", f"/v1/runs/{RUN}/weights", None),
        ("PUT", PUSH, PUSHED),
        ("PUT", "/v1/runs/another", b'{"optimizer": "adam"}'),
    )
    for method, path, content in asked:
        answer = server.answer(method, path, content, Content_Type="application/json")
        came = (answer.status, answer.json()["code"], answer.headers["retry-after"])
        assert came == (503, "store-unavailable", "1"), f"{method} {path}: {answer.body!r}"


def test_a_killed_redis_stops_the_pushes_and_loses_nothing(lasting_redis, tmp_path):
    """kill -9 of Redis under load, again and again. The server process stays the same, and so does every promise."""
    siege = Siege(lasting_redis.url, tmp_path, seed=5)
    with siege.under_load(durability="fsync") as (server, crew):
        crew.everybody(1)
        assert server.answer("GET", "/readyz").status == 200
        for _ in range(REDIS_KILLS):
            crew.everybody(2)
            lasting_redis.kill()
            require_unavailable(server)
            lasting_redis.start()
            assert server.answer("GET", "/readyz").status == 200
        crew.everybody(2)
        assert server.lives == 1
        siege.last_life(server, crew)
    require_kept(siege.audit())


def test_what_a_dead_server_left_in_the_pipe_is_applied_once(lasting_redis, tmp_path):
    """Redis stands still, the server sends an append and dies; then Redis wakes up and runs it. Nobody was told, the
    worker sends its gradient again, and the next server knows it."""
    siege = Siege(lasting_redis.url, tmp_path, seed=6)
    with siege.under_load() as (server, crew):
        for _ in range(GHOST_ROUNDS):
            crew.everybody(1)
            lasting_redis.pause()
            with contextlib.ExitStack() as awake:
                awake.callback(lasting_redis.resume)
                wait_for_unread_bytes(lasting_redis.port)
                server.kill()
            server.start()
        crew.everybody(1)
        siege.last_life(server, crew)
    findings = siege.audit()
    require_kept(findings)
    assert findings.duplicates >= 1


def test_a_server_starts_without_its_redis_and_finds_it_when_it_comes(tmp_path):
    """/readyz is red and says why; once Redis is there it turns green, and the first run is made."""
    redis = a_redis()
    with contextlib.ExitStack() as ended:
        ended.callback(redis.stop)
        server = ended.enter_context(serving(redis.url, tmp_path))
        require_unavailable(server)
        redis.start()
        server.log.wait_for("store_reached")
        assert server.answer("GET", "/readyz").status == 200
        Siege(redis.url, tmp_path).create_run(server.url)
        assert server.answer("PUT", PUSH, PUSHED, Content_Type="application/json").status == 200


def wait_for_unread_bytes(port: int) -> None:
    """Return once bytes wait in the kernel for the Redis that listens on this port and stands still.

    The kernel tells nobody of it: /proc/net/tcp is looked at until it says so. If none come in a while, Redis was
    stopped in the middle of a command and the server waits for its reply: as good, what is left behind is that command.
    """
    deadline = time.monotonic() + STILL_SECONDS
    while not unread_bytes(port) and time.monotonic() < deadline:
        time.sleep(0.005)


def unread_bytes(port: int) -> int:
    """Bytes in the receive queues of established connections to that port (proc(5), /proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    own = f"0100007F:{port:04X}"
    return sum(int(row[4].split(":")[1], 16) for row in rows if row[1] == own and row[3] == "01")
