"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from pydantic import SecretStr

from gradserve_service.settings import Settings


def samples(text: str, read=read_text) -> dict[tuple[str, tuple], float]:
    """Value by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read(text)
        for sample in family.samples
    }


async def test_pushes_are_counted_by_what_became_of_them(server):
    await server.make_run(weights={"w": [1.0]})
    await server.push(1, {"gradients": {"w": [1.0]}})
    await server.push(1, {"gradients": {"w": [1.0]}})
    await server.push(2, {"gradients": {"v": [1.0]}})
    await server.push(2, run="nowhere", body={"gradients": {"w": [1.0]}})
    page = samples((await server.client.get("/metrics")).text)
    counted = {labels: value for (name, labels), value in page.items() if name == "gradserve_pushes_total"}
    assert counted == {
        (("code", ""), ("outcome", "applied")): 1,
        (("code", ""), ("outcome", "duplicate")): 1,
        (("code", "unknown-tensor"), ("outcome", "refused")): 1,
        (("code", "run-not-found"), ("outcome", "refused")): 1,
    }
    assert page["gradserve_push_step_seconds_count", (("step", "apply"),)] == 1


async def test_requests_are_timed_by_the_template_of_their_route(server):
    """Cold routes, hot ones, HEAD, and what is no route of ours: never a path, never a made-up method."""
    await server.make_run("one", weights={"w": [1.0]})
    await server.make_run("two", weights={"w": [1.0]})
    await server.client.head("/v1/runs/one")
    await server.client.get("/v1/runs/two/weights")
    await server.client.get("/no/such/page")
    await server.client.request("BREW", "/v1/runs")
    page = samples((await server.client.get("/metrics")).text)
    counted = {
        tuple(value for _, value in labels): count
        for (name, labels), count in page.items()
        if name == "gradserve_request_duration_seconds_count"
    }
    assert counted == {
        ("PUT", "/v1/runs/{run}", "2xx"): 2,
        ("HEAD", "/v1/runs/{run}", "2xx"): 1,
        ("GET", "/v1/runs/{run}/weights", "2xx"): 1,
        ("GET", "other", "4xx"): 1,
        ("other", "/v1/runs", "4xx"): 1,
    }


async def test_bytes_of_bodies_are_counted_both_ways(server, frame):
    await server.make_run(weights={"w": [1.0]})
    before = samples((await server.client.get("/metrics")).text)
    body = frame({"w": [1.0]})
    answer = await server.push(1, body)
    after = samples((await server.client.get("/metrics")).text)
    assert after["gradserve_received_bytes_total", ()] - before["gradserve_received_bytes_total", ()] == len(body)
    assert after["gradserve_sent_bytes_total", ()] - before["gradserve_sent_bytes_total", ()] > len(answer.content)


async def test_what_the_server_holds_is_on_the_page(server):
    await server.make_run(weights={"w": [1.0, 2.0]}, optimizer="adam")
    page = samples((await server.client.get("/metrics")).text)
    assert page["gradserve_runs_in_memory", ()] == 1
    assert page["gradserve_state_bytes", ()] >= 3 * 2 * 4
    assert page["gradserve_store_up", ()] == 1
    assert page["gradserve_long_polls", ()] == page["gradserve_queued_requests", ()] == 0
    assert page["process_resident_memory_bytes", ()] > 0


async def test_a_store_out_of_reach_shows(server):
    await server.replicas.store.close()
    assert samples((await server.client.get("/metrics")).text)["gradserve_store_up", ()] == 0


async def test_openmetrics_is_spoken_too(server):
    answer = await server.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert samples(answer.text, read_openmetrics)["gradserve_store_up", ()] == 1


async def test_no_name_no_number_of_a_gradient_and_no_token_is_on_the_page(serve):
    settings = Settings(token=SecretStr("hush-hush"))
    async with serve(settings) as served:
        served.client.headers["Authorization"] = "Bearer hush-hush"
        await served.make_run("secret-run", weights={"secret_tensor": [77.0625]})
        answer = await served.push(1, {"gradients": {"secret_tensor": [33.03125]}}, run="secret-run")
        assert answer.status_code == 200, answer.text
        page = (await served.client.get("/metrics")).text
    for word in ("secret", "hush", "77.06", "33.03", '"w"'):
        assert word not in page


async def test_the_page_asks_for_the_token_where_there_is_one(serve, problem):
    async with serve(Settings(token=SecretStr("hush-hush"))) as served:
        problem(await served.client.get("/metrics"), "unauthorized")
