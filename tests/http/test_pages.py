"""The documentation works with no internet: every address on it is this server's."""

from __future__ import annotations

import re

import pytest


async def test_the_docs_take_everything_from_this_server(server, problem):
    page = await server.client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe-eval" not in policy
    assert "script-src" not in policy, "scripts come from this server, as default-src says"
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert addresses
    for address in addresses:
        assert "://" not in address
        assert not address.startswith("//")
        if not address.startswith("data:"):
            answer = await server.client.get("/" + address)
            assert answer.status_code == 200, address
            assert len(answer.content) > 20
    assert not re.search(r"<script(?![^>]*src=)", page.text), "the policy allows no inline script"


@pytest.mark.parametrize(
    ("name", "media_type"), [("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")]
)
async def test_swagger_ui_comes_from_an_installed_package(server, name, media_type):
    answer = await server.client.get(f"/docs/{name}")
    assert answer.headers["content-type"].startswith(media_type)
    assert len(answer.content) > 50_000


@pytest.mark.parametrize("name", ["..%2F..%2Fcore.py", "redoc.standalone.js", "x"])
async def test_no_other_file_is_served(server, name, problem):
    problem(await server.client.get(f"/docs/{name}"), "not-found")


async def test_the_document_that_the_docs_show(server):
    answer = await server.client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["openapi"].startswith("3.1")
