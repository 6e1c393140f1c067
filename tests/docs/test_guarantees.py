"""docs/guarantees.md: each promise names tests that exist, each long run a command that can be typed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
PROMISES = ("At every level of durability", "What the store's level adds")


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading of the second level, without its head."""
    text = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def functions(path: Path) -> set[str]:
    """The tests that a file has."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("title", PROMISES)
def test_every_promise_is_held_by_something_that_runs(title: str) -> None:
    """A test of pytest by its path, or a scenario; nothing else stands in that column."""
    held = rows(title)
    assert held
    for promise, _, tests in held:
        named = tests.split(", ")
        assert all(re.fullmatch(r"`tests/[\w/]+(\.py::test_\w+|\.txt)`", each) for each in named), promise


def test_every_test_that_is_named_exists() -> None:
    """Anywhere on the page, by file and function."""
    named = re.findall(r"`(tests/[\w./]+?)(?:::(\w+))?`", PAGE)
    assert len(named) > 30
    for path, function in named:
        assert (ROOT / path).is_file(), path
        assert not function or function in functions(ROOT / path), f"{path}::{function}"


def test_every_long_run_is_a_command_with_flags_that_exist() -> None:
    """Its script is there and knows each of them; a run without counters has no date either."""
    for what, cell, ran, counters in rows("Long runs"):
        (command,) = re.findall(r"^`python (.+)`$", cell)
        script, *arguments = command.split()
        text = (ROOT / script).read_text(encoding="utf-8")
        unknown = [flag for flag in arguments if flag.startswith("--") and f'"{flag}"' not in text]
        assert unknown == [], what
        assert (ran == "—") == (counters == "—"), what
        assert ran == "—" or re.fullmatch(r"20\d\d-\d\d-\d\d, [0-9a-f]{7}", ran), what
