"""The app: the edge around it, the hot routes in front, FastAPI's behind them."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gradserve_service.replica import Replicas
from gradserve_service.settings import Settings

from .edge import Edge
from .openapi import openapi_document
from .problems import raise_on
from .routes import optimizer_state, pages, pushes, runs, server, weights, workers
from .waits import Waits

__all__ = ["create_app"]


def create_app(replicas: Replicas | None, settings: Settings) -> FastAPI:
    """The HTTP face of `replicas`. Cheap: a simulator makes one for each server it starts.

    Whoever calls owns the replicas: starts them before the first request, drains them after the last, and may put
    others into `app.state.replicas` at any time. None: for the OpenAPI document only.
    """
    app = FastAPI(
        title="Gradserve",
        version=version("gradserve"),
        summary="Optimizer as a service",
        openapi_url=None,  # /openapi.json and /docs are routes of ours: complete, and without a CDN
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Refusals pass through to the edge, which words all of them.
        exception_handlers={HTTPException: raise_on, RequestValidationError: raise_on},
    )
    app.state.replicas = replicas
    app.state.waits = Waits()
    # In the order of how often they are asked for: the router looks from the top.
    app.router.routes.extend([*pushes.routes, *weights.routes, *optimizer_state.routes])
    for module in (workers, runs, server, pages):
        app.include_router(module.router)
    app.add_middleware(Edge, token_digest=settings.token_digest(), log_requests=settings.log_level == "debug")
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]
    return app
