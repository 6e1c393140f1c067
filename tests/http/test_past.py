"""History and statistics over HTTP: columns as JSON and CSV, what is asked for, what is not there."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gradserve_service.http.documents import HistoryColumns, Statistics


@pytest.fixture
async def run(server: Any) -> Any:
    """A run of two tensors with five updates at lr 0.5 and two reports."""
    await server.make_run(weights={"a": [0.0, 0.0], "b": [0.0]})
    for sequence in range(1, 6):
        body = {"gradients": {"a": [3.0, 0.0], "b": [4.0]}, "samples": 8}
        answer = await server.push(sequence, body | ({"loss": 1 / sequence} if sequence != 2 else {}))
        assert answer.status_code == 200
    for version, value in ((2, 0.5), (5, 0.25)):
        body = {"values": {"valid": value}, "version": version}
        assert (await server.client.post("/v1/runs/run/metrics", json=body)).status_code == 204
    return server


async def get(served: Any, query: str = "", **headers: str) -> httpx.Response:
    """GET …/history."""
    return await served.client.get(f"/v1/runs/run/history{query}", headers=headers)


async def test_the_history_has_a_row_for_each_update(run: Any) -> None:
    """All base columns and the reported metrics, of one length, null where there is nothing."""
    answer = await get(run)
    columns = answer.json()
    HistoryColumns.model_validate(columns)
    assert answer.headers["content-type"] == "application/json"
    assert columns["version"] == columns["step"] == [1, 2, 3, 4, 5]
    assert columns["loss"] == [1.0, None, 1 / 3, 0.25, 0.2]
    assert columns["lr"] == [0.5] * 5
    assert columns["gradient_norm"] == [5.0] * 5
    assert columns["update_norm"] == [2.5] * 5
    assert columns["clip_scale"] == [1.0] * 5
    assert columns["staleness"] == [0] * 5
    assert columns["samples"] == [8.0] * 5
    assert columns["metrics/valid"] == [None, 0.5, None, None, 0.25]
    assert columns["time"] == sorted(columns["time"])


async def test_csv_has_the_same_header_and_empty_cells(run: Any) -> None:
    """By Accept: text/csv; every cell is what JSON has, an absent one is empty."""
    columns = (await get(run)).json()
    answer = await get(run, Accept="text/csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    header, *rows = list(csv.reader(io.StringIO(answer.text)))
    assert header == list(columns)
    shown = [["" if value is None else str(value) for value in row] for row in zip(*columns.values(), strict=True)]
    assert rows == shown


@pytest.mark.parametrize(
    ("query", "versions"),
    [
        ("?since=3", [4, 5]),
        ("?since=5", []),
        ("?max_points=2", [2, 5]),
        ("?max_points=1", [5]),
        ("?max_points=100", [1, 2, 3, 4, 5]),
        ("?series=metrics/valid", [2, 5]),
        ("?series=loss,metrics/valid", [1, 2, 3, 4, 5]),
        ("?series=version,step", [1, 2, 3, 4, 5]),
    ],
)
async def test_since_series_and_max_points_choose(run: Any, query: str, versions: list[int]) -> None:
    """Versions above `since`; thinned evenly with the last one kept; sparse series alone have only their own rows."""
    assert (await get(run, query)).json()["version"] == versions


async def test_a_tensors_norm_is_a_series_of_its_own(run: Any) -> None:
    """On request, beside any other."""
    columns = (await get(run, "?series=gradient_norm/a,gradient_norm/b,loss&since=3")).json()
    assert columns["gradient_norm/a"] == [3.0, 3.0]
    assert columns["gradient_norm/b"] == [4.0, 4.0]


@pytest.mark.parametrize("series", ["accuracy", "metrics/other", "gradient_norm/c", "loss,"])
async def test_an_unknown_series_names_those_there(run: Any, problem: Callable[..., Any], series: str) -> None:
    """422, with the list."""
    document = problem(await get(run, f"?series={series}"), "validation-error")
    assert "metrics/valid" in document["series"]
    assert "loss" in document["detail"]


async def test_a_run_without_updates_has_empty_columns(server: Any) -> None:
    """Not an error, before the first weights and after."""
    await server.make_run()
    assert set(map(len, (await get(server)).json().values())) == {0}


async def test_statistics_tell_of_the_last_update_by_tensor(run: Any) -> None:
    """Norms, largest magnitude, share of zeros, the ratio to the largest norm."""
    answer = await run.client.get("/v1/runs/run/statistics")
    statistics = answer.json()
    Statistics.model_validate(statistics)
    assert (statistics["step"], statistics["updates"], statistics["measured_version"]) == (5, 5, 5)
    assert statistics["tensors"] == [
        {"name": "a", "gradient_norm": 3.0, "gradient_max": 3.0, "zero_fraction": 0.5, "norm_ratio": 0.75},
        {"name": "b", "gradient_norm": 4.0, "gradient_max": 4.0, "zero_fraction": 0.0, "norm_ratio": 1.0},
    ]
    assert statistics["gradient_norm"] == pytest.approx(5.0)
    assert statistics["samples_seen"] == 40
    assert statistics["effective_lr"] is None
    assert statistics["converged"] is None


@pytest.mark.parametrize(("tolerance", "converged"), [(5.1, True), (4.9, False)])
async def test_converged_is_a_mean_norm_below_the_tolerance(run: Any, tolerance: float, converged: bool) -> None:
    """The stop rule of gradient descent: the derivative is near zero."""
    answer = await run.client.get(f"/v1/runs/run/statistics?tolerance={tolerance}")
    assert answer.json()["converged"] is converged


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({"name": "adagrad", "lr": 0.01}, 0.01 / (4.0 * 3**0.5 + 1e-10)),
        ({"name": "adagrad", "lr": 0.01, "compat": "keras"}, 0.01 / (0.1 + 48 + 1e-7) ** 0.5),
        ({"name": "rmsprop", "lr": 0.01, "alpha": 0.9}, 0.01 / ((16 * (1 - 0.9**3)) ** 0.5 + 1e-8)),
        ({"name": "adam", "lr": 0.01}, 0.01 / 4.0),
        ({"name": "adam", "lr": 0.01, "bias_correction": False}, 0.01 / (4.0 * (1 - 0.999**3) ** 0.5 + 1e-8)),
        ({"name": "adamax", "lr": 0.01}, 0.01 / 4.0),
        ({"name": "nadam", "lr": 0.01}, 0.01 / 4.0),
    ],
)
async def test_effective_rates_are_in_the_rules_own_form(
    server: Any, optimizer: dict[str, Any], expected: float
) -> None:
    """After three equal gradients of 4 and 0: lr / (sqrt(h) + eps) of the element that moves is the least."""
    await server.make_run(weights={"w": [1.0, 1.0]}, optimizer=optimizer)
    for sequence in range(1, 4):
        assert (await server.push(sequence, {"gradients": {"w": [4.0, 0.0]}})).status_code == 200
    rates = (await server.client.get("/v1/runs/run/statistics")).json()["effective_lr"]
    assert rates["min"] == pytest.approx(expected, rel=1e-4)
    assert rates["max"] is None or rates["max"] > expected


async def test_the_numbers_beside_the_slots_are_told(server: Any) -> None:
    """What people look at with D-Adaptation, from the first weights on; a change of settings leaves them."""
    await server.make_run(weights={"w": [1.0, 1.0]}, optimizer="dadapt_sgd")
    path = "/v1/runs/run/statistics"
    assert (await server.client.get(path)).json()["memory"]["d"] == 1e-6
    assert (await server.push(1, {"gradients": {"w": [4.0, 0.0]}})).status_code == 200
    memory = (await server.client.get(path)).json()["memory"]
    assert memory == {"d": 1e-6, "d_numerator": 0.0, "first_norm": 4.0}
    assert (await server.client.patch("/v1/runs/run", json={"optimizer": {"lr": 0.5}})).is_success
    assert (await server.client.get(path)).json()["memory"] == memory


async def test_most_optimizers_keep_no_numbers(server: Any) -> None:
    """An empty object, not null; those of an average of the weights are not the optimizer's."""
    await server.make_run(weights={"w": [1.0, 1.0]}, optimizer="adamw", average="ema")
    assert (await server.push(1, {"gradients": {"w": [4.0, 0.0]}})).status_code == 200
    assert (await server.client.get("/v1/runs/run/statistics")).json()["memory"] == {}


