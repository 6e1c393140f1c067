"""Runs: create, list, describe, change, delete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from gradserve.problems import Refused, Rejection
from gradserve.specs import Branch, RunChanges, RunSpec, validation_refusal
from gradserve.wire import Frame, frame_from_json
from gradserve_service.replica import Replica, Replicas, check_weights
from gradserve_service.replica.replicas import REOPENED

from ..bodies import read_document
from ..documents import RunDescription, RunList, checked, document_body
from ..hot import open_run
from ..json_text import JsonAnswer
from ..parameters import NAME_PATTERN, Incoming, RunName, idempotency_key

__all__ = ["router"]

PAGE_MAX = 1000
CREATE_ATTEMPTS_MAX = 8  # of a PUT whose run is deleted by others again and again

router = APIRouter(tags=["runs"])


@router.get("/v1/runs", summary="List runs", responses={200: {"model": RunList}}, operation_id="list_runs")
async def list_runs(
    request: Request,
    state: Annotated[
        Literal["running", "paused", "closed"] | None, Query(description="Only runs in this state.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="Runs a page, at most.")] = 100,
    page_token: Annotated[str, Query(pattern=f"{NAME_PATTERN}|^$", description="From the page before.")] = "",
) -> Response:
    """Living runs in name order, a page at a time."""
    replicas: Replicas = request.app.state.replicas
    runs = await replicas.list_runs(page_token, limit + 1)
    token = runs[limit - 1]["name"] if len(runs) > limit else None
    page = runs[:limit]
    if state is not None:
        page = [run for run in page if await _state_of(replicas, run["name"]) == state]
    return JsonAnswer({"runs": page, "next_page_token": token})


@router.put(
    "/v1/runs/{run}", summary="Get or create a run", operation_id="create_run",
    responses={200: {"model": RunDescription, "description": "It exists."}, 201: {"model": RunDescription}},
    openapi_extra=document_body(RunSpec),
)  # fmt: skip
async def create_run(request: Request, run: RunName) -> Response:
    """Create the run unless it exists. Another spec than the one that it was created with is 409 `run-exists`.

    Inline `weights` are set if the run has none yet: a retry completes a run whose creation was cut short. `branch`
    starts from a checkpoint of another run: its weights, slots and step, and every setting that is not given.
    """
    incoming = Incoming(request.scope, request.receive)
    document = await read_document(incoming)
    if (branch := _branch_of(document)) is not None:
        return await _branch_run(incoming, run, branch, document)
    spec = checked(RunSpec, document)
    first_weights = None if spec.weights is None else frame_from_json(spec.weights)
    if first_weights is not None:
        check_weights(first_weights)  # first of all: a refused request leaves no run behind
    uid = incoming.header(b"gradserve-run")
    attempts = 0
    while True:
        attempts += 1
        try:
            description, created = await _create(incoming.replicas, run, spec, uid, first_weights)
            break
        except Refused as refused:
            # Who asks by name alone wants a run of that name, whichever it is.
            if uid is not None or attempts == CREATE_ATTEMPTS_MAX or not _deleted_meanwhile(refused.rejection):
                raise
    return JsonAnswer(description, status_code=201 if created else 200, headers={"Location": f"/v1/runs/{run}"})


@router.get(
    "/v1/runs/{run}", summary="Describe a run", responses={200: {"model": RunDescription}}, operation_id="get_run"
)
async def get_run(request: Request, run: RunName) -> Response:
    """What the run is and where it stands."""
    return JsonAnswer(await (await open_run(Incoming(request.scope, request.receive))).describe())


@router.patch(
    "/v1/runs/{run}", summary="Change a run", responses={200: {"model": RunDescription}}, operation_id="change_run",
    openapi_extra=document_body(RunChanges),
)  # fmt: skip
async def change_run(request: Request, run: RunName) -> Response:
    """Change settings while the run goes on: `optimizer` is merged, the others are replaced whole."""
    incoming = Incoming(request.scope, request.receive)
    key = idempotency_key(incoming)
    changes = checked(RunChanges, await read_document(incoming))
    replica = await open_run(incoming)
    return JsonAnswer(await replica.configure(changes, key))


@router.delete("/v1/runs/{run}", summary="Delete a run", status_code=204, operation_id="delete_run")
async def delete_run(request: Request, run: RunName) -> Response:
    """Delete the run and all that is kept of it. With `Gradserve-Run` only that run, never its successor."""
    incoming = Incoming(request.scope, request.receive)
    await incoming.replicas.delete_run(run, incoming.header(b"gradserve-run"))
    return Response(status_code=204)


def _branch_of(document: dict[str, Any]) -> Branch | None:
    """Where the run that is asked for starts, None for a run of its own. Raises `validation-error`."""
    given = next((value for key, value in document.items() if key.lower() == "branch"), None)
    try:
        return None if given is None else Branch.model_validate(given)
    except ValidationError as error:
        raise validation_refusal(error, within="branch") from None


async def _branch_run(incoming: Incoming, run: str, branch: Branch, document: dict[str, Any]) -> Response:
    uid = incoming.header(b"gradserve-run")
    if uid is not None:
        await incoming.replicas.open(run, uid)
    replica, created = await incoming.replicas.branch_run(run, branch, document)
    headers = {"Location": f"/v1/runs/{run}"}
    return JsonAnswer(await replica.describe(), status_code=201 if created else 200, headers=headers)


async def _create(
    replicas: Replicas, name: str, spec: RunSpec, uid: str | None, first_weights: Frame | None
) -> tuple[dict[str, Any], bool]:
    """The run, with its first weights, and whether it is new. `uid`: only that run will do."""
    if uid is not None:
        await replicas.open(name, uid)
    replica, created = await replicas.create_run(name, spec)
    if first_weights is not None:
        await _load_first(replica, first_weights)
    return await replica.describe(), created


def _deleted_meanwhile(rejection: Rejection) -> bool:
    """Whether another request deleted the run between its creation and the answer."""
    return rejection.code == "run-deleted" or rejection is REOPENED


async def _load_first(run: Replica, frame: Frame) -> None:
    """Set the first weights; that another request was faster is as good."""
    try:
        await run.load(frame, if_none_match="*", if_match=None, idempotency_key=None)
    except Refused as refused:
        if refused.rejection.code != "precondition-failed":
            raise


async def _state_of(replicas: Replicas, name: str) -> str | None:
    """The run's state, None when it was deleted since it was listed, or nobody can tell: one run's damage must not take
    the list of all others."""
    try:
        description = await (await replicas.open(name)).describe()
    except Refused as refused:
        if refused.rejection.code not in ("run-not-found", "run-deleted", "quarantined", "store-lost"):
            raise
        return None
    return str(description["state"])
