"""OpenAPI links: what an answer lets one ask next.

Two rules make all of them. Whoever has made a thing with PUT may go on with everything at its path and below. And an
answer that tells a worker's `next_sequence` tells where its next push goes.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["add_links"]

_PARAMETER = re.compile(r"\{(\w+)\}")
NEXT_PUSH = {"register_worker", "push_gradient"}
PUSH = "push_gradient"


def add_links(document: dict[str, Any]) -> None:
    """Give every successful answer of the document its links, in place."""
    links = document["components"].setdefault("links", {})
    for path, operations in document["paths"].items():
        maker = operations.get("put")
        if maker is None or not path.endswith("}"):
            continue
        following = _below(document, path)
        for target, parameters in following.items():
            links[f"{maker['operationId']}_{target}"] = _link(target, parameters, path)
        for status, response in maker["responses"].items():
            if status.startswith("2"):
                response["links"] = {target: _named(maker, target) for target in following}
    for operations in document["paths"].values():
        for operation in operations.values():
            if operation["operationId"] in NEXT_PUSH:
                _link_next_push(operation, links)


def _below(document: dict[str, Any], path: str) -> dict[str, list[str]]:
    """The operations at the path and below it that need no other name than the path has, with their parameters."""
    known = _PARAMETER.findall(path)
    return {
        operation["operationId"]: known
        for other, operations in document["paths"].items()
        if (other + "/").startswith(path + "/") and not set(_PARAMETER.findall(other)) - set(known)
        for operation in operations.values()
    }


def _link(target: str, parameters: list[str], path: str) -> dict[str, Any]:
    return {
        "operationId": target,
        "parameters": {name: f"$request.path.{name}" for name in parameters},
        "description": f"Go on with what was put at {path}.",
    }


def _link_next_push(operation: dict[str, Any], links: dict[str, Any]) -> None:
    name = f"{operation['operationId']}_next_push"
    links[name] = {
        "operationId": PUSH,
        "parameters": {
            "run": "$request.path.run",
            "worker": "$request.path.worker",
            "sequence": "$response.body#/next_sequence",
        },
        "description": "The worker's next push.",
    }
    operation["responses"]["200"].setdefault("links", {})["next_push"] = {"$ref": f"#/components/links/{name}"}


def _named(maker: dict[str, Any], target: str) -> dict[str, str]:
    return {"$ref": f"#/components/links/{maker['operationId']}_{target}"}
