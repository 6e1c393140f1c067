"""How an optimizer is added: the page shows what stands in the repository, and every optimizer came that way."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from core import strategies, tensor_strategies
from core.tensor_twin import TensorTwin
from core.twin import Twin
from gradserve import specs
from gradserve.specs import OPTIMIZERS
from gradserve_service.core.numerics import GOLDEN
from gradserve_service.core.optimizers import RULES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEPS = PAGE.partition("## Adding an optimizer")[2].partition("\n## ")[0].split("\n**")[1:]
BLOCK = re.compile(r"```(?:python|text)\n(.*?)```", re.DOTALL)
SHOWN = [step for step in STEPS if BLOCK.search(step)]


def test_the_example_has_all_its_parts() -> None:
    """Declaration, rule, twin, parity."""
    assert [step.partition("**")[0] for step in SHOWN] == [
        "1. The declaration", "2. The rule", "3. The twin", "4. Parity",
    ]  # fmt: skip


@pytest.mark.parametrize("step", SHOWN, ids=lambda step: step.partition("**")[0])
def test_the_code_that_is_shown_stands_in_the_file_that_is_named(step: str) -> None:
    """Word for word; the file is the one of signs that the step names."""
    words, code, _ = BLOCK.split(step)
    (path,) = re.findall(r"`((?:client|service|tests|scripts)/[\w/]*signs\.py)`", words)
    assert code in (ROOT / path).read_text(encoding="utf-8")


def test_every_command_that_is_named_is_there() -> None:
    """Scripts, and the modules that are pointed to."""
    for path in set(re.findall(r"scripts/\w+\.py", PAGE)):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", OPTIMIZERS.built)
def test_every_optimizer_came_that_way(name: str) -> None:
    """A rule, a public declaration, a twin, a path in the tests, a golden digest, a case."""
    assert name in RULES
    assert getattr(specs, OPTIMIZERS.built[name].__name__) is OPTIMIZERS.built[name]
    assert hasattr(Twin, f"_{name}_step") or hasattr(TensorTwin, f"_{name}")
    assert name in {spec.name for spec in (*strategies.EACH, *tensor_strategies.EACH)}
    assert name in GOLDEN or not RULES[name].every_machine
    assert name in _with_a_case()


def _with_a_case() -> set[str]:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from cases import FAMILIES
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    families = FAMILIES.values()
    return {case["optimizer"]["name"] for one in families for case in (*one.CASES, *one.OTHERS, *one.OURS_ONLY)}
