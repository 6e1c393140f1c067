"""docs/operations.md lists what there is: every setting, command, flag, metric and problem code, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command

from gradserve.problems import PROBLEMS
from gradserve_service.cli.commands import app
from gradserve_service.settings import ENVIRONMENT_PREFIX, Settings
from sdk.serving import Server

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    """The text under a heading of the second level."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands() -> dict[str, Any]:
    """Every command by its name."""
    group: Any = get_command(app)
    return {name: group.get_command(None, name) for name in group.list_commands(None)}


def test_every_setting_has_its_row_with_flag_variable_and_default():
    listed = {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in rows(section("Settings"))}
    for name, field in Settings.model_fields.items():
        variable, default = listed.pop(f"--{name.replace('_', '-')}")
        assert variable == f"{ENVIRONMENT_PREFIX}{name.upper()}"
        assert default == ("" if field.default is None else f"{field.default}".lower().removesuffix(".0"))
    assert listed == {}, "settings that are not there"


@pytest.mark.parametrize("name", commands())
def test_every_command_has_its_row_with_all_of_its_flags(name):
    listed = {row[0].strip("`").split()[0]: row[2] for row in rows(section("Commands"))}
    assert set(listed) == set(commands())
    if name == "serve":  # its flags are the settings
        return
    flags = {flag for option in commands()[name].params for flag in option.opts if flag.startswith("-")}
    assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", listed[name])) == flags


def test_every_problem_code_has_a_way_out():
    listed = [code for row in rows(section("Trouble")) for code in re.findall(r"`([\w-]+)`", row[0])]
    assert sorted(listed) == sorted(PROBLEMS)


def test_every_metric_of_ours_is_listed(tmp_path):
    """As a real server tells them."""
    server = Server(tmp_path).start()
    text = httpx.get(f"{server.url}/metrics").text
    server.stop()
    names = {re.sub(r"_(total|info)$", "", family.name) for family in text_string_to_metric_families(text)}
    told = {name for name in names if name.startswith("gradserve") and not name.endswith("_created")}
    words = " ".join(row[0] for row in rows(section("Metrics")))
    listed = {re.sub(r"_(total|info)$", "", name) for name in re.findall(r"gradserve_\w+", words)}
    assert listed == told


def test_every_link_leads_to_a_file():
    """In all pages of the folder."""
    for page in (ROOT / "docs").glob("*.md"):
        prose = re.sub(r"`[^`\n]*`", "", page.read_text())  # a formula in code may look like a link
        links = re.findall(r"\]\((?!https?:)([^)#]+)", prose)
        assert [link for link in links if not (page.parent / link).exists()] == [], page
