"""What is published: a wheel and a source archive with everything that runs, and nothing that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from hatchling.build import build_{0} as build; print(build(sys.argv[1]))"


def built(kind: str, folder: Path) -> Path:
    """What the build backend makes of this tree, as pip would ask it to."""
    made = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind), str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return folder / made.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: that is all that an installer does with it."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(built("wheel", folder)) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_has_every_file_of_the_two_packages_and_no_other(wheel):
    """Scripts for Redis and type markers too; no tests, no examples."""
    shipped = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    metadata = {name for name in shipped if ".dist-info/" in name}
    sources = {
        path.relative_to(ROOT / place).as_posix()
        for place in ("client", "service")
        for path in (ROOT / place).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "egg-info" not in str(path)
    }
    assert shipped - metadata == sources
    assert "gradserve_service/store/redis_scripts/append.lua" in shipped
    assert {"gradserve/py.typed", "gradserve_service/py.typed"} <= shipped
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_wheel_alone_serves(wheel, redis_url, tmp_path):
    """From another folder, without the repository on the path, on a Redis: its scripts came along."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GRADSERVE_")}
    environment["PYTHONPATH"] = str(wheel)
    command = [sys.executable, "-m", "gradserve_service", "serve", "--json", "--port", "0", "--durability", "memory"]
    with subprocess.Popen(
        [*command, "--store", redis_url], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        code = (
            "import gradserve as gs, sys\n"
            "assert gs.__file__.startswith(sys.argv[2]), gs.__file__\n"
            "with gs.connect(sys.argv[1]) as client:\n"
            "    run = client.run('r', init={'w': [1.0]}, optimizer=gs.Sgd(lr=0.5))\n"
            "    with run.worker() as worker:\n"
            "        worker.pull()\n"
            "        print(worker.step({'w': [1.0]})['w'])\n"
        )
        worker = subprocess.run(
            [sys.executable, "-c", code, url, str(wheel)], cwd=tmp_path, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        server.terminate()
        assert server.wait(60) == 0
    assert (worker.returncode, worker.stdout) == (0, "[0.5]\n"), worker.stderr


def test_the_source_archive_builds_the_wheel(tmp_path):
    """Two packages, the papers, no tests."""
    with tarfile.open(built("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.split("/")[0] for name in names}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "client", "service"} <= tops
    assert not tops & {"tests", "benchmarks", ".venv", "scripts"}
    assert "service/gradserve_service/store/redis_scripts/append.lua" in names
