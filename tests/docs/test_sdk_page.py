"""The page of the SDK: all of it that runs, runs; and every public name has its place there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gradserve as gs
from sdk.serving import Server

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sdk.md").read_text(encoding="utf-8")
OWNERS = (gs.Client, gs.Run, gs.Worker, gs.Submission, gs.Watch, gs.AsyncClient, gs.AsyncRun, gs.AsyncWorker)
INSIDE = {"drive", "talk", "new_session", "forget", "notices"}  # between the SDK's own modules


def test_the_blocks_run_one_after_the_other(tmp_path: Path) -> None:
    """As printed, against another address."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    server = Server(tmp_path).start()
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks).replace("http://127.0.0.1:8970", server.url), encoding="utf-8")
    words = [sys.executable, "-W", "error", str(script)]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    finally:
        server.stop()
    assert ended.returncode == 0, ended.stderr
    assert "404 run-not-found" in ended.stdout


def named(word: str) -> bool:
    """Whether the page has that word inside code."""
    code = re.findall(r"```.*?```|`[^`]+`", PAGE, re.DOTALL)
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", piece) for piece in code)


@pytest.mark.parametrize("name", gs.__all__)
def test_every_public_name_is_on_the_page(name: str) -> None:
    """A new one has to be told of."""
    assert named(name)


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_every_public_method_is_on_the_page(owner: type) -> None:
    """And every property."""
    kinds = [kind for kind in owner.__mro__ if kind.__module__.startswith("gradserve")]
    own = {name: thing for kind in reversed(kinds) for name, thing in vars(kind).items()}
    public = {name for name, thing in own.items() if callable(thing) or isinstance(thing, property)}
    assert [name for name in sorted(public - INSIDE) if name[0] != "_" and not named(name)] == []
