"""Every refusal leaves as one problem document (RFC 9457), whatever raised it.

An exception that is nobody's refusal is a fault of this server. It is logged with its traceback and answered 503
`quarantined` (the table's only row that says "an operator has to look at it") with the request id under which the log
holds it: the sender did nothing wrong, may send the same again later, and no route answers 500.
"""

from __future__ import annotations

from traceback import format_exception
from typing import Any, NoReturn
from urllib.parse import quote

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import Scope

from gradserve.problems import Refused, Rejection
from gradserve.specs import expected_of
from gradserve_service.store.protocols import RunAbsent, StoreDamaged, StoreFull, StoreUnavailable

from .json_text import encode_json

__all__ = ["MEDIA_TYPE", "allowed_methods", "problem_document", "problem_headers", "raise_on", "rejection_of"]

MEDIA_TYPE = "application/problem+json"
CHALLENGE = (b"www-authenticate", b'Bearer realm="gradserve"')
METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")
RESERVED = frozenset({"type", "title", "status", "detail", "instance", "code", "request_id"})

log = structlog.get_logger("gradserve.http")


async def raise_on(request: Request, exc: Exception) -> NoReturn:
    """Registered where FastAPI would answer in a form of its own: passes the exception on to the edge.

    A 405 leaves with all methods of its path: the router names those of the first route that it met.
    """
    if isinstance(exc, HTTPException) and exc.status_code == 405:
        exc.headers = {"Allow": ", ".join(allowed_methods(request.scope))}
    raise exc


def allowed_methods(scope: Scope) -> list[str]:
    """The methods that some route takes at the request's path."""
    routes = scope["app"].router.routes
    taken = {
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    }
    if "GET" in taken:
        taken.add("HEAD")
    return [method for method in METHODS if method in taken]


def rejection_of(exc: Exception, *, request_id: str) -> Rejection:
    """The refusal that an exception stands for. Logs the exception when it stands for none."""
    match exc:
        case Refused():
            return exc.rejection
        case HTTPException(status_code=404):
            return Rejection("not-found", "there is no such page; /docs lists the routes")
        case HTTPException(status_code=405):
            return Rejection("method-not-allowed", "this path takes another method; Allow names them")
        case RequestValidationError():
            return _validation_rejection(exc)
        case StoreUnavailable():
            return Rejection("store-unavailable", "the store does not answer; send the same again")
        case StoreFull():
            return Rejection("backpressure", "the store has no room left; send the same again later")
        case StoreDamaged():
            return Rejection("quarantined", f"the store gave back other bytes than were written: {exc}")
        case RunAbsent(deleted=True):
            return Rejection("run-deleted", "the run was deleted; create it again with PUT")
        case RunAbsent():
            return Rejection("store-lost", "the store no longer holds this run; an operator has to restore it")
        case MemoryError():
            return Rejection("backpressure", "the server has no memory left for this request; send it again later")
    # As text: with exc_info a renderer may show local variables, and the token or a gradient is one of them.
    log.error("request failed", request_id=request_id, exception="".join(format_exception(exc)))
    return Rejection(
        "quarantined",
        f"the server failed on this request, which is its fault; its log holds the reason under {request_id}",
    )


def problem_document(rejection: Rejection, *, scope: Scope, request_id: str) -> bytes:
    """The body of a problem answer."""
    problem = rejection.problem
    extras = {name: value for name, value in rejection.extras.items() if name not in RESERVED}
    document = {
        "type": f"/problems/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": rejection.detail,
        "instance": quote(scope.get("path", ""), safe="/:@!$&'()*+,;=-._~"),
        "code": problem.code,
        "request_id": request_id,
        **extras,
    }
    return encode_json(document)


def problem_headers(rejection: Rejection, *, length: int, exc: Exception | None = None) -> list[tuple[bytes, bytes]]:
    """The headers of a problem answer: type, length, and what the status asks for."""
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % length)]
    problem = rejection.problem
    retry_after = rejection.extras.get("retry_after_seconds", problem.retry_after_seconds)
    if retry_after is not None:
        headers.append((b"retry-after", str(max(1, round(retry_after))).encode()))
    if problem.status == 401:
        headers.append(CHALLENGE)
    if isinstance(exc, HTTPException) and exc.headers:
        headers.extend((name.lower().encode(), value.encode()) for name, value in exc.headers.items())
    return headers


def _validation_rejection(exc: RequestValidationError) -> Rejection:
    """Path and query parameters that FastAPI refused, named one by one."""
    errors = [
        {
            "field": ".".join(str(part) for part in error["loc"][1:]),
            "expected": expected_of(error),
            "came": _short(error.get("input")),
        }
        for error in exc.errors()
    ]
    detail = "; ".join(f"{error['field']}: expected {error['expected']}, came {error['came']}" for error in errors)
    return Rejection("validation-error", detail, {"errors": errors})


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "…"
