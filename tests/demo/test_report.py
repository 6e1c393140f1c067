"""What a demo leaves: the record, the file, the table, the picture, the lines while it trains."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from gradserve_service.demo.crew import Member
from gradserve_service.demo.picture import draw
from gradserve_service.demo.plan import Plan
from gradserve_service.demo.progress import Bars, Lines, watcher
from gradserve_service.demo.report import print_table, summarise
from gradserve_service.demo.trace import Trace

PLAN = Plan(run="r", workers=2, batch_size=32, epochs=5, lr=0.01, seed=0)


def trace_of(updates, staleness=0):
    rng = np.random.default_rng(0)
    rows = zip(
        range(1, updates + 1),
        np.linspace(0.01, 2, updates).tolist(),
        np.exp(rng.normal(-3, 1, updates)).tolist(),
        np.linspace(0.01, 0, updates).tolist(),
        rng.integers(0, staleness + 1, updates).tolist(),
        strict=True,
    )
    return Trace(list(rows))


@pytest.fixture
def summary():
    return summarise(
        PLAN,
        trace_of(220, staleness=4),
        0.9756,
        trace_of(215),
        0.9711,
        counters=[{"bytes_up": 1_000_000, "bytes_down": 2_000_000, "not_applied": 1}] * 2,
        server={"store": "sqlite", "durability": "journal"},
        parameters=4810,
    )


def test_the_summary_counts_over_all_workers(summary):
    assert summary.pushes == 220
    assert summary.pushes_per_second == 110
    assert (summary.bytes_up, summary.bytes_down, summary.not_applied) == (2_000_000, 4_000_000, 2)
    assert 0 < summary.staleness_mean < summary.staleness_max == 4


def test_the_file_has_the_documented_keys(summary, tmp_path):
    summary.write(tmp_path / "summary.json")
    written = json.loads((tmp_path / "summary.json").read_text())
    documented = (
        "accuracy baseline_accuracy workers pushes pushes_per_second staleness_mean staleness_max bytes_up bytes_down"
    )
    assert set(documented.split()) <= written.keys()
    assert written == dataclasses.asdict(summary)


def test_the_table_says_what_was_measured(summary):
    console = Console(file=io.StringIO(), width=120)
    print_table(console, summary)
    text = console.file.getvalue()
    for figure in ("97.6%", "97.1%", "220", "2 workers over HTTP", "2.0 · 4.0"):
        assert figure in text


@pytest.mark.parametrize("updates", [1, 7, 300])
def test_the_picture_is_drawn_for_any_length(summary, tmp_path, updates):
    """Also for one update; warnings are errors here."""
    draw(tmp_path / "report.png", summary, trace_of(updates, 4), trace_of(updates))
    head = (tmp_path / "report.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(head[16:20], "big") > 1200


def members_of(*traces):
    return [Member(program=None, updates=len(trace), trace=trace) for trace in traces]


def test_a_terminal_gets_bars_and_a_pipe_gets_lines():
    assert isinstance(watcher(Console(file=io.StringIO(), force_terminal=True), [3]), Bars)
    assert isinstance(watcher(Console(file=io.StringIO()), [3]), Lines)


def test_lines_tell_updates_loss_staleness_and_rate():
    console = Console(file=io.StringIO(), width=120)
    with watcher(console, [220, 110]) as lines:
        lines.crew(members_of(Trace(), Trace()))  # nothing has come yet: nothing to say
        lines.crew(members_of(trace_of(220), trace_of(110)))
    text = console.file.getvalue()
    assert text.count("\n") == 1
    assert "330 of 330 pushes" in text
    assert "165 pushes/s" in text


def test_bars_show_each_worker_and_all_of_them():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with watcher(console, [220, 110]) as bars:
        bars.crew(members_of(Trace(), Trace()))
        bars.crew(members_of(trace_of(220, 3), trace_of(110, 3)))
    text = console.file.getvalue()
    for figure in ("worker 0", "worker 1", "all", "330/330", "pushes/s"):
        assert figure in text


def test_a_report_that_comes_in_pieces_is_put_together():
    """A pipe cuts where it likes."""
    member = Member(program=None, updates=3)
    text = b'{"ready": true}\n{"rows": [[1, 0.1, 2.0, 0.01, 0]]}\n{"done": {"bytes_up": 5}}\n'
    for start in range(0, len(text), 7):
        member.read(text[start : start + 7])
    assert member.ready
    assert len(member.trace) == 1
    assert member.done == {"bytes_up": 5}
