"""docs/http-api.md is the API: its routes, its codes, its headers; and its examples run."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from end_to_end.session import require_curl
from gradserve.problems import PROBLEMS
from gradserve_service.http.app import create_app
from gradserve_service.settings import Settings
from sdk.serving import Server

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http-api.md").read_text()
EXAMPLES = re.findall(r"^```sh\n(.*?)^```\n\n```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of its own: the examples follow from each other."""
    server = Server(tmp_path).start()
    yield server.url
    server.stop()


def test_every_example_answers_what_stands_below_it(url: str) -> None:
    """In their order, with the real curl; an answer may have more members than are shown."""
    require_curl()
    assert len(EXAMPLES) == PAGE.count("```sh\n") > 5
    for command, shown in EXAMPLES:
        line = command.replace("http://localhost:8970", url).replace(
            "curl ", "curl --silent --show-error --noproxy '*' "
        )
        ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert part_of(json.loads(shown), json.loads(ended.stdout)), f"{command}\n{ended.stdout}"


def part_of(shown: Any, answer: Any) -> bool:
    """All that is shown is in the answer, and the same."""
    if isinstance(shown, dict):
        return isinstance(answer, dict) and all(key in answer and part_of(shown[key], answer[key]) for key in shown)
    return bool(shown == answer)


def document() -> dict[str, Any]:
    return create_app(None, Settings.model_construct()).openapi()


def test_every_route_is_on_the_page_and_every_route_on_the_page_is_one() -> None:
    """By method and path; HEAD goes with GET."""
    told = set()
    for cell in re.findall(r"^\| `([^|]+)` \|", PAGE, re.MULTILINE):
        method, _, rest = cell.partition(" ")
        if method in ("GET", "PUT", "POST", "PATCH", "DELETE"):
            told |= {(method, path.partition("?")[0]) for path in re.split("`?, `", rest)}
    paths = document()["paths"]
    there = {(method.upper(), path) for path, operations in paths.items() for method in operations if method != "head"}
    assert told - {("GET", "/openapi.json"), ("GET", "/docs")} == there


def test_every_query_parameter_is_on_the_page() -> None:
    for path, operations in document()["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    assert re.search(rf"\b{parameter['name']}\b", PAGE), (path, parameter["name"])


def test_every_header_of_the_document_is_on_the_page() -> None:
    for operations in document()["paths"].values():
        for operation in operations.values():
            asked = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "header"]
            told = [name for response in operation["responses"].values() for name in response.get("headers", ())]
            assert [name for name in asked + told if f"`{name}" not in PAGE] == []


def test_every_code_is_in_the_table_with_its_status() -> None:
    told = {code: int(status) for status, code in re.findall(r"^\| (\d+) \| `([\w-]+)` \|", PAGE, re.MULTILINE)}
    assert told == {code: problem.status for code, problem in PROBLEMS.items()}
