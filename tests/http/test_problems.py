"""Every refusal is a problem document, whoever refuses."""

from __future__ import annotations

import pytest

from gradserve.problems import PROBLEMS


async def test_an_unknown_path_is_a_problem(server, problem):
    document = problem(await server.client.get("/v1/nothing/here"), "not-found")
    assert document["instance"] == "/v1/nothing/here"


async def test_a_method_that_no_route_takes_is_told_the_methods_of_all_routes_of_the_path(server, problem):
    answer = await server.client.post("/v1/runs/r")
    problem(answer, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "PATCH", "DELETE"}
    answer = await server.client.patch("/v1/runs/r/weights")
    problem(answer, "method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT"}


@pytest.mark.parametrize("path", ["/v1/runs/r/", "/healthz/", "//", "/v1/runs/a%2Fb", "/v1/runs/r/workers/w/pushes/"])
async def test_a_path_beside_a_route_is_no_route(server, path, problem):
    problem(await server.client.get(path), "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/runs/-starts-with-a-dash"),
        ("PUT", "/v1/runs/" + "x" * 101),
        ("GET", "/v1/runs/r%0A"),
        ("GET", "/v1/runs/r%C3%A9/weights"),
        ("PUT", "/v1/runs/r/workers/.w/pushes/1"),
        ("DELETE", "/v1/runs/r/workers/_w"),
    ],
)
async def test_a_name_outside_the_alphabet_is_refused(server, method, path, problem):
    answer = await server.client.request(method, path, headers={"Content-Type": "application/json"})
    problem(answer, "validation-error")


@pytest.mark.parametrize("sequence", ["0", "-1", "01", "+1", "1.0", "x", str(2**53 + 1), "9" * 40, "%D9%A1"])
async def test_a_sequence_is_a_plain_integer_from_1_to_2_to_the_53(server, sequence, problem):
    await server.make_run(weights={"w": [1.0]})
    answer = await server.client.put(f"/v1/runs/run/workers/w/pushes/{sequence}", json={"gradients": {"w": [1.0]}})
    problem(answer, "validation-error")


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "state=asleep", "page_token=%2F"])
async def test_a_query_that_is_out_of_range_names_the_parameter(server, query, problem):
    document = problem(await server.client.get(f"/v1/runs?{query}"), "validation-error")
    assert document["detail"].startswith(query.partition("=")[0])
    assert document["errors"]


async def test_the_spec_of_a_run_is_refused_field_by_field(server, problem):
    body = {"optimizer": {"name": "adam", "lr": -1}, "surprise": 1}
    document = problem(await server.client.put("/v1/runs/r", json=body), "validation-error")
    assert "surprise" in document["detail"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"optimizer": NaN}', b'{"a": 1, "a": 2}', b"\xff\xfe", b"[" * 100_000, b'"\\ud800"', b"1 2"],
)
async def test_json_that_is_no_strict_json_is_malformed(server, content, problem):
    headers = {"Content-Type": "application/json"}
    problem(await server.client.put("/v1/runs/r", content=content, headers=headers), "malformed-json")


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b'"adam"'])
async def test_json_that_is_no_object_is_refused(server, content, problem):
    headers = {"Content-Type": "application/json"}
    problem(await server.client.put("/v1/runs/r", content=content, headers=headers), "validation-error")


async def test_a_form_is_told_of_curls_json_flag(server, problem):
    await server.make_run(weights={"w": [1.0]})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/v1/runs/r", "/v1/runs/run/weights", "/v1/runs/run/workers/w/pushes/1"):
        answer = await server.client.put(path, content=b"{}", headers=headers)
        assert "curl --json" in problem(answer, "unsupported-media-type")["detail"]


async def test_a_compressed_body_is_refused_as_what_it_is(server, problem):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await server.client.put("/v1/runs/r", content=b"\x1f\x8b", headers=headers)
    assert "gzip" in problem(answer, "unsupported-media-type")["detail"]


async def test_a_run_that_is_not_there(server, problem):
    for method, path in (
        ("GET", ""),
        ("GET", "/weights"),
        ("DELETE", ""),
        ("GET", "/workers"),
        ("GET", "/optimizer-state"),
    ):
        problem(await server.client.request(method, f"/v1/runs/nobody{path}"), "run-not-found")


async def test_a_fault_of_the_server_is_never_a_500_and_is_logged_under_its_request_id(server, capsys, problem):
    """The replicas are gone from under the app: whatever breaks, hot or cold, is answered and found in the log."""
    server.app.state.replicas = None
    for path in ("/v1/runs/r", "/v1/runs/r/weights", "/readyz"):
        answer = await server.client.get(path)
        document = problem(answer, "quarantined")
        assert answer.headers["retry-after"] == "60"
        assert "NoneType" not in answer.text
        logged = capsys.readouterr()
        assert document["request_id"] in logged.out + logged.err


async def test_a_store_that_is_gone_is_503_with_retry_after_and_a_red_readiness(server, problem):
    await server.make_run(weights={"w": [1.0]})
    await server.replicas.store.close()
    answer = await server.client.get("/v1/runs/run")
    problem(answer, "store-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert problem(await server.client.get("/readyz"), "store-unavailable")["reasons"]
    assert (await server.client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("code", sorted(PROBLEMS))
async def test_each_problem_has_a_page_for_people_and_for_programs(server, code):
    row = (await server.client.get(f"/problems/{code}", headers={"Accept": "application/json"})).json()
    assert row == {
        "code": code,
        "status": PROBLEMS[code].status,
        "title": PROBLEMS[code].title,
        "cure": PROBLEMS[code].cure,
    }
    page = await server.client.get(f"/problems/{code}", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert code in page.text


async def test_a_head_request_is_refused_without_a_body(server):
    answer = await server.client.head("/v1/runs/nobody/weights")
    assert answer.status_code == 404
    assert answer.content == b""


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("GET", "/v1/runs?limit=x", None, "limit: expected an integer, came 'x'"),
        ("GET", "/v1/runs?state=asleep", None, "state: expected 'running', 'paused' or 'closed', came 'asleep'"),
        ("POST", "/v1/runs/run/restore", b"{}", "expected either checkpoint or version, came neither"),
        ("PATCH", "/v1/runs/run", b'{"optimizer": {"lr": ' + b"9" * 5000 + b"}}", "an integer has more digits"),
    ],
)
async def test_a_refusal_says_what_was_expected_and_what_came(server, method, path, body, said):
    """In one form, whoever found it."""
    await server.make_run(weights={"w": [1.0]})
    answer = await server.client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert said in answer.json()["detail"]
