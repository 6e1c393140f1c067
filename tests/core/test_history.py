"""The past of a run: rows, thinning, reports, warnings, and that a frozen one stays what it was."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradserve_service.core import history as past
from gradserve_service.core.history import History, Measured, Row, Table

NOTHING = Row(0, 0, math.nan, 0.1, 1.0, math.nan, 1.0, 0, 1, 0.0)


def rows(versions: range, norm: float = 1.0, history: History | None = None) -> History:
    """A history with an update for each of these versions."""
    history = history or History()
    for version in versions:
        history.add(NOTHING._replace(version=version, step=version, gradient_norm=norm))
    return history


def measured(*norms: float) -> Measured:
    """A measurement of which only the norms matter."""
    return Measured(np.array(norms), np.array(norms), np.zeros(len(norms)))


def versions(history: History) -> list[float]:
    """The versions that a reader sees."""
    return history.rows()[:, 0].tolist()


def test_a_full_table_drops_every_second_row_and_doubles_its_stride() -> None:
    """After 8 + 1 rows in a table of 8 there are those of every second number, evenly spaced to the end."""
    table = Table(1, 8, thinned=True)
    for number in range(9):
        table.append((number,))
    assert table.rows[:, 0].tolist() == [0, 2, 4, 6, 8]
    for number in range(9, 40):
        table.append((number,))
    assert table.rows[:, 0].tolist() == list(range(0, 40, 8))


def test_the_newest_rows_are_all_there_behind_a_thinned_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader sees the thinned past first, then each of the newest versions, none twice."""
    history = History(kept=Table(len(past.COLUMNS), 8, thinned=True), newest=Table(len(past.COLUMNS), 4))
    rows(range(1, 31), history=history)
    assert versions(history) == [1, 5, 9, 13, 17, 21, 25, 27, 28, 29, 30]


def test_a_result_is_found_by_version_also_where_a_load_came_between() -> None:
    """Versions of loads have no row; those of updates are found on both sides of one, and older ones are not."""
    history = rows(range(1, 5))
    rows(range(7, 9), norm=2.0, history=history)
    assert [history.result(version)[0] for version in (0, 1, 4, 5, 7, 8, 9)] == [None, 1.0, 1.0, None, 2.0, 2.0, None]
    rows(range(9, 9 + past.NEWEST_KEPT), history=history)
    assert history.result(8) == (None, None)
    assert history.result(9) == (1.0, 1.0)


def test_a_frozen_history_and_the_one_that_goes_on_do_not_meet() -> None:
    """Rows that either of them gets later are not seen by the other, at any fill of the tables."""
    for count in (1, 15, 16, 17, 40):
        history = rows(range(1, count + 1))
        frozen = history.frozen()
        rows(range(count + 1, count + 30), norm=2.0, history=history)
        assert versions(frozen) == list(range(1, count + 1))
        rows(range(count + 1, count + 3), norm=3.0, history=frozen)
        assert history.result(count + 1) == (2.0, 1.0)
        assert frozen.result(count + 1) == (3.0, 1.0)


def test_reported_names_are_bounded() -> None:
    """Past the bound a new name is not kept, and a known one still is."""
    history = History()
    history.add_report(0, {f"m{number}": 1.0 for number in range(past.REPORTED_NAMES_MAX + 5)})
    history.add_report(1, {"m0": 2.0, "late": 1.0})
    assert len(history.reported) == past.REPORTED_NAMES_MAX
    assert history.reported["m0"].rows.tolist() == [[0, 1.0], [1, 2.0]]


def test_a_norm_beyond_its_running_median_warns_once_and_is_over_later() -> None:
    """A thousand times the median is fine, more warns; the text goes with the updates that the median is over."""
    history = rows(range(1, 21))
    rows(range(21, 22), norm=past.EXPLODING_RATIO, history=history)
    assert history.present_warnings() == []
    rows(range(22, 24), norm=1.01 * past.EXPLODING_RATIO, history=history)
    assert len(history.warnings) == 1
    assert "version 22" in history.present_warnings()[0]
    rows(range(24, 24 + past.MEDIAN_ROWS), history=history)
    assert history.present_warnings() == []


def test_too_few_updates_have_no_running_median() -> None:
    """The first gradients of a run may be of any size."""
    history = rows(range(1, past.MEDIAN_ROWS_MIN), norm=1e-9)
    rows(range(past.MEDIAN_ROWS_MIN, past.MEDIAN_ROWS_MIN + 1), norm=1.0, history=history)
    assert history.warnings == ()


def test_a_tensor_without_gradient_beside_the_others_warns_while_it_lasts() -> None:
    """Below a millionth of the largest norm; named once; a tensor that did not come says nothing."""
    history = History()
    history.add_measurement(1, ("a", "b", "c"), measured(1.0, 1.01e-6, math.nan))
    assert history.warnings == ()
    for version in (2, 3):
        history.add_measurement(version, ("a", "b", "c"), measured(1.0, 0.99e-6, math.nan))
    assert [(warning.version, warning.kind) for warning in history.warnings] == [(2, "vanishing")]
    assert "'b'" in history.present_warnings()[0]
    history.add_measurement(4, ("a", "b", "c"), measured(1.0, 1.0, math.nan))
    assert history.present_warnings() == []


def test_weights_beyond_float32_warn_once_until_they_are_numbers_again() -> None:
    """An update that went an infinite way, or from infinity to infinity; a restore brings finite ways back."""
    history = rows(range(1, 3))
    history.watch_weights(1, 2.5)
    assert history.warnings == ()
    history.watch_weights(2, math.inf)
    history.watch_weights(3, math.nan)
    assert [(warning.version, warning.kind) for warning in history.warnings] == [(2, "not finite")]
    assert "restore a checkpoint" in history.warnings[0].text
    history.watch_weights(4, 0.5)
    history.watch_weights(5, math.inf)
    assert [warning.version for warning in history.warnings] == [2, 5]


def test_no_gradient_anywhere_is_no_vanishing_gradient() -> None:
    """At a minimum all norms are zero, and none is small beside the others."""
    history = History()
    history.add_measurement(1, ("a", "b"), measured(0.0, 0.0))
    assert history.warnings == ()


def test_a_history_comes_back_from_its_image_and_goes_on_the_same() -> None:
    """Every table, its stride, the last measurement and the warnings; then both histories stay equal."""
    history = History(kept=Table(len(past.COLUMNS), 8, thinned=True))
    rows(range(1, 31), history=history)
    history.add_measurement(30, ("a", "b"), measured(1.0, 0.0))
    history.add_report(30, {"loss": 0.5})
    again = History.from_json(history.to_json(), dict(history.vectors()))
    for version in range(31, 60):
        for one in (history, again):
            rows(range(version, version + 1), history=one)
            one.add_measurement(version, ("a", "b"), measured(1.0, 2.0))
            one.add_report(version, {"loss": 0.25, "accuracy": 1.0})
    assert again.to_json() == history.to_json()
    assert again.median == history.median == 1.0
    for (name, table), (again_name, again_table) in zip(history.vectors(), again.vectors(), strict=True):
        assert name == again_name
        np.testing.assert_array_equal(table, again_table)
