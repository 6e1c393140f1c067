"""The OpenAPI document: what FastAPI knows of the cold routes, and the hot routes in the same form."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gradserve.problems import PROBLEMS
from gradserve.specs import RunChanges, RunSpec
from gradserve.wire import DTYPES, MEDIA_TYPE
from gradserve_service.replica import AVERAGE_NAMES, RAW

from . import catalogue_documents, documents
from .links import add_links
from .media import JSON
from .parameters import NAME_PATTERN, SEQUENCE_MAX
from .problems import MEDIA_TYPE as PROBLEM_TYPE
from .routes.checkpoints import CHECKPOINT_PATH
from .routes.events import EVENTS, EVENTS_PATH, JOURNAL_PATH, NDJSON
from .routes.optimizer_state import OPTIMIZER_STATE_PATH
from .routes.past import CSV, HISTORY_PATH
from .routes.pushes import PUSH_PATH
from .routes.weights import WEIGHTS_PATH

__all__ = ["openapi_document"]

# Models that no route of FastAPI's names by itself.
_BODIES: tuple[type[BaseModel], ...] = (
    RunSpec, RunChanges, documents.Registration, catalogue_documents.SchedulePreview, documents.PushBody,
    documents.WeightsBody, documents.ReportBody, documents.RestoreBody,
)  # fmt: skip
_ANSWERS: tuple[type[BaseModel], ...] = (
    documents.ProblemDocument, documents.PushOutcome, documents.PushWithWeights, documents.WeightsDocument,
    documents.WeightsLoaded, documents.HistoryColumns, documents.Checkpoint,
)  # fmt: skip
_TENSORS = {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}
_DESCRIPTION = """\
Workers push gradients, Gradserve applies the optimizer and answers with the new weights; each gradient is applied
exactly once. Every error is a problem document (RFC 9457); the page under its `type` explains it. 409 is never retried
blindly; 429 and 503 are retried as they are, after `Retry-After`.
"""


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document of all routes, hot ones included. Built once an app."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=_DESCRIPTION, routes=app.routes
        )
        document["paths"].update(_hot_paths())
        document["paths"] = dict(sorted(document["paths"].items()))
        components = document.setdefault("components", {})
        components["schemas"] = dict(sorted({**components.get("schemas", {}), **_schemas()}.items()))
        for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of 422, never sent here
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        components["responses"] = {"Problem": _problem_response()}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(path, operation)
        add_links(document)
        app.openapi_schema = document
    return app.openapi_schema


def _complete(path: str, operation: dict[str, Any]) -> None:
    """What holds for every operation: refusals are problems, /v1 asks for the token where there is one."""
    operation["responses"].pop("422", None)
    operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}
    if path.startswith("/v1/"):
        operation["security"] = [{}, {"token": []}]


def _schemas() -> dict[str, Any]:
    template = "#/components/schemas/{model}"
    inputs = models_json_schema([(model, "validation") for model in _BODIES], ref_template=template)
    outputs = models_json_schema([(model, "serialization") for model in _ANSWERS], ref_template=template)
    return {**inputs[1].get("$defs", {}), **outputs[1].get("$defs", {})}


def _problem_response() -> dict[str, Any]:
    statuses = sorted({problem.status for problem in PROBLEMS.values()})
    return {
        "description": f"A refusal. The statuses in use: {', '.join(map(str, statuses))}.",
        "headers": {
            "Retry-After": {"description": "With 429 and 503: seconds.", "schema": {"type": "integer"}},
            "Request-Id": {"description": "The server's log knows the request by it.", "schema": {"type": "string"}},
        },
        "content": {PROBLEM_TYPE: {"schema": _ref("ProblemDocument")}},
    }


def _hot_paths() -> dict[str, Any]:
    return {
        PUSH_PATH: {"put": _push_operation(), "get": _outcome_operation()},
        WEIGHTS_PATH: {"get": _pull_operation(), "head": _head_operation(), "put": _load_operation()},
        OPTIMIZER_STATE_PATH: {"get": _state_operation()},
        HISTORY_PATH: {"get": _history_operation()},
        EVENTS_PATH: {"get": _events_operation()},
        JOURNAL_PATH: {"get": _journal_operation()},
        CHECKPOINT_PATH: _checkpoint_operations(),
    }


def _push_operation() -> dict[str, Any]:
    return {
        "tags": ["pushes"],
        "summary": "Push a gradient",
        "description": "Idempotent: the same sequence with the same gradient is answered again and applied once. "
        "`Prefer: return=representation` adds the new weights. A safetensors body carries the other fields of the "
        "JSON body as strings in `__metadata__`; a safetensors answer has the outcome in its headers.",
        "operationId": "push_gradient",
        "parameters": [*_run_parameters("worker", "sequence"), _query("dtype", _DTYPE), _header("Prefer"), _GUARD],
        "requestBody": {"required": True, "content": {**_TENSORS, JSON: {"schema": _ref("PushBody")}}},
        "responses": {
            "200": {
                "description": "The gradient is in the journal.",
                "headers": _headers(
                    "ETag", "Content-Location", "Gradserve-Version", "Gradserve-Step", "Gradserve-Head",
                    "Gradserve-Outcome", "Gradserve-Staleness", "Gradserve-LR", "Gradserve-Gradient-Norm",
                    "Gradserve-Clip-Scale", "Gradserve-Finite", "Gradserve-Batch", "Gradserve-Durability",
                    "Gradserve-Next-Sequence", "Gradserve-Receipt", "Server-Timing", "Request-Id",
                ),
                "content": {**_TENSORS, JSON: {"schema": {"anyOf": [_ref("PushWithWeights"), _ref("PushOutcome")]}}},
            }
        },
    }  # fmt: skip


def _outcome_operation() -> dict[str, Any]:
    return {
        "tags": ["pushes"],
        "summary": "What became of the last push",
        "operationId": "get_push",
        "parameters": _run_parameters("worker", "sequence"),
        "responses": {"200": {"description": "Its outcome.", "content": {JSON: {"schema": _ref("PushOutcome")}}}},
    }


def _pull_operation() -> dict[str, Any]:
    return {
        "tags": ["weights"],
        "summary": "Pull the weights",
        "description": "With `If-None-Match` only weights other than those; then `Prefer: wait=30` waits for them.",
        "operationId": "pull_weights",
        "parameters": [
            *_run_parameters(), _query("weights", _WHICH, _OF), _query("dtype", _DTYPE),
            _query("names", {"type": "string"}, "Only these, by comma."),
            _query("rows", {"type": "string"}, "Only these rows of the one tensor in names, by comma; at most 4,096."),
            _header("If-None-Match"), _header("Prefer"), _header("Range"), _header("If-Range"),
        ],
        "responses": {
            "200": {
                "description": "The weights.",
                "headers": _headers("ETag", "Gradserve-Version", "Gradserve-Head", "Request-Id"),
                "content": {**_TENSORS, JSON: {"schema": _ref("WeightsDocument")}},
            },
            "206": {"description": "The bytes that Range names.", "content": _TENSORS},
            "304": {"description": "Still the weights of If-None-Match."},
        },
    }  # fmt: skip


def _head_operation() -> dict[str, Any]:
    operation = _pull_operation()
    operation.update(summary="Look at the weights' headers", operationId="head_weights")
    for response in operation["responses"].values():
        response.pop("content", None)
    return operation


def _load_operation() -> dict[str, Any]:
    loaded = {
        "headers": _headers("ETag", "Gradserve-Version", "Gradserve-Head", "Request-Id"),
        "content": {JSON: {"schema": _ref("WeightsLoaded")}},
    }
    return {
        "tags": ["weights"],
        "summary": "Set the weights",
        "description": "`If-None-Match: *`: only if there are none yet, so that the first worker's win. `If-Match`: "
        "only instead of these. Slots and step stay.",
        "operationId": "load_weights",
        "parameters": [
            *_run_parameters(), _header("If-None-Match"), _header("If-Match"), _header("Idempotency-Key"), _GUARD,
        ],
        "requestBody": {"required": True, "content": {**_TENSORS, JSON: {"schema": _ref("WeightsBody")}}},
        "responses": {"200": {"description": "Replaced.", **loaded}, "201": {"description": "The first.", **loaded}},
    }  # fmt: skip


def _state_operation() -> dict[str, Any]:
    return {
        "tags": ["weights"],
        "summary": "Read the optimizer's state",
        "description": "Every slot by tensor: `<slot>/<tensor>`, such as `exp_avg/w`.",
        "operationId": "get_optimizer_state",
        "parameters": _run_parameters(),
        "responses": {"200": {"description": "The slots.", "content": _TENSORS}},
    }


def _checkpoint_operations() -> dict[str, Any]:
    common: dict[str, Any] = {"tags": ["checkpoints"], "parameters": _run_parameters("checkpoint")}
    guarded = {**common, "parameters": [*common["parameters"], _header("Idempotency-Key"), _GUARD]}
    kept = {"content": {JSON: {"schema": _ref("Checkpoint")}}}
    return {
        "get": {
            **common, "summary": "Download a checkpoint", "operationId": "get_checkpoint",
            "description": "Weights under their own names, slots as `optimizer/<slot>/<tensor>`; version, step, spec "
            "and what else a restore needs as JSON text in `__metadata__`.",
            "responses": {"200": {"description": "The file.", "content": _TENSORS}},
        },
        "put": {
            **guarded, "summary": "Save a checkpoint", "operationId": "save_checkpoint",
            "description": "Without a body: of the present state. With one: of this file, which may have weights only. "
            "A name stands for one state for ever: one that is taken is answered as it is.",
            "requestBody": {"required": False, "content": _TENSORS},
            "responses": {"200": {"description": "It exists.", **kept}, "201": {"description": "Saved.", **kept}},
        },
        "delete": {
            **common, "summary": "Delete a checkpoint", "operationId": "delete_checkpoint",
            "responses": {"204": {"description": "It is gone."}},
        },
    }  # fmt: skip


def _history_operation() -> dict[str, Any]:
    series = "By comma: loss, lr, …, metrics/<name>, gradient_norm/<tensor>. Without it all but the last."
    return {
        "tags": ["history"],
        "summary": "Read the history",
        "description": "One row an update: the newest 1,024 each, the past up to 65,536 rows, then thinned.",
        "operationId": "get_history",
        "parameters": [
            *_run_parameters(),
            _query("series", {"type": "string"}, series),
            _query("since", _COUNT, "Only versions above this one."),
            _query("max_points", {"type": "integer", "minimum": 1}, "At most so many rows, evenly spread."),
        ],
        "responses": {
            "200": {
                "description": "The columns.",
                "content": {JSON: {"schema": _ref("HistoryColumns")}, CSV: {"schema": {"type": "string"}}},
            }
        },
    }


def _events_operation() -> dict[str, Any]:
    return {
        "tags": ["history"],
        "summary": "Watch a run",
        "description": "Server-sent events: update, contribution, worker, configure, load, report, rejection,"
        " warning, gap. `id` is the position in the journal; with `Last-Event-ID` what came after it is told first,"
        " without it only what is new.",
        "operationId": "watch_run",
        "parameters": [*_run_parameters(), _header("Last-Event-ID")],
        "responses": {"200": {"description": "Events.", "content": {EVENTS: {"schema": {"type": "string"}}}}},
    }


def _journal_operation() -> dict[str, Any]:
    return {
        "tags": ["history"],
        "summary": "Read the journal",
        "description": "One JSON line an entry: its header as it was hashed, and the chain's `hash` after it.",
        "operationId": "read_journal",
        "parameters": [
            *_run_parameters(),
            _query("since", _COUNT, "Only entries behind this position."),
            _query("limit", {"type": "integer", "minimum": 1}),
        ],
        "responses": {"200": {"description": "Entries.", "content": {NDJSON: {"schema": {"type": "string"}}}}},
    }


_COUNT = {"type": "integer", "minimum": 0, "maximum": SEQUENCE_MAX}
_DTYPE = {"type": "string", "enum": list(DTYPES), "default": "float32"}
_WHICH = {"type": "string", "enum": [RAW, *AVERAGE_NAMES], "default": RAW}
_OF = "The weights themselves, or the average that the run keeps, also by its name; `x`, `ax`: the optimizer's own."
_PATH_SCHEMAS = {
    "run": {"type": "string", "pattern": NAME_PATTERN},
    "worker": {"type": "string", "pattern": NAME_PATTERN},
    "checkpoint": {"type": "string", "pattern": NAME_PATTERN},
    "sequence": {"type": "integer", "minimum": 1, "maximum": SEQUENCE_MAX},
}
_GUARD = {
    "name": "Gradserve-Run", "in": "header", "required": False, "schema": {"type": "string"},
    "description": "uid of the run that is meant; another one is 410 `run-deleted`.",
}  # fmt: skip


def _ref(model: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model}"}


def _run_parameters(*more: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[name]} for name in ("run", *more)]


def _query(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    parameter = {"name": name, "in": "query", "required": False, "schema": schema}
    return {**parameter, "description": description} if description else parameter


def _header(name: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}} for name in names}
