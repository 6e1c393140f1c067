"""`gradserve compare`, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gradserve_service.compare.comparison import every_optimizer

QUICK = ("--updates", "20", "--lrs", "0.01,0.1")


def compare(folder, *words):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gradserve_service", "compare", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


def test_every_optimizer_is_in_the_table_and_the_files_are_written(tmp_path):
    done = compare(tmp_path, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    written = tmp_path / "comparison-output"
    table = json.loads(done.stdout)
    assert table == json.loads((written / "table.json").read_text())
    names = [row["name"] for row in table["optimizers"]]
    assert sorted(names) == sorted(every_optimizer())
    lines = (written / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2 : 2 + len(names)]] == names
    assert all(line.count("|") == lines[0].count("|") for line in lines[: 2 + len(names)])
    assert (written / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert f"{len(names)} of {len(names)}" in done.stderr


def test_the_chosen_ones_as_lines_into_a_folder_of_choice(tmp_path):
    """Aliases count as names; without a terminal the table is plain lines, one an optimizer."""
    done = compare(tmp_path, *QUICK, "--optimizers", "amsgrad, sgd,sgd", "--output", "here")
    assert done.returncode == 0, done.stderr
    table = [line.split()[0] for line in done.stdout.splitlines() if "%" in line]
    assert sorted(table) == ["amsgrad", "sgd"]
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["comparison.png", "table.json", "table.md"]


def test_more_than_a_dozen_get_a_panel_each(tmp_path):
    """The other form of the picture: wider, and as tall as it needs."""
    names = "sgd,momentum,nag,nesterov,gd,gradientdescent,sgdw,amsgrad,adagrad,rmsprop,adam,adamw,adamax"
    done = compare(tmp_path, "--updates", "10", "--lrs", "0.01", "--optimizers", names)
    assert done.returncode == 0, done.stderr
    header = (tmp_path / "comparison-output" / "comparison.png").read_bytes()[16:20]
    assert int.from_bytes(header) == 19 * 120


def test_an_unknown_optimizer_names_those_that_exist(tmp_path):
    done = compare(tmp_path, "--optimizers", "adam,adamantium")
    assert done.returncode == 2
    told = " ".join(done.stderr.replace("│", " ").split())
    assert "adamantium" in told
    assert "sgd, adagrad" in told


@pytest.mark.parametrize(
    "words", [("--lrs", "fast"), ("--lrs", "0"), ("--lrs", "inf"), ("--optimizers", ","), ("--updates", "1")]
)
def test_options_that_cannot_be_are_refused(tmp_path, words):
    done = compare(tmp_path, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "comparison-output").exists()
