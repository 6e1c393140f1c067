"""Parameter groups over HTTP."""

from __future__ import annotations

WEIGHTS = {"a": [0.0], "a.bias": [0.0]}
GROUPS = [{"name": "bias", "match": ["*.bias", "nowhere.*"], "lr_scale": 0.5}]


async def test_a_run_says_which_tensor_fell_where_and_which_pattern_matches_nothing(server):
    """A pattern without a tensor is a warning, not an error."""
    run = await server.make_run(weights=WEIGHTS, groups=GROUPS)
    assert [(row["name"], row["group"]) for row in run["tensors"]] == [("a", "default"), ("a.bias", "bias")]
    assert run["warnings"] == ["groups: the pattern 'nowhere.*' of 'bias' matches no tensor of this run"]
    assert run["spec"]["groups"] == [
        {"frozen": False, "lr_scale": 0.5, "match": ["*.bias", "nowhere.*"], "name": "bias", "weight_decay": None}
    ]
    plain = await server.make_run("plain", weights=WEIGHTS)
    assert all("group" not in row for row in plain["tensors"])
    assert plain["warnings"] == []


async def test_a_client_names_rates_by_group_in_both_forms(server, frame, tensors):
    """As an object in JSON, as the same text in a frame's metadata."""
    await server.make_run(weights=WEIGHTS, groups=GROUPS, schedule="client")
    answer = await server.push(1, {"gradients": {"a": [1], "a.bias": [1]}, "lr": {"bias": 0.25, "default": 1}})
    assert (answer.status_code, answer.json()["lr"]) == (200, 1.0)
    body = frame({"a": [1.0], "a.bias": [1.0]}, lr='{"bias": 0.5}')
    answer = await server.push(2, body, Prefer="return=representation")
    assert answer.headers["gradserve-lr"] == "0.5"  # the optimizer's: the push names none for the default group
    assert tensors(answer.content) == {"a": [-1.5], "a.bias": [-0.75]}


async def test_a_rate_for_a_group_that_is_not_there_is_refused(server, problem):
    """The answer names the groups that are."""
    await server.make_run(weights=WEIGHTS, groups=GROUPS, schedule="client")
    answer = await server.push(1, {"gradients": {"a": [1]}, "lr": {"biases": 0.25}})
    document = problem(answer, "validation-error")
    assert document["detail"] == "lr: expected rates for the groups default, bias, came biases"
    assert document["groups"] == ["default", "bias"]


async def test_groups_change_while_the_run_goes_on(server):
    """PATCH replaces them whole."""
    await server.make_run(weights=WEIGHTS, groups=GROUPS)
    await server.push(1, {"gradients": {"a": [1], "a.bias": [1]}})
    answer = await server.client.patch("/v1/runs/run", json={"groups": [{"name": "all", "match": "*", "frozen": True}]})
    assert [row["group"] for row in answer.json()["tensors"]] == ["all", "all"]
    outcome = (await server.push(2, {"gradients": {"a": [1], "a.bias": [1]}})).json()
    assert (outcome["outcome"], outcome["gradient_norm"]) == ("applied", 0.0)
    weights = (await server.client.get("/v1/runs/run/weights", headers={"Accept": "application/json"})).json()
    assert weights == {"version": 2, "weights": {"a": [-0.5], "a.bias": [-0.25]}}
