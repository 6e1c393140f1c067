"""Runs over HTTP: created without a race, described, changed, deleted, listed page by page."""

from __future__ import annotations

import pytest

from gradserve_service.http.documents import RunDescription, RunList, ServerDescription, WorkerList, WorkerRow

SPEC = {"optimizer": {"name": "sgd", "lr": 0.5}}


async def test_put_creates_once_and_then_answers_the_same_run(server):
    first = await server.client.put("/v1/runs/r", json=SPEC)
    assert (first.status_code, first.headers["location"]) == (201, "/v1/runs/r")
    RunDescription.model_validate(first.json())
    again = await server.client.put("/v1/runs/r", json=SPEC)
    assert (again.status_code, again.json()["uid"]) == (200, first.json()["uid"])


async def test_a_run_with_another_spec_exists_and_the_difference_is_told(server, problem):
    await server.client.put("/v1/runs/r", json=SPEC)
    document = problem(await server.client.put("/v1/runs/r", json={"optimizer": "adam"}), "run-exists")
    assert "optimizer" in document["detail"]


async def test_a_later_change_does_not_make_it_another_run(server):
    await server.client.put("/v1/runs/r", json=SPEC)
    await server.client.patch("/v1/runs/r", json={"optimizer": {"lr": 0.1}})
    assert (await server.client.put("/v1/runs/r", json=SPEC)).status_code == 200


async def test_inline_weights_are_the_first_weights_and_a_retry_completes_a_half_made_run(server, problem):
    """The first try died between creating the run and loading its weights."""
    await server.client.put("/v1/runs/r", json=SPEC)
    retry = await server.client.put("/v1/runs/r", json={**SPEC, "weights": {"w": [1.0]}})
    assert (retry.status_code, retry.json()["version"]) == (200, 0)
    other = await server.client.put("/v1/runs/r", json={**SPEC, "weights": {"w": [9.0]}})
    assert (other.status_code, other.json()["version"]) == (200, 0)
    weights = await server.client.get("/v1/runs/r/weights", headers={"Accept": "application/json"})
    assert weights.json()["weights"] == {"w": [1.0]}


async def test_inline_weights_that_are_none_make_no_run(server, problem):
    for weights in ({"w": [1.0, [2.0]]}, {"w": "one"}, {"w": [None]}, 3):
        problem(await server.client.put("/v1/runs/r", json={**SPEC, "weights": weights}), "validation-error")
    problem(await server.client.get("/v1/runs/r"), "run-not-found")


async def test_patch_merges_the_optimizer_and_replaces_the_rest(server, problem):
    await server.make_run(weights={"w": [1.0]})
    changes = {"optimizer": {"lr": 0.25}, "clip": [{"name": "value", "value": 1.0}]}
    answer = await server.client.patch("/v1/runs/run", json=changes)
    assert answer.status_code == 200, answer.text
    RunDescription.model_validate(answer.json())
    assert answer.json()["lr"] == 0.25
    assert answer.json()["spec"]["clip"][0]["name"] == "value"
    assert (await server.client.patch("/v1/runs/run", json={"state": "paused"})).json()["state"] == "paused"
    problem(await server.push(1, {"gradients": {"w": [1.0]}}), "run-paused")
    problem(await server.client.patch("/v1/runs/run", json={"state": "asleep"}), "validation-error")
    problem(await server.client.patch("/v1/runs/run", json={"weights": {}}), "validation-error")


async def test_a_late_copy_of_a_patch_changes_nothing(server):
    await server.make_run(weights={"w": [1.0]})
    late = {"Idempotency-Key": "first"}
    await server.client.patch("/v1/runs/run", json={"optimizer": {"lr": 0.25}}, headers=late)
    await server.client.patch("/v1/runs/run", json={"optimizer": {"lr": 0.125}}, headers={"Idempotency-Key": "second"})
    answer = await server.client.patch("/v1/runs/run", json={"optimizer": {"lr": 0.25}}, headers=late)
    assert answer.json()["lr"] == 0.125


@pytest.mark.parametrize("key", ["", "x" * 201, "caf\xe9"])
async def test_an_idempotency_key_is_short_and_plain(server, key, problem):
    await server.make_run()
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    problem(await server.client.patch("/v1/runs/run", json={}, headers=headers), "validation-error")


