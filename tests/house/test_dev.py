"""scripts/dev.py on machines that lack things: each test runs the real script in a folder of its own.

The folder has a copy of the script and of pyproject.toml; its `.venv/bin/python`, where there is one, is a shell script
that writes down what it was asked. Interpreters without pip and venv are made by a `sitecustomize` that hides them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = """#!/bin/sh
case "$*" in
    *"-m pip install "*)
        echo "Collecting numpy>=2.0 (from gradserve)"
        [ -z "$CUDA" ] || printf "Collecting nvidia-%s\\n" cublas cudnn; echo "install: $*" >> "{log}" ;;
    *"-m pytest "*) echo "1 passed"; echo "run: $*" >> "{log}"; exit 3 ;;
esac
exit 0
"""

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ImportError(f"{{name}} is hidden")

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def clone(tmp_path):
    """A checkout with the script and pyproject.toml, and nothing else."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "dev.py", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.fixture
def calls(clone):
    """Gives the clone a `.venv`; the file lists what its Python was asked."""
    log = clone / "calls.txt"
    log.touch()
    program = clone / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(STAND_IN.format(log=log))
    program.chmod(0o755)
    return log


def dev(clone, *words, environment=None, cwd=None):
    return subprocess.run(
        [sys.executable, clone / "scripts" / "dev.py", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd or clone,
        env={**os.environ, **(environment or {})},
    )


def asked(log, kind):
    return [line for line in log.read_text().splitlines() if line.startswith(kind)]


def test_a_torch_that_brings_gigabytes_is_announced(clone, calls):
    """While they come, once, with the way to a smaller one."""
    assert "several GB" not in dev(clone, "setup").stderr
    (clone / ".venv" / "gradserve-installed").unlink()
    again = dev(clone, "setup", environment={"CUDA": "1"})
    assert again.stderr.count("this torch brings CUDA, several GB") == 1


def test_the_second_time_nothing_is_installed(clone, calls):
    """The stamp holds the digest of pyproject.toml."""
    first, second = dev(clone, "test"), dev(clone, "test")
    assert "Collecting numpy>=2.0" in first.stderr
    assert second.stderr == ""
    assert len(asked(calls, "install:")) == 1
    assert len(asked(calls, "run:")) == 2


def test_a_changed_pyproject_is_installed_again(clone, calls):
    dev(clone, "setup")
    with (clone / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    dev(clone, "setup")
    assert len(asked(calls, "install:")) == 2


def test_a_test_environment_serves_the_demo_and_never_shrinks(clone, calls):
    """`demo` needs less than `test`: it installs nothing after it, and keeps everything when pyproject.toml changes."""
    dev(clone, "demo")
    dev(clone, "test")
    dev(clone, "demo")
    (clone / "pyproject.toml").write_text((clone / "pyproject.toml").read_text() + "\n")
    dev(clone, "demo")
    assert [line.rsplit("[")[-1] for line in asked(calls, "install:")] == ["service,demo]", "dev]", "dev]"]


def test_the_exit_code_and_the_output_are_those_of_the_command(clone, calls):
    done = dev(clone, "test", "-k", "one")
    assert done.returncode == 3
    assert done.stdout.endswith("1 passed\n")
    assert "-k one" in asked(calls, "run:")[0]


def test_it_works_from_any_folder(clone, calls, tmp_path_factory):
    done = dev(clone, "test", cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 3
    assert str(clone / "tests") in asked(calls, "run:")[0]


def test_without_any_pip_it_says_the_line_to_type_and_exits_with_2(clone, tmp_path_factory):
    """No venv, no pip on the PATH, no apt-get: nothing can be done for the user but to say what to do."""
    hidden = tmp_path_factory.mktemp("hidden")
    names = {"venv", "ensurepip", "pip", "virtualenv"}
    (hidden / "sitecustomize.py").write_text(HIDE.format(names=names))
    done = dev(clone, "setup", environment={"PYTHONPATH": str(hidden), "PATH": str(hidden)})
    assert done.returncode == 2
    assert "apt-get install -y python3-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_installation_shows_why_and_is_tried_again(clone, calls):
    program = clone / ".venv" / "bin" / "python"
    program.write_text(program.read_text().replace('; echo "install:', '; echo "ERROR: no such host"; exit 1; echo "'))
    for _ in range(2):
        done = dev(clone, "setup")
        assert done.returncode == 1
        assert "ERROR: no such host" in done.stderr


def test_a_broken_environment_is_made_anew(clone):
    """`.venv` of a Python that is gone: its link points nowhere."""
    link = clone / ".venv" / "bin" / "python"
    link.parent.mkdir(parents=True)
    link.symlink_to("/nowhere/python3")
    # pip would go to a registry now: a pyproject.toml that is none makes it fail at once, with the environment made.
    (clone / "pyproject.toml").write_text("not toml")
    done = dev(clone, "setup")
    assert "making it anew" in done.stderr
    assert subprocess.run([link, "-c", "import pip"], check=False).returncode == 0


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--help",), 0), (("destroy",), 2)])
def test_anything_else_prints_the_commands(clone, words, code):
    done = dev(clone, *words)
    assert done.returncode == code
    assert "scripts/dev.py demo" in done.stdout
