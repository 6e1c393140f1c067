"""Mistakes in the optimizers are noticed: a sample of them, made one at a time, and how they are made."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SAMPLE = ("--sample", "24", "--seed", "4", "--no-tests")  # the same each time: what fails here is about a change
SOURCE = '''
def length(t, x):
    """Of 1.0 no word."""
    if x < 0.5:
        x = -x
    return max(x - 1, t)
'''


@pytest.fixture(scope="module")
def mutants() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("mutants")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    path = tmp_path / "small.py"
    path.write_text(SOURCE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("small", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_a_sample_of_mistakes_is_noticed() -> None:
    """All of them: python scripts/mutate.py"""
    words = [sys.executable, str(SCRIPTS / "mutate.py"), *SAMPLE]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "24 mutants: " in ended.stdout


def test_each_constant_sign_operator_and_comparison_is_changed_once(mutants: ModuleType, module: ModuleType) -> None:
    """In the body alone, with the line that it is in."""
    found = [(mutant.line, mutant.change.partition(mutants.ARROW)[2]) for mutant in mutants.mutants_of(module)]
    assert sorted(found) == [
        (4, "if not x < 0.5:"),
        (4, "if x < 0.75:"),
        (4, "if x <= 0.5:"),
        (4, "if x >= 0.5:"),
        (5, "x = +x"),
        (6, "return max(x + 1, t)"),
        (6, "return max(x - 1, t + 1)"),
        (6, "return max(x - 2, t)"),
        (6, "return min(x - 1, t)"),
    ]


def test_a_mutant_takes_the_place_of_the_function_itself(mutants: ModuleType, module: ModuleType) -> None:
    """Whoever has the function has the mistake."""
    (changed,) = [mutant for mutant in mutants.mutants_of(module) if mutant.change.endswith("return max(x + 1, t)")]
    length = module.length
    assert length(0, 3) == 2
    changed.apply()
    assert length(0, 3) == 4
