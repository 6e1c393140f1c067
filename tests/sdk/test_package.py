"""What a worker machine installs is enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gradserve as gs
from gradserve.specs import AGGREGATIONS, AVERAGES, CLIPS, OPTIMIZERS, SCHEDULES, STALENESS, Family

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed on a worker machine")

sys.meta_path.insert(0, Refusing())
import gradserve as gs
with gs.connect("http://127.0.0.1:1") as client:
    assert gs.AdamW(lr=0.1).lr == 0.1
assert not {blocked!r} & {{name.split(".")[0] for name in sys.modules}}
"""
SERVICE_MODULES = {
    "gradserve_service", "fastapi", "starlette", "uvicorn", "uvloop", "redis", "pydantic_settings", "structlog",
    "typer", "rich", "ml_dtypes", "torch", "jax", "sklearn", "matplotlib", "prometheus_client",
}  # fmt: skip


def test_the_sdk_works_with_its_base_dependencies():
    """A process in which the service's modules cannot be imported."""
    program = BLOCKED.format(blocked=SERVICE_MODULES)
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_every_public_name_is_there():
    """`from gradserve import *` gives what __all__ says."""
    assert len(set(gs.__all__)) == len(gs.__all__)
    assert all(hasattr(gs, name) for name in gs.__all__)
    assert gs.SGD is gs.Sgd


@pytest.mark.parametrize(
    "family", [OPTIMIZERS, SCHEDULES, CLIPS, AVERAGES, AGGREGATIONS, STALENESS], ids=lambda family: family.kind
)
def test_every_declaration_can_be_named(family: Family):
    """Whatever a run can be asked for is a class of the package, and stands in the table of docs/sdk.md."""
    table = (ROOT / "docs" / "sdk.md").read_text()
    for declared in family.built.values():
        assert getattr(gs, declared.__name__) is declared
        assert declared.__name__ in gs.__all__
        assert f"`{declared.__name__}`" in table
