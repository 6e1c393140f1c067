"""`gradserve serve`: it says where it is, leaves in order, and explains why it does not start."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from http.client import HTTPResponse
from importlib.metadata import version

import httpx
import pytest

SPEC = {"optimizer": {"name": "sgd", "lr": 0.5}, "weights": {"w": [1.0]}}
PUSH = {"gradients": {"w": [1.0]}}


def test_the_start_up_line_says_all_that_a_script_needs(serve, tmp_path):
    server = serve()
    address = server.address
    assert address["event"] == "serving"
    assert address["version"] == version("gradserve")
    assert address["url"] == f"http://127.0.0.1:{address['port']}"
    assert address["docs"] == f"{address['url']}/docs"
    assert address["store"].startswith("sqlite:")
    assert address["durability"] == "journal"
    assert address["pid"] == server.child.pid
    assert httpx.get(f"{address['url']}/readyz").status_code == 200
    assert (tmp_path / "gradserve-data" / "gradserve.db").exists()


def test_settings_come_from_the_environment_too(serve):
    server = serve(GRADSERVE_TOKEN="secret-word", GRADSERVE_DURABILITY="fsync")
    url = f"{server.address['url']}/v1/server"
    assert server.address["durability"] == "fsync"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": "Bearer secret-word"}).json()["durability"] == "fsync"
    assert server.end() == 0
    assert "secret-word" not in server.log.read_text()


def test_sigterm_drains_and_the_next_server_goes_on_where_this_one_was(serve):
    server = serve()
    with httpx.Client(base_url=server.address["url"]) as client:
        client.put("/v1/runs/r", json=SPEC).raise_for_status()
        client.put("/v1/runs/r/workers/w/pushes/1", json=PUSH).raise_for_status()
        assert server.end() == 0
    log = server.log.read_text()
    assert "draining" in log
    assert "Traceback" not in log
    successor = serve()
    with httpx.Client(base_url=successor.address["url"]) as client:
        assert client.put("/v1/runs/r/workers/w/pushes/1", json=PUSH).json()["outcome"] == "duplicate"
        assert client.put("/v1/runs/r/workers/w/pushes/2", json=PUSH).json()["version"] == 2
    assert successor.end() == 0


def test_ctrl_c_ends_as_sigterm_does(serve):
    server = serve()
    server.child.send_signal(signal.SIGINT)
    assert server.wait() == 0
    assert "Traceback" not in server.log.read_text()


def test_a_long_poll_is_answered_before_the_server_goes(serve):
    """The waiting request hears `draining` and not a broken connection."""
    server = serve()
    url = server.address["url"]
    httpx.put(f"{url}/v1/runs/r", json=SPEC).raise_for_status()
    held = httpx.get(f"{url}/v1/runs/r/weights").headers["etag"]
    with socket.create_connection(("127.0.0.1", server.address["port"])) as connection:
        request = f"GET /v1/runs/r/weights HTTP/1.1\r\nHost: x\r\nPrefer: wait=60\r\nIf-None-Match: {held}\r\n\r\n"
        connection.sendall(request.encode())
        assert httpx.get(f"{url}/readyz").status_code == 200  # answered after the poll has come in
        assert server.end() == 0
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["code"]) == (503, "draining")


def test_a_unix_socket_is_private_and_goes_with_the_server(serve, tmp_path):
    place = tmp_path / "gradserve.sock"
    server = serve("--uds", str(place))
    assert server.address["url"] == f"unix://{place}"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(place)), base_url="http://server") as client:
        assert client.get("/readyz").status_code == 200
    assert server.end() == 0
    assert not place.exists()


def test_a_dead_servers_socket_is_taken_over_and_a_living_ones_is_not(serve, gradserve, tmp_path):
    place = tmp_path / "gradserve.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    server = serve("--uds", str(place))
    second = gradserve("serve", "--uds", str(place), "--store", "sqlite:///other.db")
    assert second.returncode == 2
    assert "another server listens there" in second.stderr
    assert server.end() == 0


def test_no_file_but_a_socket_is_replaced(gradserve, tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    refused = gradserve("serve", "--uds", str(tmp_path / "notes.txt"))
    assert refused.returncode == 2
    assert (tmp_path / "notes.txt").read_text() == "precious"


def refusal(answer: subprocess.CompletedProcess[str]) -> str:
    """What the command says when it does not start: for people, exit 2, nothing else."""
    assert answer.returncode == 2, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.startswith("gradserve: ")
    assert "Traceback" not in answer.stderr
    return answer.stderr


def test_an_open_address_without_a_token_is_refused(gradserve):
    text = refusal(gradserve("serve", "--host", "0.0.0.0"))
    assert "GRADSERVE_TOKEN" in text
    assert "--insecure" in text


def test_a_port_in_use_is_told_with_the_cure(gradserve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = refusal(gradserve("serve", "--port", str(taken.getsockname()[1])))
    assert "in use" in text
    assert "--port" in text


@pytest.mark.parametrize("store", ["mysql://x/y", "nonsense", "redis://host:port/0"])
def test_a_store_that_there_is_not_is_told_with_those_that_there_are(gradserve, store):
    text = refusal(gradserve("serve", "--port", "0", "--store", store))
    assert "sqlite:///" in text
    assert "redis://" in text


def test_a_database_in_use_is_refused(serve, gradserve):
    server = serve()
    text = refusal(gradserve("serve", "--port", "0"))
    assert str(server.child.pid) in text
    assert server.end() == 0


def test_a_wrong_value_names_its_flag(gradserve):
    assert "--durability" in refusal(gradserve("serve", "--durability", "disk"))
    assert "$GRADSERVE_PORT" in refusal(gradserve("serve", GRADSERVE_PORT="http"))


def test_the_log_may_be_for_machines(serve):
    server = serve("--log-format", "json", "--log-level", "debug")
    httpx.get(f"{server.address['url']}/healthz")
    assert server.end() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert (requests[0]["path"], requests[0]["status"], requests[0]["level"]) == ("/healthz", 200, "debug")


def test_the_line_for_people_has_the_address(tmp_path, environment):
    command = [sys.executable, "-m", "gradserve_service", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        child.terminate()
        assert child.wait(60) == 0
    for part in ("http://127.0.0.1:", "/docs", "sqlite:", "journal"):
        assert part in line


def test_a_server_without_its_store_stays_up_and_says_so(serve):
    """Nothing listens on port 1: the server starts all the same, is red, and goes when it is told to."""
    server = serve("--store", "redis://127.0.0.1:1/0")
    with httpx.Client(base_url=server.address["url"]) as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/readyz", "/v1/runs", "/v1/runs/r"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        assert client.put("/v1/runs/r", json=SPEC).json()["code"] == "store-unavailable"
    assert server.end() == 0
    assert "Traceback" not in server.log.read_text()
