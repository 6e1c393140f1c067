"""Every scenario script gives the answers that stand in it."""

from pathlib import Path

import pytest

from machine.scenario import run_script

SCRIPTS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_rules_answer_as_the_script_says(script: Path) -> None:
    """Each command is followed by the answer expected of `decide`, `advance` and `update`."""
    differences = [
        f"{script.name}:{number}: {command}\n  expected {expected!r}\n  came     {answered!r}"
        for number, command, expected, answered in run_script(script)
        if expected != answered
    ]
    assert not differences, "\n".join(differences)
