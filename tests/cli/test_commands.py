"""The other commands, and what the command line says where it cannot run."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from gradserve_service.cli.commands import ELSEWHERE
from gradserve_service.settings import Settings

WRITTEN = Path(__file__).parents[2] / "openapi" / "openapi.json"
WITHOUT_THE_EXTRA = """
import sys

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{package}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Gone())
sys.argv = ["gradserve", "{command}"]
from gradserve_service.cli import main
main()
"""


def test_openapi_prints_the_written_document(gradserve, tmp_path):
    printed = gradserve("openapi")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == WRITTEN.read_text(encoding="utf-8")
    gradserve("openapi", "--output", "document.json")
    assert json.loads((tmp_path / "document.json").read_text()) == json.loads(printed.stdout)


def test_version(gradserve):
    assert gradserve("version").stdout == f"gradserve {version('gradserve')}\n"


def test_help_names_every_command_and_needs_no_server(gradserve):
    text = gradserve("--help").stdout
    for command in ("serve", "openapi", "version", *ELSEWHERE):
        assert command in text


def test_every_setting_is_a_flag_of_serve_and_says_its_variable(gradserve):
    text = gradserve("serve", "--help", COLUMNS="200", TERM="dumb").stdout
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
        assert f"GRADSERVE_{name.upper()}" in text


def test_without_the_service_extra_the_command_prints_the_install_line():
    """A worker machine has the SDK alone: no traceback there."""
    for package, command in (("typer", "--help"), ("pydantic_settings", "version"), ("uvicorn", "serve")):
        code = WITHOUT_THE_EXTRA.format(package=package, command=command)
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert answer.returncode == 2, answer.stderr
        assert "pip install 'gradserve[service]'" in answer.stderr
        assert package in answer.stderr
        assert "Traceback" not in answer.stderr


def test_an_unknown_command_is_a_usage_error(gradserve):
    assert gradserve("explode").returncode == 2