GROUPS = [
    {"name": "slow", "match": ["slow"], "lr_scale": 0.1},
    {"name": "own", "match": ["own"]},
    {"name": "still", "match": ["still"], "frozen": True},
]


async def effective(served: Any) -> dict[str, float] | None:
    """Least, middle and largest rate of an element."""
    rates: dict[str, float] | None = (await served.client.get("/v1/runs/run/statistics")).json()["effective_lr"]
    return rates


async def test_effective_rates_are_those_of_the_groups(server: Any) -> None:
    """lr_scale, the client's rate for one group, nothing for what is frozen; null when the groups are others by now."""
    weights = {"w": [1.0], "slow": [1.0], "own": [1.0], "still": [1.0]}
    adam = {"name": "adam", "lr": 0.5}
    await server.make_run(weights=weights, optimizer=adam, groups=GROUPS, schedule="client")
    gradients = {name: [4.0] for name in weights}
    answer = await server.push(1, {"gradients": gradients, "lr": {"default": 0.02, "own": 0.8}})
    assert answer.status_code == 200
    rates = await effective(server)
    assert rates is not None
    assert [4 * rates[name] for name in ("min", "median", "max")] == pytest.approx([0.002, 0.02, 0.8], rel=1e-4)
    await server.client.patch("/v1/runs/run", json={"state": "paused"})
    assert await effective(server) == rates
    await server.client.patch("/v1/runs/run", json={"groups": []})
    assert await effective(server) is None


async def test_effective_rates_have_the_staleness_weight(server: Any) -> None:
    """What an old gradient got, not what a fresh one would have got."""
    spec = {"optimizer": {"name": "adam", "lr": 0.5}, "staleness": {"name": "inverse"}}
    await server.make_run(weights={"w": [1.0]}, **spec)
    for sequence in (1, 2):
        answer = await server.push(sequence, {"gradients": {"w": [4.0]}, "base_version": 0})
    rates = await effective(server)
    assert rates is not None
    assert 4 * rates["max"] == pytest.approx(0.5 * answer.json()["staleness_weight"], rel=1e-4)
    assert answer.json()["staleness_weight"] < 1


async def test_a_vanished_gradient_is_a_warning_everywhere(server: Any) -> None:
    """In statistics and in the run itself, with the tensor's name; gone when the gradient is back."""
    await server.make_run(weights={"deep": [0.0], "top": [0.0]})
    await server.push(1, {"gradients": {"deep": [1e-8], "top": [1.0]}})
    warnings = (await server.client.get("/v1/runs/run")).json()["warnings"]
    assert len(warnings) == 1
    assert "'deep'" in warnings[0]
    assert (await server.client.get("/v1/runs/run/statistics")).json()["warnings"] == warnings
    await server.push(2, {"gradients": {"deep": [1.0], "top": [1.0]}})
    assert (await server.client.get("/v1/runs/run")).json()["warnings"] == []
