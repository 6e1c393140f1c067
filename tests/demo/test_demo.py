"""`gradserve demo`, run as a user runs it: a server, worker processes, a result, and nothing left behind."""

from __future__ import annotations

import json
import os
import select
import signal

import pytest

import gradserve as gs
from demo.marked import Marked
from gradserve_service.demo.programs import END_SECONDS_MAX, Programs
from gradserve_service.demo.server import start_server

SMALL = ("gradserve_service", "demo", "--workers", "2", "--epochs", "1")
ENDLESS = ("gradserve_service", "demo", "--workers", "2", "--epochs", "5000")


def test_the_workers_learn_and_the_result_is_written(tmp_path, store_url):
    """Two workers, enough epochs to learn; the files, the summary on stdout, and nothing left behind."""
    demo = Marked(*SMALL[:-1], "30", "--store", store_url, "--json", cwd=tmp_path)
    stdout, stderr = demo.popen.communicate()
    assert demo.popen.returncode == 0, stderr
    assert demo.others() == {}
    summary = json.loads(stdout)
    assert summary == json.loads((tmp_path / "demo-output" / "summary.json").read_text())
    assert (tmp_path / "demo-output" / "report.png").stat().st_size > 10_000
    assert summary["accuracy"] >= 0.93
    assert abs(summary["accuracy"] - summary["baseline_accuracy"]) <= 0.04
    assert summary["pushes"] + summary["not_applied"] == 2 * 30 * 22  # ⌈674 / 32⌉ an epoch and worker
    assert summary["bytes_up"] > summary["pushes"] * summary["parameters"] * 4
    assert summary["bytes_down"] > summary["pushes"] * summary["parameters"] * 4
    assert summary["store"] == store_url.split(":")[0]
    assert "pushes/s" in stderr


@pytest.mark.parametrize(("batch_size", "pushes"), [("full", 2), ("1", 1347), ("500", 2 * 2)])
def test_batch_stochastic_and_mini_batch(tmp_path, batch_size, pushes):
    demo = Marked(*SMALL, "--batch-size", batch_size, "--json", cwd=tmp_path)
    stdout, stderr = demo.popen.communicate()
    assert demo.popen.returncode == 0, stderr
    summary = json.loads(stdout)
    assert summary["pushes"] + summary["not_applied"] == pushes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_no_program(tmp_path, number):
    """Ctrl-C, a kill, a closed terminal."""
    demo = Marked(*ENDLESS, cwd=tmp_path)
    demo.wait_for_line("pushes/s")
    assert len(demo.others()) == 3  # the server and two workers: the search finds them
    demo.popen.send_signal(number)
    _, stderr = demo.popen.communicate()
    assert demo.popen.returncode == 130
    assert "all its processes are ended" in stderr
    assert demo.others() == {}


def test_a_killed_demo_leaves_no_program(tmp_path):
    """kill -9: it can end nothing, so its children notice."""
    demo = Marked(*ENDLESS, cwd=tmp_path)
    demo.wait_for_line("pushes/s")
    children = [os.pidfd_open(number) for number in demo.others()]
    assert len(children) == 3
    demo.popen.kill()
    demo.popen.communicate()
    for child in children:
        ended, _, _ = select.select([child], [], [], END_SECONDS_MAX)
        os.close(child)
        assert ended
    assert demo.others() == {}


def test_an_interrupted_demo_leaves_no_run_in_a_redis(tmp_path, redis_url):
    """The store may be the user's: another server on it sees no run."""
    demo = Marked(*ENDLESS, "--store", redis_url, cwd=tmp_path)
    demo.wait_for_line("pushes/s")
    demo.popen.send_signal(signal.SIGINT)
    demo.popen.communicate()
    with Programs(tmp_path / "logs") as programs:
        other = start_server(programs, redis_url, "memory")
        with gs.connect(other.url) as client:
            assert client.runs() == []


@pytest.mark.parametrize(
    ("part", "reason"),
    [("demo.worker", "worker-0 was ended by signal 9"), ("serve", "server was ended by signal 9")],
)
def test_a_part_that_fails_ends_the_demo_with_the_reason(tmp_path, part, reason):
    demo = Marked(*ENDLESS, cwd=tmp_path)
    demo.wait_for_line("pushes/s")
    os.kill(min(number for number, words in demo.others().items() if part in words), signal.SIGKILL)
    _, stderr = demo.popen.communicate()
    assert demo.popen.returncode == 1
    assert reason in stderr
    assert demo.others() == {}


@pytest.mark.parametrize(
    ("store", "reason"),
    [("carrier-pigeon://coop", "carrier-pigeon"), ("redis://127.0.0.1:1/0", "the store at redis://127.0.0.1:1/0")],
)
def test_a_store_that_is_not_there_is_the_reason(tmp_path, store, reason):
    """Nobody waits for a server that waits for its store."""
    demo = Marked(*SMALL, "--store", store, cwd=tmp_path)
    _, stderr = demo.popen.communicate()
    assert demo.popen.returncode == 1
    assert reason in stderr
    assert "Traceback" not in stderr
    assert demo.others() == {}


@pytest.mark.parametrize("words", [("--batch-size", "half"), ("--workers", "0"), ("--epochs", "0")])
def test_options_that_cannot_be_are_refused(tmp_path, words):
    demo = Marked(*SMALL, *words, cwd=tmp_path)
    demo.popen.communicate()
    assert demo.popen.returncode == 2