async def test_a_deleted_run_is_gone_until_it_is_created_again(server, problem):
    run = await server.make_run(weights={"w": [1.0]})
    headers = {"Gradserve-Run": run["uid"]}
    assert (await server.client.delete("/v1/runs/run", headers=headers)).status_code == 204
    problem(await server.client.get("/v1/runs/run"), "run-deleted")
    successor = await server.make_run()
    assert successor["uid"] != run["uid"]
    problem(await server.client.delete("/v1/runs/run", headers=headers), "run-deleted")
    assert (await server.client.get("/v1/runs/run")).status_code == 200


async def test_runs_are_listed_in_name_order_page_by_page(server):
    for name in ("b", "a", "c", "d", "e"):
        await server.make_run(name)
    await server.client.patch("/v1/runs/c", json={"state": "paused"})
    seen, token = [], ""
    while token is not None:
        page = (await server.client.get("/v1/runs", params={"limit": 2, "page_token": token})).json()
        RunList.model_validate(page)
        seen += [run["name"] for run in page["runs"]]
        token = page["next_page_token"]
    assert seen == ["a", "b", "c", "d", "e"]
    paused = (await server.client.get("/v1/runs?state=paused")).json()
    assert [run["name"] for run in paused["runs"]] == ["c"]


async def test_a_damaged_run_does_not_cut_the_list_short(server):
    """Its record is not listed, whatever the size of a page; set aside it is in no state, and the others are listed."""
    for name in ("a", "b", "c", "d"):
        await server.make_run(name)
    await server.replicas.store._submit(lambda db: db.execute("UPDATE names SET seal = 'x' WHERE name = 'b'").rowcount)
    sequencer = server.replicas._open["c"][1]
    sequencer._drop_state()
    sequencer.quarantine.set_aside("its payload is damaged")
    for query, names in (("", ["a", "c", "d"]), ("state=running&", ["a", "d"])):
        for limit in (1, 2, 3):
            seen, token = [], ""
            while token is not None:
                answer = await server.client.get(f"/v1/runs?{query}limit={limit}&page_token={token}")
                assert answer.status_code == 200, answer.text
                seen += [run["name"] for run in answer.json()["runs"]]
                token = answer.json()["next_page_token"]
            assert seen == names


async def test_a_worker_registers_beats_and_leaves(server, problem):
    await server.make_run(weights={"w": [1.0]})
    path = "/v1/runs/run/workers/w"
    first = await server.client.put(path, json={"instance": "one", "metadata": {"host": "here"}})
    row = first.json()
    WorkerRow.model_validate(row)
    assert {"version", "rank", "world_size", "lease_seconds"} <= set(row)
    beat = await server.client.put(path, json={"instance": "one", "generation": row["generation"]})
    assert beat.json()["generation"] == row["generation"]
    assert (await server.client.put(path, json={"instance": "two"})).json()["generation"] == row["generation"] + 1
    problem(await server.client.put(path, json={"instance": "one", "generation": row["generation"]}), "fenced")
    problem(await server.client.put(path, json={}), "validation-error")
    listed = (await server.client.get("/v1/runs/run/workers")).json()
    WorkerList.model_validate(listed)
    assert [worker["name"] for worker in listed["workers"]] == ["w"]
    problem(await server.client.delete(f"{path}?generation=1&next_sequence=1"), "fenced")
    problem(await server.client.delete(f"{path}?generation=2&next_sequence=9"), "history-rewound")
    problem(await server.client.delete(f"{path}?generation=none"), "validation-error")
    assert (await server.client.delete(f"{path}?generation=2&next_sequence=1")).status_code == 204


async def test_the_server_describes_itself(server):
    description = (await server.client.get("/v1/server")).json()
    ServerDescription.model_validate(description)
    assert description["store"]["kind"] == "sqlite"
    assert description["limits"]["json_elements_max"] == 65_536
    assert (await server.client.get("/readyz")).json() == {"status": "ready"}
    assert (await server.client.get("/healthz")).json() == {"status": "live"}
