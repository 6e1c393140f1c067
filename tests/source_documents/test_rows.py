"""Every row of the source documents' tables has a test that names it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
ROWS = (HERE / "rows.txt").read_text().splitlines()


def rows_named(path: Path) -> list[str]:
    """The rows in brackets that begin the docstrings of a file's tests."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            text = " ".join((ast.get_docstring(node) or "").split())
            found += re.match(r"(?:\[[^\]]+\] ?)*", text)[0].strip("[] ").split("] [") if text.startswith("[") else []
    return found


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    """A row without a test is not done; a name that is no row is misspelt."""
    named = {row for path in HERE.glob("test_*.py") for row in rows_named(path)}
    assert sorted(set(ROWS) - named) == []
    assert sorted(named - set(ROWS)) == []
    assert len(set(ROWS)) == len(ROWS)
