"""SIGTERM under load: the server leaves in order and nobody notices."""

from __future__ import annotations

import socket

from faults.processes import Server, serving
from faults.siege import RUN, Siege
from faults.test_server_kills import require_kept

PUSHED = b'{"gradients": {"bias": [1, 2, 3]}}'


def test_sigterm_under_load_loses_nothing_and_shows_nothing(store_url, tmp_path):
    """Exit code 0; the workers' SDK carries them over; whatever was acknowledged is there after the restart."""
    siege = Siege(store_url, tmp_path, seed=4)
    with siege.under_load(settings={"retain": "all"}) as (server, crew):
        for _ in range(3):
            crew.everybody(3)
            assert server.terminate() == 0, server.log.end()
            server.start()
        crew.everybody(3)
        siege.last_life(server, crew)
        outcomes = {push["outcome"] for push in crew.outcomes()}
        retried = "".join(member.errors.read_text(encoding="utf-8") for member in crew.members)
    assert outcomes <= {"applied", "duplicate"}
    assert "status 503: draining" in retried
    require_kept(siege.audit())


def test_a_body_that_ends_after_the_drain_is_told_so(store_url, tmp_path):
    """A slow upload that began before SIGTERM gets its 503 `draining`, also when the runs are closed by then; it holds
    up nobody, and nothing of it is applied."""
    with serving(store_url, tmp_path) as server:
        Siege(store_url, tmp_path).create_run(server.url)
        with half_a_push(server) as upload:
            server.terminating()
            server.log.wait_for("snapshot")
            wait_until_refused(server)
            upload.sendall(PUSHED[10:])
            answer = b"".join(iter(lambda: upload.recv(1 << 12), b""))
        assert server.ended() == 0
        assert answer.startswith(b"HTTP/1.1 503 "), answer
        assert b"retry-after: 1\r\n" in answer
        assert b'"code":"draining"' in answer
        assert "Traceback" not in server.log.end()
        server.start()
        assert server.answer("GET", f"/v1/runs/{RUN}").json()["version"] == 0


def half_a_push(server: Server) -> socket.socket:
    """A connection with half of a push's body sent. The server has begun to read it: it said 100 Continue."""
    upload = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    upload.sendall(
        f"PUT /v1/runs/{RUN}/workers/slow/pushes/1 HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(PUSHED)}\r\n\r\n".encode()
    )
    begun = upload.recv(1 << 12)
    assert begun.startswith(b"HTTP/1.1 100 "), begun
    upload.sendall(PUSHED[:10])
    return upload


def wait_until_refused(server: Server) -> None:
    """Return once the server no longer listens: then its runs are closed."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=60).close()
        except ConnectionError:
            return
