"""`gradserve doctor`: each thing that can be wrong has a line, a cure, and shows in the exit code. And `token`."""

from __future__ import annotations

import hashlib
import json
import os
import socket

import httpx

from real_redis import RealRedis


def checks(answer) -> dict[str, dict[str, str]]:
    """The lines by what they checked."""
    return {line["check"]: line for line in json.loads(answer.stdout)["checks"]}


def test_a_healthy_machine_is_told_so(gradserve):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    answer = gradserve("doctor", "--json", "--port", str(port))
    assert answer.returncode == 0, answer.stdout
    found = checks(answer)
    assert {"python", "packages", "numerics", "clock", "store", "disk", "port"} <= set(found)
    assert {line["verdict"] for line in found.values()} == {"ok"}
    assert all(line["cure"] == "" for line in found.values())


def test_looking_makes_no_database(gradserve, tmp_path):
    gradserve("doctor")
    assert not (tmp_path / "gradserve-data").exists()


def test_a_port_in_use_is_a_warning_and_no_failure(gradserve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = gradserve("doctor", "--json", "--port", str(taken.getsockname()[1]))
    assert answer.returncode == 0
    assert checks(answer)["port"]["verdict"] == "warn"
    assert "--port" in checks(answer)["port"]["cure"]


def test_a_store_out_of_reach_fails(gradserve):
    answer = gradserve("doctor", "--json", "--store", "redis://127.0.0.1:1/0")
    assert answer.returncode == 1
    assert checks(answer)["store"]["verdict"] == "fail"


def test_a_redis_that_gives_less_than_wanted_fails_with_the_line_to_write(gradserve, redis_url):
    answer = gradserve("doctor", "--json", "--store", redis_url, "--durability", "fsync")
    assert answer.returncode == 1
    line = checks(answer)["durability"]
    assert line["verdict"] == "fail"
    assert "appendfsync" in line["cure"]
    less = gradserve("doctor", "--json", "--store", redis_url, "--durability", "memory")
    assert less.returncode == 0
    assert checks(less)["memory"]["verdict"] == "warn"  # a Redis without maxmemory


def test_an_evicting_redis_fails_with_the_cure(gradserve):
    with RealRedis(**{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}) as evicting:
        answer = gradserve("doctor", "--json", "--store", evicting.url)
    assert answer.returncode == 1
    assert "noeviction" in checks(answer)["store"]["cure"]


def test_a_database_in_use_names_its_server(gradserve, serve):
    server = serve()
    answer = gradserve("doctor", "--json", "--url", server.address["url"])
    assert answer.returncode == 0, answer.stdout
    found = checks(answer)
    assert found["store"]["verdict"] == "warn"
    assert str(server.child.pid) in found["store"]["found"]
    assert found["server"]["verdict"] == "ok"


def test_a_server_that_does_not_answer_fails_as_one_line(gradserve):
    answer = gradserve("doctor", "--url", "http://127.0.0.1:1")
    assert answer.returncode == 1
    assert answer.stderr == ""
    assert any(line.startswith("fail") and "server" in line for line in answer.stdout.splitlines())


def test_arithmetic_that_is_off_fails(gradserve, tmp_path):
    """One optimizer's golden updates end in other bits: named, with the cure."""
    (tmp_path / "sitecustomize.py").write_text(
        "from gradserve_service.core import numerics\nnumerics.GOLDEN['adam'] = '0' * 16\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    answer = gradserve("doctor", "--json", PYTHONPATH=path)
    assert answer.returncode == 1
    assert "adam" in checks(answer)["numerics"]["cure"]


def test_a_token_is_random_and_its_digest_is_enough_for_a_server(gradserve, serve):
    made, other = (json.loads(gradserve("token", "--json").stdout) for _ in range(2))
    assert made["token"] != other["token"]
    assert made["sha256"] == hashlib.sha256(made["token"].encode()).hexdigest()
    server = serve(GRADSERVE_TOKEN_SHA256=made["sha256"])
    url = f"{server.address['url']}/v1/runs"
    assert httpx.get(url, headers={"Authorization": f"Bearer {made['token']}"}).status_code == 200
    assert httpx.get(url, headers={"Authorization": f"Bearer {other['token']}"}).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Bearer {made['sha256']}"}).status_code == 401


def test_a_token_for_people_is_lines_for_an_environment_file(gradserve):
    lines = gradserve("token").stdout.splitlines()
    assert [line.split("=")[0] for line in lines if not line.startswith("#")] == [
        "GRADSERVE_TOKEN", "GRADSERVE_TOKEN_SHA256",
    ]  # fmt: skip
