"""Opening a run: get or create, and the first worker's weights win."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gradserve as gs
from gradserve.flows import FirstWeights, delete_flow, describe_flow, open_run_flow, runs_flow, upload_flow
from sdk.by_hand import RUN, Conversation, a_gradient, sent_header

SPEC = {"optimizer": {"name": "adam"}}
FRESH = {"uid": "uid-1", "initialised": False, "tensors": []}
GROWN = {
    "uid": "uid-1",
    "initialised": True,
    "tensors": [{"name": "b", "shape": [2], "offset": 0}, {"name": "w", "shape": [2, 3], "offset": 2}],
}


def test_a_run_is_created_and_started():
    """PUT the spec, upload because it has no weights, look again."""
    talk = Conversation(open_run_flow("digits", SPEC, FirstWeights.of(a_gradient()), rank=0))
    assert (talk.asked.method, talk.asked.path, json.loads(talk.asked.body[0])) == ("PUT", "/v1/runs/digits", SPEC)
    talk.answer(201, FRESH)
    assert (talk.asked.path, sent_header(talk.asked, "If-None-Match")) == ("/v1/runs/digits/weights", "*")
    talk.answer(201, {"version": 0}).answer(200, GROWN)
    assert (talk.result.key, talk.result.description) == (RUN, GROWN)


def test_a_run_that_has_weights_gets_none():
    """They are compared with this worker's: another network under the same name is found here, not in the maths."""
    talk = Conversation(open_run_flow("digits", SPEC, FirstWeights.of(a_gradient()), rank=0))
    assert talk.answer(200, GROWN).ended
    other = FirstWeights.of({"w": np.zeros((3, 2)), "b": np.zeros(2)})
    talk = Conversation(open_run_flow("digits", SPEC, other, rank=0))
    with pytest.raises(gs.LayoutMismatch, match=r"'w' is \(2, 3\) there, \(3, 2\) in init"):
        talk.answer(200, GROWN)


def test_that_another_worker_was_faster_is_as_good():
    """412 is no error: its weights are the run's."""
    talk = Conversation(upload_flow(RUN, FirstWeights.of(a_gradient()))).refuse("precondition-failed")
    assert talk.result is False


def test_other_ranks_do_not_upload():
    """They leave it to rank 0, and wait in their first pull."""
    talk = Conversation(open_run_flow("digits", SPEC, FirstWeights.of(a_gradient()), rank=1))
    assert talk.answer(201, FRESH).ended


def test_without_a_spec_the_run_must_exist():
    """Nothing is created by accident."""
    talk = Conversation(open_run_flow("digits", None, None, rank=0))
    assert talk.asked.method == "GET"
    with pytest.raises(gs.RunNotFound):
        talk.refuse("run-not-found")


def test_a_name_cannot_reach_another_path():
    """It is checked before it becomes part of a path."""
    for name in ("a/b", "..", "", "ä", "a" * 101):
        with pytest.raises(gs.ValidationError, match="run name"):
            Conversation(open_run_flow(name, SPEC, None, rank=0))


def test_deleting_twice_is_deleting():
    """The first answer may have been lost; the uid keeps a later run of the name alive."""
    talk = Conversation(delete_flow(RUN))
    assert sent_header(talk.asked, "Gradserve-Run") == "uid-1"
    assert talk.refuse("run-deleted").ended


def test_a_later_run_of_the_name_is_not_this_one():
    """Its description would be somebody else's."""
    talk = Conversation(describe_flow(RUN))
    with pytest.raises(gs.RunDeleted):
        talk.answer(200, {**GROWN, "uid": "uid-2"})


def test_lists_are_read_to_their_end():
    """Page after page."""
    talk = Conversation(runs_flow()).answer(200, {"runs": [{"name": "a"}], "next_page_token": "a"})
    assert talk.asked.path == "/v1/runs?page_token=a"
    assert talk.answer(200, {"runs": [{"name": "b"}], "next_page_token": None}).result == [{"name": "a"}, {"name": "b"}]


def test_first_weights_are_a_copy_in_float32():
    """Changing the caller's arrays later does not change what a lost run would be started with."""
    w = np.full((2, 3), 0.1)
    first = FirstWeights.of({"w": w})
    w[...] = 9.0
    assert first.vector.tolist() == [np.float32(0.1)] * 6
    with pytest.raises(gs.ValidationError, match="'outer': expected an array, came a dict"):
        FirstWeights.of({"outer": {"w": w}})
