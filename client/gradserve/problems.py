"""The one table of refusals.

Every way in which Gradserve says no has a *code*. This table is the source of its HTTP status, of the page
`/problems/{code}`, of the enum in the OpenAPI document and of the SDK's exception classes (a test holds them equal).

In the rules a refusal is a value (`Rejection`); where a value cannot travel it is raised as `Refused`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PROBLEMS", "Problem", "Refused", "Rejection", "refuse"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the table: what a code means, whoever meets it, and what cures it."""

    code: str
    status: int
    title: str
    cure: str
    retry_after_seconds: int | None = None


def _table(*rows: Problem) -> dict[str, Problem]:
    return {row.code: row for row in rows}


PROBLEMS: dict[str, Problem] = _table(
    Problem("malformed-request", 400, "The bytes are not an HTTP request", "Use an HTTP/1.1 client."),
    Problem("malformed-json", 400, "The body is not JSON this server reads", "Send strict JSON: no NaN, no Infinity."),
    Problem(
        "malformed-tensors", 400, "The body is not a valid safetensors file", "Write it with a safetensors library."
    ),
    Problem("unauthorized", 401, "The token is missing or unknown", "Send 'Authorization: Bearer <token>'."),
    Problem("forbidden", 403, "The token may not do this", "Use a token with the scope that the detail names."),
    Problem("not-found", 404, "There is no such page", "Look at /docs for the routes that exist."),
    Problem("run-not-found", 404, "There is no such run", "Create it with PUT /v1/runs/{run}."),
    Problem("worker-not-found", 404, "The run knows no such worker", "Register it with PUT …/workers/{worker}."),
    Problem("push-not-found", 404, "The outcome of that push is not kept", "Only the last push of a worker is kept."),
    Problem("checkpoint-not-found", 404, "There is no such checkpoint", "List them with GET …/checkpoints."),
    Problem("version-not-kept", 404, "That version can no longer be restored", "Choose one of the kept range."),
    Problem("method-not-allowed", 405, "That path does not take this method", "Use one of the methods in Allow."),
    Problem("not-acceptable", 406, "No representation suits the Accept header", "Ask for JSON or safetensors."),
    Problem("json-too-large", 406, "Too many elements for JSON", "Accept application/vnd.safetensors."),
    Problem("run-exists", 409, "A run of that name exists with another spec", "Use its spec, or another name."),
    Problem("weights-uninitialised", 409, "The run has no weights yet", "PUT …/weights first."),
    Problem(
        "stale-gradient", 409, "The gradient is older than the run allows", "Pull the weights and compute it again."
    ),
    Problem("round-closed", 409, "The round of that gradient is closed", "Pull the weights and compute it again."),
    Problem(
        "history-rewound",
        409,
        "The server's history no longer holds what the worker was told",
        "Register again, drop the outstanding gradient, pull, continue after the returned cursor.",
    ),
    Problem("fenced", 409, "A newer instance of this worker has taken over", "Stop this process: it was replaced."),
    Problem("run-paused", 409, "The run is paused", "Wait until it is resumed."),
    Problem("run-closed", 409, "The run is closed", "Weights can be read; gradients are over."),
    Problem(
        "lr-owned-by-server",
        409,
        "The server owns the learning rate",
        "Leave lr out, or give the run the schedule 'client'.",
    ),
    Problem("run-deleted", 410, "The run was deleted", "Create it again with PUT /v1/runs/{run}."),
    Problem("precondition-failed", 412, "The precondition does not hold", "Read the current ETag and decide again."),
    Problem("too-large", 413, "The body is larger than the limit", "Send less; the detail names the limit."),
    Problem(
        "unsupported-media-type",
        415,
        "The body's type is not one this route reads",
        "With curl use --json, or send application/vnd.safetensors.",
    ),
    Problem("validation-error", 422, "A value is not one that this route accepts", "The detail names each field."),
    Problem("layout-mismatch", 422, "A tensor differs in shape from the run's", "Send it in the run's shape."),
    Problem("unknown-tensor", 422, "The run has no tensor of that name", "Use the run's names (GET the run)."),
    Problem("dtype-unsupported", 422, "That dtype is not one the service reads", "Send float32, bfloat16 or float16."),
    Problem(
        "non-finite-gradient", 422, "The gradient has NaN or Infinity", "Skip this batch or lower the learning rate."
    ),
    Problem(
        "sequence-reused",
        422,
        "That sequence number was used for another gradient",
        "Register again and continue with next_sequence.",
    ),
    Problem("head-too-large", 431, "Path and headers are larger than the limit", "Send fewer or shorter headers."),
    Problem("backpressure", 429, "The server is at a limit", "Wait as Retry-After says, then send the same again.", 1),
    Problem("worker-too-fast", 429, "The worker is too far ahead of the slowest", "Wait, then send the same again.", 1),
    Problem("quota-exceeded", 429, "A quota of this server is used up", "Delete what is no longer needed.", 60),
    Problem("starting", 503, "The server is starting", "Try again.", 1),
    Problem(
        "store-unavailable",
        503,
        "The store cannot be reached",
        "Try again; the server goes on when the store is back.",
        1,
    ),
    Problem("draining", 503, "The server is shutting down", "Try again: another server or its successor answers.", 1),
    Problem("store-lost", 503, "The store no longer holds this run", "An operator has to restore the store.", 30),
    Problem("quarantined", 503, "The run is set aside after repeated failures", "An operator has to look at it.", 60),
)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refusal as a value.

    `detail` says what was expected, what came and what to do; `extras` are the typed members of the problem document.
    """

    code: str
    detail: str
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """The row of the table."""
        return PROBLEMS[self.code]


class Refused(Exception):
    """A `Rejection` that has to cross a call that returns something else."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(f"{rejection.code}: {rejection.detail}")
        self.rejection = rejection


def refuse(code: str, detail: str, **extras: Any) -> Refused:
    """`raise refuse("run-not-found", "…")` — the exception for one row of the table."""
    return Refused(Rejection(code, detail, extras))
