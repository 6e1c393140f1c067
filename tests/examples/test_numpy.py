"""The examples in NumPy run as they stand, against a real server: what they count and what they learn."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gradserve as gs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LINE = [1.0, -2.0, 3.0, 0.5]


def weights(line):
    """The numbers of `w = [1.0 -2.0] b = 0.5`."""
    return [float(word) for word in re.findall(r"-?\d+\.\d*", line.partition("w =")[2])]


def test_the_numpy_worker_finds_the_line(server_url, run_example):
    *steps, result = run_example("numpy_worker.py", url=server_url).splitlines()
    assert len(steps) == 6
    assert weights(result) == pytest.approx(LINE, abs=0.1)


def test_a_second_worker_goes_on_where_the_first_ended(server_url, run_example):
    """The run is found by its name, with the weights that it has."""
    run_example("numpy_worker.py", url=server_url)
    lines = run_example("numpy_worker.py", "w1", url=server_url).splitlines()
    assert float(lines[0].split()[-1]) < 0.1  # the loss of step 50: nothing is left to learn


def test_linear_regression_takes_as_many_updates_as_the_book_says(server_url, run_example):
    """10 samples, n = 30 epochs: n, 10 n and ⌈10 / 4⌉ n updates by the server's count; each form finds the line."""
    lines = run_example("linear_regression.py", server_url).splitlines()
    found = [re.match(r"(\S+) .* = (\d+) updates   loss (\S+) -> (\S+) ", line).groups() for line in lines]
    assert [(form, int(updates)) for form, updates, _, _ in found] == [
        ("batch", 30),
        ("stochastic", 300),
        ("mini-batch", 90),
    ]
    assert all(float(last) < float(first) / 100 for _, _, first, last in found)
    assert all(weights(line) == pytest.approx([2.0, -3.0, 0.5], abs=0.25) for line in lines)


def test_the_mlp_tells_the_spirals_apart(server_url, run_example):
    *epochs, count = run_example("mlp.py", server_url).splitlines()
    losses = [float(re.search(r"loss (\S+)", line)[1]) for line in epochs]
    assert losses[-1] < losses[0] / 2
    assert float(re.search(r"accuracy (\S+)%", epochs[-1])[1]) > 90
    assert count.startswith("720 updates")  # 60 epochs of 300 / 25


@pytest.mark.parametrize("workers", [1, 3])
def test_several_workers_train_one_run(server_url, run_example, workers):
    """Every gradient of every shard is an update, and together they find the line."""
    *losses, count, result = run_example("numpy_workers.py", server_url, str(workers)).splitlines()
    assert len(losses) == workers
    rows = [len(range(rank, 800, workers)) for rank in range(workers)]
    assert count == f"{sum(10 * -(-shard // 20) for shard in rows)} updates by {workers} workers"
    assert weights(result) == pytest.approx(LINE, abs=0.1)


def test_the_examples_take_the_address_from_the_environment_and_leave_no_run(server_url, run_example):
    """Those with runs of their own delete them; `line` is meant to be shared."""
    run_example("linear_regression.py", url=server_url)
    with gs.connect(server_url) as client:
        assert {run["name"] for run in client.runs()} <= {"line"}


def test_the_list_of_examples_names_every_one():
    text = (EXAMPLES / "README.md").read_text()
    names = [path.name for path in EXAMPLES.glob("*.py")]
    assert [name for name in names if f"({name}" not in text] == []
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (EXAMPLES / link).exists()] == []
