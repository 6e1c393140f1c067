"""Pages for people: what a problem means, and the documentation of the API. All of it works with no internet.

Swagger UI's files come from the installed package `fastapi-offline`; nothing is vendored, nothing comes from a CDN.
"""

from __future__ import annotations

import html
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from gradserve.problems import PROBLEMS, refuse

from ..json_text import JsonAnswer
from ..media import JSON, answer_type
from ..openapi import openapi_document

__all__ = ["router"]

ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
# Swagger UI draws its icons from data: URLs and sets style attributes; all else comes from this server.
_DOCS_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_PAGE_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
_DOCS_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gradserve: API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_DOCS_START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
_PROBLEM_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{code}</title></head>
<body style="font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">
<p><code>{status} {code}</code></p>
<h1>{title}</h1>
<p>{cure}</p>
<p><a href="../docs">API</a></p>
</body>
</html>
"""

router = APIRouter()


@router.get("/problems/{code}", tags=["server"], summary="Explain a problem", operation_id="get_problem")
async def get_problem(request: Request, code: str) -> Response:
    """What a problem's code means and what cures it: HTML for a browser, JSON for the rest."""
    problem = PROBLEMS.get(code)
    if problem is None:
        raise refuse("not-found", f"there is no problem {code[:80]!r}", codes=list(PROBLEMS))
    row = {"code": problem.code, "status": problem.status, "title": problem.title, "cure": problem.cure}
    if answer_type(request.headers.get("accept"), JSON, (JSON, "text/html")) == JSON:
        return JsonAnswer(row)
    page = _PROBLEM_PAGE.format(**{name: html.escape(str(value)) for name, value in row.items()})
    return HTMLResponse(page, headers=_page_headers(_PAGE_POLICY))


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return JsonAnswer(openapi_document(request.app))


@router.get("/docs", include_in_schema=False)
async def get_docs() -> Response:
    """The documentation of the API, to read and to try."""
    return HTMLResponse(_DOCS_PAGE, headers=_page_headers(_DOCS_POLICY))


@router.get("/docs/start.js", include_in_schema=False)
async def get_docs_start() -> Response:
    """Starts Swagger UI; a file of its own because the page's policy allows no inline script."""
    return Response(_DOCS_START, media_type="text/javascript")


@router.get("/docs/{name}", include_in_schema=False)
async def get_docs_asset(name: str) -> Response:
    """A file of Swagger UI."""
    if name not in ASSETS:
        raise refuse("not-found", f"there is no page /docs/{name[:80]}")
    return Response(asset(name), media_type=ASSETS[name], headers={"Cache-Control": "public, max-age=3600"})


@cache
def asset(name: str) -> bytes:
    """A file of the installed Swagger UI. Read once, then kept."""
    return Path(str(distribution("fastapi-offline").locate_file(f"fastapi_offline/static/{name}"))).read_bytes()


def _page_headers(policy: str) -> dict[str, str]:
    return {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
