"""A processor without wide vectors computes the same bits."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gradserve_service.core.optimizers import RULES

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def bits() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("processor_bits")
    finally:
        sys.path.remove(str(SCRIPTS))


def test_vector_instructions_that_are_switched_off_change_no_bit(bits: ModuleType) -> None:
    """Every rule in every form, with nothing but what NumPy was built for."""
    child = bits.of_level(bits.levels()["baseline"])
    found = {"all": bits.digests(), "baseline": json.loads(child.communicate()[0])}
    assert {row["optimizer"] for row in found["baseline"].values()} == set(RULES)
    assert bits.compared(found)[0] == []


@pytest.mark.parametrize("promised", [True, False])
def test_other_bits_are_named_and_wrong_where_they_are_promised(
    bits: ModuleType, promised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule of matrix products may differ; frozen bits are compared with what is frozen, at every level."""
    row: dict[str, Any] = {"optimizer": "adam", "digest": "a", "frozen": ""}
    found = {"all": {"form 1": row}, "half": {"form 1": {**row, "digest": "b"}}}
    monkeypatch.setattr(RULES["adam"], "every_machine", promised)
    named = bits.compared(found)
    assert named[0 if promised else 1] == ["adam (form 1) ends in other bits at level half"]
    assert named[1 if promised else 0] == []
    assert len(bits.compared({"all": {"form 1": {**row, "frozen": "c"}}})[0 if promised else 1]) == 1
