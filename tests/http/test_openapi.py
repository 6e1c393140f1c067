"""The OpenAPI document is the app: in the repository, in its codes, in its routes."""

from __future__ import annotations

import json
from pathlib import Path

from openapi_spec_validator import validate
from starlette.routing import Route

from gradserve.problems import PROBLEMS
from gradserve_service.http.app import create_app
from gradserve_service.settings import Settings

WRITTEN = Path(__file__).parents[2] / "openapi" / "openapi.json"
PATHS = {
    "/healthz": {"get"},
    "/metrics": {"get"},
    "/v1/optimizers": {"get"},
    "/v1/schedules": {"get"},
    "/v1/schedules/preview": {"post"},
    "/v1/aggregations": {"get"},
    "/v1/clips": {"get"},
    "/v1/averages": {"get"},
    "/v1/staleness": {"get"},
    "/readyz": {"get"},
    "/problems/{code}": {"get"},
    "/v1/server": {"get"},
    "/v1/runs": {"get"},
    "/v1/runs/{run}": {"get", "put", "patch", "delete"},
    "/v1/runs/{run}/metrics": {"post"},
    "/v1/runs/{run}/checkpoints": {"get"},
    "/v1/runs/{run}/checkpoints/{checkpoint}": {"get", "put", "delete"},
    "/v1/runs/{run}/restore": {"post"},
    "/v1/runs/{run}/weights": {"get", "head", "put"},
    "/v1/runs/{run}/workers": {"get"},
    "/v1/runs/{run}/workers/{worker}": {"put", "delete"},
    "/v1/runs/{run}/workers/{worker}/pushes/{sequence}": {"put", "get"},
    "/v1/runs/{run}/optimizer-state": {"get"},
    "/v1/runs/{run}/history": {"get"},
    "/v1/runs/{run}/statistics": {"get"},
    "/v1/runs/{run}/events": {"get"},
    "/v1/runs/{run}/journal": {"get"},
}


def document() -> dict:
    return create_app(None, Settings()).openapi()


def test_the_written_document_is_what_the_code_says():
    """Otherwise: gradserve openapi --output openapi/openapi.json"""
    assert json.loads(WRITTEN.read_text()) == document()


def test_every_route_is_in_it():
    found = {path: set(operations) for path, operations in document()["paths"].items()}
    assert found == PATHS


def test_no_hot_route_is_missing():
    paths = document()["paths"]
    for route in create_app(None, Settings()).router.routes:
        if isinstance(route, Route) and route.path.startswith("/v1/"):
            assert {method.lower() for method in route.methods or ()} - {"head"} <= set(paths[route.path])


def test_the_codes_of_problems_are_the_table():
    schemas = document()["components"]["schemas"]
    assert schemas["ProblemDocument"]["properties"]["code"]["enum"] == list(PROBLEMS)


def test_every_reference_leads_somewhere():
    text = json.dumps(document())
    components = document()["components"]
    for part in text.split('"$ref": "#/components/')[1:]:
        kind, name = part.partition('"')[0].split("/")
        assert name in components[kind], f"{kind}/{name}"


def test_every_operation_has_a_name_of_its_own_and_can_be_refused():
    operations = [operation for path in document()["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["responses"]["default"]["$ref"].endswith("/Problem") for operation in operations)
    assert all("422" not in operation["responses"] for operation in operations)


def test_the_document_is_valid_openapi():
    """By the validator of the OpenAPI community, not by our own idea of it."""
    validate(document())


def test_a_link_leads_to_an_operation_that_has_its_parameters():
    found = document()
    operations = {
        operation["operationId"]: (path, operation)
        for path, methods in found["paths"].items()
        for operation in methods.values()
    }
    links = found["components"]["links"]
    assert {"create_run_get_run", "create_run_pull_weights", "push_gradient_next_push"} <= set(links)
    for link in links.values():
        path, _ = operations[link["operationId"]]
        assert {f"{{{name}}}" for name in link["parameters"]} == {part for part in path.split("/") if "{" in part}
