"""The one bearer token: asked for where it is set, never written down."""

from __future__ import annotations

import pytest

from gradserve_service.settings import Settings

TOKEN = "a-token-of-256-bits-or-so"
OPEN = ["/healthz", "/readyz", "/openapi.json", "/docs", "/docs/start.js", "/problems/fenced"]
CLOSED = ["/v1/server", "/v1/runs", "/v1/runs/r/weights", "/nothing", "/docsx", "/problems", "/healthz/x"]


@pytest.fixture
async def locked(serve):
    async with serve(Settings(token=TOKEN)) as server:
        yield server


@pytest.mark.parametrize("path", OPEN)
async def test_probes_and_pages_are_open(locked, path):
    assert (await locked.client.get(path)).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
async def test_everything_else_asks_for_the_token(locked, path, problem):
    answer = await locked.client.get(path)
    problem(answer, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "value", ["", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Bearer"]
)
async def test_another_token_is_no_token(locked, value, problem):
    problem(await locked.client.get("/v1/server", headers={"Authorization": value}), "unauthorized")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_the_token_opens(locked, scheme):
    answer = await locked.client.get("/v1/server", headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answer.status_code == 200


async def test_a_hot_route_is_closed_too_and_reads_nothing(locked, problem, frame):
    problem(await locked.push(1, frame({"w": [1.0]})), "unauthorized")


async def test_the_token_is_in_no_log_line_and_no_answer(serve, capsys):
    async with serve(Settings(token=TOKEN, log_level="debug")) as server:
        for given in (TOKEN, TOKEN + "x"):
            answer = await server.client.get("/v1/runs", headers={"Authorization": f"Bearer {given}"})
            assert TOKEN not in answer.text
        server.app.state.replicas = None
        answer = await server.client.get("/v1/runs", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 503
    logged = capsys.readouterr()
    assert "/v1/runs" in logged.out + logged.err
    assert TOKEN not in logged.out + logged.err
    assert TOKEN not in repr(Settings(token=TOKEN))
