"""What a run can be made of, told by the server."""

from __future__ import annotations

import asyncio
import math

import pytest

from gradserve.specs import AGGREGATIONS, AVERAGES, CLIPS, OPTIMIZERS, SCHEDULES, STALENESS
from gradserve.wire import decode_frame
from gradserve_service.core import schedules
from gradserve_service.http.catalogue_documents import PREVIEW_STEPS_MAX, CatalogueItem, OptimizerCatalogue

FAMILIES = {
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "aggregations": AGGREGATIONS,
    "clips": CLIPS,
    "averages": AVERAGES,
    "staleness": STALENESS,
}


COSINE = {"name": "warmup_cosine", "warmup_steps": 3, "total_steps": 10}


@pytest.mark.parametrize("kind", FAMILIES)
async def test_a_catalogue_lists_all_that_a_run_may_ask_for(server, kind):
    items = (await server.client.get(f"/v1/{kind}")).json()[kind]
    assert [item["name"] for item in items] == list(FAMILIES[kind].built)
    for item in items:
        CatalogueItem.model_validate(item)
        assert item["summary"]


MATRIX_AND_VECTOR = {"w": [[1.0] * 64] * 64, "b": [1.0] * 3}


async def test_an_optimizer_tells_what_it_keeps(server):
    """As a run of it does: GET optimizer-state has these slots, of a matrix or of a vector."""
    items = (await server.client.get("/v1/optimizers")).json()["optimizers"]
    for item in items:
        await server.make_run(item["name"], weights=MATRIX_AND_VECTOR, optimizer=item["name"])
        state = await server.client.get(f"/v1/runs/{item['name']}/optimizer-state")
        always = sorted(slot["name"] for slot in item["slots"] if not slot["with"])
        kept = decode_frame(state.content).layout
        assert sorted({name.partition("/")[0] for name in kept.names}) == always
        of_the_matrix = sum(kept.size(name) for name in kept.names if name.endswith("/w"))
        assert item["bytes_per_parameter"] == round(4 * (1 + of_the_matrix / 64**2))


async def test_the_optimizers_say_what_they_keep_and_cost(server):
    """Slots with their meaning, bytes of weight and slots, and the defaults of each library."""
    answer = await server.client.get("/v1/optimizers")
    OptimizerCatalogue.model_validate(answer.json())
    items = {item["name"]: item for item in answer.json()["optimizers"]}
    assert list(items) == list(OPTIMIZERS.built)
    assert all(item[key] for item in items.values() for key in ("summary", "formula", "source", "use_when"))
    assert all(slot["meaning"] for item in items.values() for slot in item["slots"])
    costs = {name: item["bytes_per_parameter"] for name, item in items.items()}
    expected = {"sgd": 4, "adagrad": 8, "rmsprop": 8, "adam": 12, "adamw": 12, "adamax": 12, "nadam": 12}
    assert costs.items() >= expected.items()
    assert items["sgd"]["aliases"]["momentum"] == {"fields": {"momentum": 0.9}, "bytes_per_parameter": 8}
    optional = {(name, slot["name"]): slot["with"] for name, item in items.items() for slot in item["slots"]}
    assert optional["rmsprop", "square_avg"] is None
    assert (optional["sgd", "velocity"], optional["rmsprop", "grad_avg"]) == ("momentum", "centered")
    assert optional["adam", "max_exp_avg_sq"] == "amsgrad"
    assert items["nadam"]["numbers"] == ["mu_product"]
    assert (items["adam"]["presets"]["keras"]["eps"], items["adam"]["presets"]["torch"]["eps"]) == (1e-7, 1e-8)
    beta1 = items["adam"]["hyperparameters"]["properties"]["beta1"]
    assert (beta1["minimum"], beta1["exclusiveMaximum"], beta1["default"], beta1["aliases"]) == (0, 1, 0.9, ["b1"])


async def test_a_preview_shows_the_rates_that_training_will_have(server):
    answer = await server.client.post("/v1/schedules/preview", json={"schedule": COSINE, "steps": 300, "lr": 0.5})
    spec = SCHEDULES.built["warmup_cosine"].model_validate(COSINE)
    assert answer.json() == {"lr": [schedules.resolve(spec, 0.5, k)[0] for k in range(300)]}


async def test_a_preview_of_no_schedule_is_the_rate_itself(server):
    assert (await server.client.post("/v1/schedules/preview", json={"schedule": None, "steps": 3})).json() == {
        "lr": [1.0, 1.0, 1.0]
    }


async def test_the_longest_preview_lets_other_requests_through(server):
    """A probe sent meanwhile is answered first."""
    order = []

    async def ask(name, request):
        answer = await request
        assert answer.status_code == 200, answer.text
        order.append(name)
        return answer

    preview = server.client.post("/v1/schedules/preview", json={"schedule": COSINE, "steps": PREVIEW_STEPS_MAX})
    long, _ = await asyncio.gather(ask("preview", preview), ask("probe", server.client.get("/healthz")))
    assert order == ["probe", "preview"]
    assert len(long.json()["lr"]) == PREVIEW_STEPS_MAX
    assert all(math.isfinite(rate) for rate in long.json()["lr"])


@pytest.mark.parametrize(
    "body",
    [
        {"schedule": COSINE},
        {"schedule": COSINE, "steps": 0},
        {"schedule": COSINE, "steps": PREVIEW_STEPS_MAX + 1},
        {"schedule": COSINE, "steps": 1.5},
        {"schedule": COSINE, "steps": 1, "lr": -1},
        {"schedule": COSINE, "steps": 1, "rate": 1},
        {"schedule": "sometimes", "steps": 1},
        {"schedule": "client", "steps": 1},
        {"schedule": {"name": "reduce_on_plateau", "monitor": "loss"}, "steps": 1},
    ],
)
async def test_a_preview_that_cannot_be_made_is_refused(server, problem, body):
    problem(await server.client.post("/v1/schedules/preview", json=body), "validation-error")
