"""Dockerfile and docker-compose.yml, as far as they can be held without an engine: their commands run here, their
names are those of the code, and what they promise about Redis is true of a Redis started so."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradserve_service.settings import ENVIRONMENT_PREFIX, Settings
from gradserve_service.store import open_to_read
from real_redis import RealRedis
from sdk.serving import Server

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

OURS = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields}
OF_THE_SDK = {"GRADSERVE_URL", "GRADSERVE_TOKEN"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's (instruction, rest) in order, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def last_stage() -> list[tuple[str, str]]:
    """What the image is made of."""
    rows = instructions()
    start = max(place for place, (word, _) in enumerate(rows) if word == "FROM")
    return rows[start:]


def rest_of(word: str) -> str:
    """The last instruction of that name."""
    return [rest for each, rest in last_stage() if each == word][-1]


def test_the_instructions_are_ones_that_docker_knows():
    known = {
        *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"),
        *("ENTRYPOINT", "CMD"),
    }
    assert {word for word, _ in instructions()} <= known


def test_bases_are_slim_and_of_a_named_version():
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim", base) for base in bases)
    assert len(set(bases)) == 1, "the environment is copied between stages: both must have the same Python"


def test_the_server_is_not_root_and_what_it_runs_is_not_its_own():
    """It owns its store; the program belongs to root, so that it cannot be changed from inside."""
    stage = last_stage()
    user = [place for place, (word, _) in enumerate(stage) if word == "USER"]
    assert len(user) == 1
    assert stage[user[0]][1] not in ("root", "0")
    assert ("COPY", "--from=build /opt/gradserve /opt/gradserve") in stage


def test_everything_that_is_copied_is_there_and_not_ignored():
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }  # everything else is out
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    assert sources
    assert set(sources) <= kept
    assert all((ROOT / source).exists() for source in sources)


def test_every_variable_is_a_setting():
    """A name that nobody reads would be a promise that nobody keeps."""
    in_image = set(re.findall(r"GRADSERVE_\w+(?==)", DOCKERFILE.replace("GRADSERVE_TOKEN=…", "")))
    in_server = set(SERVICES["server"]["environment"])
    assert in_image <= OURS
    assert in_server <= OURS
    assert set(SERVICES["worker"]["environment"]) <= OF_THE_SDK


@pytest.mark.parametrize("ready", [True, False])
def test_the_health_check_says_whether_the_server_is_ready(ready, tmp_path):
    """It needs no curl, and is red when the store is out of reach, though the server lives."""
    command = json.loads(rest_of("HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python"
    flags = () if ready else ("--store", "redis://127.0.0.1:1/0")
    server = Server(tmp_path, *flags).start()
    environment = {**os.environ, "GRADSERVE_PORT": server.url.rpartition(":")[2]}
    asked = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, check=False)
    assert server.stop() == 0
    assert (asked.returncode == 0) is ready


def test_the_image_starts_a_server_with_its_settings(tmp_path):
    """ENTRYPOINT, CMD and ENV together; the paths are those of a temporary folder, and the port is free."""
    words = [*json.loads(rest_of("ENTRYPOINT")), *json.loads(rest_of("CMD"))]
    assert words == ["gradserve", "serve"]
    settings = dict(re.findall(r"(GRADSERVE_\w+)=(\S+)", " ".join(rest for w, rest in last_stage() if w == "ENV")))
    store = settings["GRADSERVE_STORE"]
    assert store.startswith(f"sqlite:///{rest_of('VOLUME')}/")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GRADSERVE_")} | settings
    environment |= {"GRADSERVE_STORE": f"sqlite:///{tmp_path / 'x.db'}", "GRADSERVE_PORT": "0"}
    command = [sys.executable, "-m", "gradserve_service", "serve", "--json"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "GRADSERVE_TOKEN" in refused.stderr  # an image that anyone may reach has no default token
    environment["GRADSERVE_TOKEN"] = "a-token"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        assert json.loads(server.stdout.readline())["host"] == "0.0.0.0"
        server.terminate()
        assert server.wait(60) == 0


def test_services_wait_for_healthy_ones_and_name_volumes_that_exist():
    with_check = {"redis", "server"}  # the server's is the image's
    assert "healthcheck" in SERVICES["redis"]
    for service in SERVICES.values():
        for name, needed in service.get("depends_on", {}).items():
            assert needed["condition"] == "service_healthy"
            assert name in with_check
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]
    assert "redis" in COMPOSE["volumes"]
    assert SERVICES["worker"]["profiles"] == ["demo"]
    assert SERVICES["server"]["build"] == "."
    assert SERVICES["server"]["image"] == SERVICES["worker"]["image"]


def test_the_server_has_longer_to_stop_than_it_takes_to_drain():
    grace = int(SERVICES["server"]["stop_grace_period"].removesuffix("s"))
    assert grace > float(SERVICES["server"]["environment"]["GRADSERVE_DRAIN_SECONDS"])


def test_only_this_machine_reaches_what_has_a_token_that_everyone_knows():
    assert [port.split(":")[0] for port in SERVICES["server"]["ports"]] == ["127.0.0.1"]
    assert "ports" not in SERVICES["redis"]


async def test_the_redis_gives_what_the_server_asks_for():
    """Started with these very flags it never evicts, and gives the durability of the server's environment."""
    words = iter(word for word in SERVICES["redis"]["command"][1:])
    flags = {name.removeprefix("--"): str(value) for name, value in zip(words, words, strict=True)}
    flags["maxmemory"] = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", flags["maxmemory"])
    with RealRedis(**flags) as redis:
        store = await open_to_read(redis.url)
        try:
            assert store.durability == SERVICES["server"]["environment"]["GRADSERVE_DURABILITY"]
            assert store.memory_limit == 2 << 30
        finally:
            await store.close()


def test_the_workers_program_is_there_and_each_has_its_own_name():
    command = SERVICES["worker"]["entrypoint"][-1]
    program = shlex.split(command)[2]
    assert (ROOT / program.removeprefix("/")).is_file()
    assert "$$HOSTNAME" in command
