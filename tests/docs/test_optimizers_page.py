"""The page of the optimizers is what the declarations say, and their arithmetic is short."""

from __future__ import annotations

import importlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gradserve.specs import AGGREGATIONS, CLIPS, OPTIMIZERS, SCHEDULES, STALENESS
from gradserve_service.core.optimizers import RULES

SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts")


@pytest.fixture(scope="module")
def docs() -> Iterator[ModuleType]:
    sys.path.insert(0, SCRIPTS)
    try:
        yield importlib.import_module("optimizer_docs")
    finally:
        sys.path.remove(SCRIPTS)


def test_the_page_is_what_the_command_writes(docs: ModuleType) -> None:
    """Otherwise: python scripts/optimizer_docs.py"""
    assert docs.PAGE.read_text(encoding="utf-8") == docs.page()


def test_the_page_has_all_that_can_be_asked_for(docs: ModuleType) -> None:
    """Every optimizer with its fields, slots, presets and other names; every schedule, clip, weight and mode."""
    page = docs.page()
    for name, spec in OPTIMIZERS.built.items():
        part = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        slots = [slot.name for slot in RULES[name]().slots]
        for word in (*spec.model_fields, *slots, *spec.presets, *spec.other_names):
            assert word == "name" or f"`{word}`" in part, (name, word)
    for family in (SCHEDULES, CLIPS, STALENESS, AGGREGATIONS):
        for name in family.built:
            assert f"\n| `{name}`" in page


def test_half_of_the_optimizers_are_fifteen_lines_or_fewer(docs: ModuleType) -> None:
    """A rule is its formula and little else. `--lines` prints all of them."""
    assert statistics.median(map(docs.lines_of, RULES.values())) <= 15
