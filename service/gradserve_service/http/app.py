"""The app: the edge in front, the hot routes next to it, FastAPI's behind them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from gradserve_service.replica import Replicas
from gradserve_service.settings import Settings

from .edge import Edge, Refusals
from .metrics import Metrics
from .openapi import openapi_document
from .parameters import check_query
from .problems import raise_on
from .receiving import SlowSenders
from .routes import (
    catalogues,
    checkpoints,
    events,
    metrics,
    optimizer_state,
    pages,
    past,
    prometheus,
    pushes,
    runs,
    server,
    weights,
    workers,
)
from .waits import Waits

__all__ = ["create_app"]

HOT_ROUTES = (*pushes.routes, *weights.routes)


class GradserveApp(FastAPI):
    """FastAPI behind the edge."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(
            title="Gradserve",
            version=version("gradserve"),
            summary="Optimizer as a service",
            openapi_url=None,  # /openapi.json and /docs are routes of ours: complete, and without a CDN
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            # Refusals pass through to the one place that words them.
            exception_handlers={HTTPException: raise_on, RequestValidationError: raise_on},
        )
        self.add_middleware(Refusals)
        self.edge = Edge(
            super().__call__,
            HOT_ROUTES,
            token_digest=settings.token_digest(),
            metrics=metrics,
            log_requests=settings.log_level == "debug",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["app"] = self
            await self.edge(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document of all routes, hot ones included."""
        return openapi_document(self)


def create_app(replicas: Replicas | None, settings: Settings) -> FastAPI:
    """The HTTP face of `replicas`. Cheap: a simulator makes one for each server it starts.

    Whoever calls owns the replicas: starts them before the first request, drains them after the last, and may put
    others into `app.state.replicas` at any time. None: for the OpenAPI document only.
    """
    counted = Metrics()
    app = GradserveApp(settings, counted)
    app.state.metrics = counted
    app.state.replicas = replicas
    app.state.waits = Waits()
    app.state.slow_senders = SlowSenders()
    # The hot routes are here too, for the methods that they do not take (405) and behind a root path.
    app.router.routes.extend([*HOT_ROUTES, *optimizer_state.routes, *past.routes, *events.routes, *checkpoints.routes])
    for module in (workers, runs, past, metrics, checkpoints, catalogues, server, prometheus, pages):
        app.include_router(module.router, dependencies=[Depends(check_query)])
    return app
