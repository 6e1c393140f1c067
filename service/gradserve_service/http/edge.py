"""The outermost layer: a request id, the token, and one place where exceptions become problem documents.

Pure ASGI (a `BaseHTTPMiddleware` costs 250 µs a request). It wraps hot and cold routes alike.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradserve.problems import refuse

from .bodies import Disconnected
from .problems import problem_document, problem_headers, rejection_of

__all__ = ["Edge"]

OPEN_PATHS = ("/healthz", "/readyz", "/openapi.json", "/docs")  # what a probe or a reader of the docs needs
OPEN_FOLDERS = ("/docs/", "/problems/")

log = structlog.get_logger("gradserve.http")


class Edge:
    """Wraps the app. `token_digest` is the SHA-256 of the one token, None where no token is asked for."""

    def __init__(self, app: ASGIApp, *, token_digest: bytes | None, log_requests: bool) -> None:
        self.app = app
        self.token_digest = token_digest
        self.log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = os.urandom(8).hex()
        started_at = time.perf_counter() if self.log_requests else 0.0
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"request-id", request_id.encode())]
            await send(message)

        try:
            if self.token_digest is not None:
                check_token(scope, self.token_digest)
            await self.app(scope, receive, send_with_id)
        except Disconnected:
            pass  # nobody is left to read an answer
        except Exception as exc:
            if status:
                raise  # half an answer is out: the server closes the connection, the reader sees that it is short
            await send_problem(exc, scope, send_with_id, request_id)
        if self.log_requests:
            milliseconds = round((time.perf_counter() - started_at) * 1e3, 3)
            log.debug(
                "request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds,
                request_id=request_id,
            )  # fmt: skip


def check_token(scope: Scope, digest: bytes) -> None:
    """Raises `unauthorized` unless the request carries the token or asks for an open page.

    Compared as SHA-256 and in constant time: neither the length nor a prefix of the token shows in the timing.
    """
    path = scope["path"]
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return
    given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    if given is None:
        raise refuse("unauthorized", "this server asks for a token: send 'Authorization: Bearer <token>'")
    scheme, _, token = given.partition(b" ")
    if scheme.lower() != b"bearer":
        raise refuse("unauthorized", "the Authorization header is not of the form 'Bearer <token>'")
    if not hmac.compare_digest(hashlib.sha256(token.strip()).digest(), digest):
        raise refuse("unauthorized", "the token is not one that this server knows")


async def send_problem(exc: Exception, scope: Scope, send: Send, request_id: str) -> None:
    """Answer with the problem document of what was raised."""
    rejection = rejection_of(exc, request_id=request_id)
    body = problem_document(rejection, scope=scope, request_id=request_id)
    headers = problem_headers(rejection, length=len(body), exc=exc)
    await send({"type": "http.response.start", "status": rejection.problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
