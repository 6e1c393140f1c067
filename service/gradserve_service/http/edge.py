"""The outermost layer: a request id, the token, the short way to the hot routes, and exceptions as problem documents.

What it counts for `/metrics` goes by the template of a route: a path would be a label of its own for every run.

It stands in front of FastAPI's own stack, not in it: seven layers of middleware and routing cost a push 45 µs, which
is a tenth of it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Sequence
from urllib.parse import quote

import structlog
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradserve.problems import Rejection, refuse

from .metrics import Metrics
from .problems import problem_document, problem_headers, rejection_of
from .receiving import Disconnected
from .routes.pushes import PUSH_PATH

__all__ = ["Edge", "Refusals"]

OPEN_PATHS = ("/healthz", "/readyz", "/openapi.json", "/docs")  # what a probe or a reader of the docs needs
OPEN_FOLDERS = ("/docs/", "/problems/")
REQUEST_ID = "gradserve.request_id"  # its key in the scope
TEMPLATE = "gradserve.template"  # of a hot route's path
REFUSAL = "gradserve.refusal"  # the code that a request was refused with
NO_ROUTE = "other"  # in metrics: a path that is none of ours
METHODS_COUNTED = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})

log = structlog.get_logger("gradserve.http")


class Edge:
    """Wraps the app. `token_digest` is the SHA-256 of the one token, None where no token is asked for."""

    def __init__(
        self,
        cold: ASGIApp,
        hot: Sequence[Route],
        *,
        token_digest: bytes | None,
        metrics: Metrics,
        log_requests: bool = False,
    ) -> None:
        self.cold = cold
        self.hot = [(route.path_regex, route.methods or set(), route.app, route.path) for route in hot]
        self.metrics = metrics
        self.token_digest = token_digest
        self.log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope[REQUEST_ID] = os.urandom(8).hex()
        started_at = time.perf_counter()
        status = received = sent = 0

        async def receive_counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"request-id", request_id.encode())]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            if self.token_digest is not None:
                check_token(scope, self.token_digest)
            await self.route(scope)(scope, receive_counting, send_with_id)
        except Disconnected:
            pass  # nobody is left to read an answer
        except Exception as exc:  # whatever went wrong inside gets an answer here
            if status:
                raise  # half an answer is out: the server closes the connection, the reader sees that it is short
            await send_problem(exc, scope, send_with_id)
        seconds = time.perf_counter() - started_at
        self._count(scope, status, seconds, received, sent)
        if self.log_requests:
            log.debug(
                "request", method=scope["method"], path=quote(scope["path"]), status=status,
                ms=round(seconds * 1e3, 3), request_id=request_id,
            )  # fmt: skip

    def route(self, scope: Scope) -> ASGIApp:
        """The hot route of the request, else FastAPI."""
        path = scope["path"]
        for pattern, methods, endpoint, template in self.hot:
            found = pattern.match(path)
            if found is not None and scope["method"] in methods:
                scope["path_params"] = found.groupdict()
                scope[TEMPLATE] = template
                return endpoint
        return self.bodiless if scope["method"] == "HEAD" and not answers_itself(scope) else self.cold

    async def bodiless(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HEAD on a route that knows GET alone: the headers of its answer."""
        asked = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.cold(asked, receive, send_head)
        scope["route"] = asked.get("route")

    def _count(self, scope: Scope, status: int, seconds: float, received: int, sent: int) -> None:
        """Tell the metrics. A request whose sender went away before an answer has status 0."""
        template = str(scope.get(TEMPLATE) or getattr(scope.get("route"), "path", NO_ROUTE))
        method = scope["method"] if scope["method"] in METHODS_COUNTED else NO_ROUTE
        self.metrics.request(method, template, status, seconds)
        self.metrics.bodies(received, sent)
        if template == PUSH_PATH and method == "PUT" and (code := scope.get(REFUSAL)):
            self.metrics.push_refused(code)


class Refusals:
    """Words what the cold routes raise, inside FastAPI's stack: its outermost layer would answer 500 first."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_noticing(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_noticing)
        except Disconnected:
            pass
        except Exception as exc:
            if started:
                raise
            await send_problem(exc, scope, send)


def answers_itself(scope: Scope) -> bool:
    """Whether a route takes the request's own method: one whose GET never ends must not be asked for it."""
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].router.routes)


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


async def send_problem(exc: Exception, scope: Scope, send: Send) -> None:
    """Answer with the problem document of what was raised."""
    request_id = scope[REQUEST_ID]
    rejection = rejection_of(exc, request_id=request_id)
    if rejection.code == "store-unavailable" and getattr(scope["app"].state.replicas, "draining", False):
        # A server that leaves has closed its store: nothing is wrong, and another server answers.
        rejection = Rejection("draining", "the server is shutting down: send the same again, another one will answer")
    scope[REFUSAL] = rejection.code
    body = problem_document(rejection, scope=scope, request_id=request_id)
    headers = problem_headers(rejection, length=len(body), exc=exc)
    await send({"type": "http.response.start", "status": rejection.problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
