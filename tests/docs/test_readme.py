"""What the README shows, works: its worker and its curl lines run against a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gradserve_service.cli.commands import app
from sdk.serving import Server

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DESIGN = (ROOT / "docs" / "design.md").read_text()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on the embedded store."""
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server.url
    server.stop()


def block(containing: str) -> str:
    """The one fenced block with this text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def test_the_numpy_worker_of_the_readme_learns_the_line(url: str, tmp_path: Path) -> None:
    """It runs as printed, against another address, and finds the weights that made the data."""
    script = tmp_path / "worker.py"
    script.write_text(block("run.worker(").replace("http://127.0.0.1:8970", url))
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    loss, numbers = re.fullmatch(r"loss (\S+) weights \[(.*)\]\n", ended.stdout).groups()  # type: ignore[union-attr]
    assert float(loss) < 0.01
    assert [float(number) for number in numbers.split()] == pytest.approx([1, -2, 3], abs=0.1)


def test_the_torch_script_of_the_readme_learns(url: str, tmp_path: Path) -> None:
    """It runs as printed, with the server's address in the environment."""
    script = tmp_path / "train.py"
    script.write_text(block("RemoteOptimizer("))
    environment = {**os.environ, "GRADSERVE_URL": url}
    ended = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert 0 < float(ended.stdout.removeprefix("loss ")) < 0.6  # it begins at the targets' variance, 1


def test_the_commands_of_the_readme_are_there() -> None:
    """Every `gradserve <command>` that the page names."""
    group: Any = get_command(app)
    named = set(re.findall(r"(?:^|`)(?:GRADSERVE_\w+=\S+ )?gradserve ([a-z]+)", README, re.MULTILINE))
    assert {"serve", "doctor", "status", "replay", "compare", "token"} <= named <= set(group.list_commands(None))


def test_the_curl_lines_of_the_readme_answer_as_it_says(url: str) -> None:
    """A run, a push, its repetition answered as a duplicate, and the weights after one update."""
    answers = []
    for line in block("curl --json").splitlines():
        command = line.replace("localhost:8970", url)
        ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        answers.append(json.loads(ended.stdout))
    created, pushed, repeated, pulled = answers
    assert created["spec"]["optimizer"]["name"] == "sgd"
    assert (pushed["outcome"], repeated["outcome"]) == ("applied", "duplicate")
    assert pulled == {"version": 1, "weights": {"w": [0.5, 2.5]}}


@pytest.mark.parametrize(("text", "place"), [(README, ROOT), (DESIGN, ROOT / "docs")], ids=["README", "design"])
def test_every_link_leads_to_a_file(text: str, place: Path) -> None:
    """Links to files of the repository, pictures included."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (place / link).exists()] == []


def test_the_modules_that_the_design_names_exist() -> None:
    """The way of a gradient is told in names that can be looked up."""
    named = set(re.findall(r"`((?:gradserve|replica|core|store|http)[\w.]*\.[\w.]+)`", DESIGN))
    assert named
    for name in named:
        path = name if name.startswith("gradserve") else f"gradserve_service.{name}"
        assert _resolves(path), name


def _resolves(path: str) -> bool:
    import importlib

    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False
