"""What a client asks of a run besides gradients: what goes out, and how the answer is read."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gradserve as gs
from gradserve.checkpoints import checkpoint_content
from gradserve.flows import OpenedRun
from gradserve.run_session import RunSession
from gradserve.wire import decode_frame
from sdk.by_hand import RUN, Conversation, sent_header


def session() -> RunSession:
    """A run as opened."""
    keys = iter(f"key-{k}" for k in range(100))
    return RunSession(OpenedRun(RUN, {"name": RUN.name}), fresh_key=lambda: next(keys))


def sent(talk: Conversation) -> dict:
    """The JSON body of the request."""
    return json.loads(b"".join(talk.asked.body))


def test_history_comes_as_columns():
    """Whole numbers stay whole; gaps are NaN."""
    talk = Conversation(session().history(["loss", "gradient_norm/layer 1"], 10, 500))
    assert talk.asked.path == "/v1/runs/digits/history?series=loss,gradient_norm%2Flayer%201&since=10&max_points=500"
    columns = talk.answer(200, {"version": [1, 2], "loss": [0.5, None], "metrics/accuracy": []}).result
    assert (columns["version"].dtype, columns["version"].tolist()) == (np.int64, [1, 2])
    assert columns["loss"][0] == 0.5
    assert np.isnan(columns["loss"][1])
    assert columns["metrics/accuracy"].shape == (0,)


def test_the_journal_is_read_line_by_line():
    """One entry a line."""
    talk = Conversation(session().journal(3))
    assert talk.asked.path == "/v1/runs/digits/journal?since=3"
    assert talk.answer(200, body=b'{"position": 4}\n{"position": 5}\n').result == [{"position": 4}, {"position": 5}]


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.configure(0.1, {}),
        lambda run: run.report({"accuracy": 0.9}, None),
        lambda run: run.checkpoint("c"),
        lambda run: run.restore("c", None),
    ],
)
def test_every_change_has_a_key_and_names_its_run(change):
    """A late copy of the request is known again, and cannot hit a later run of the name."""
    talk = Conversation(change(session()))
    assert sent_header(talk.asked, "Idempotency-Key") == "key-0"
    assert sent_header(talk.asked, "Gradserve-Run") == RUN.uid


def test_a_report_takes_the_numbers_of_any_library():
    """NumPy's scalars and 0-d arrays; what is not finite or not a number is named."""
    talk = Conversation(session().report({"a": np.float32(0.5), "b": np.array(2), "c": 3}, np.int64(7)))
    assert sent(talk) == {"values": {"a": 0.5, "b": 2.0, "c": 3.0}, "version": 7}
    assert talk.answer(204).ended
    for wrong in ({"loss": float("nan")}, {"loss": "low"}, [0.5]):
        with pytest.raises(gs.ValidationError, match="expected"):
            Conversation(session().report(wrong, None))


def test_settings_may_be_specs_and_numpys_numbers():
    """In any depth; what JSON does not have is refused by name."""
    changes = {"schedule": gs.Constant(), "clip": [gs.Value(value=1.0)], "groups": [{"lr_scale": np.float32(0.5)}]}
    talk = Conversation(session().configure(np.float64(0.1), changes))
    body = sent(talk)
    assert body["optimizer"] == {"lr": 0.1}
    assert (body["clip"][0]["value"], body["groups"]) == (1.0, [{"lr_scale": 0.5}])
    for wrong in ({"schedule": object()}, {"groups": [{"lr_scale": np.inf}]}, {"optimizer": 3}, {}):
        with pytest.raises(gs.ValidationError, match="expected"):
            Conversation(session().configure(None, wrong))


def test_a_spec_changes_what_it_names():
    """As a dict of the same fields would; what it leaves out stays the run's."""
    for optimizer in (gs.AdamW(weight_decay=0.1), {"name": "adamw", "weight_decay": np.float64(0.1)}):
        talk = Conversation(session().configure(None, {"optimizer": optimizer}))
        assert sent(talk)["optimizer"] == {"name": "adamw", "weight_decay": 0.1}


def test_a_checkpoint_of_the_present_state_has_an_empty_body():
    """Announced as such; the name cannot reach another path."""
    talk = Conversation(session().checkpoint("final"))
    assert (talk.asked.method, talk.asked.path) == ("PUT", "/v1/runs/digits/checkpoints/final")
    assert talk.asked.body == (b"",)
    assert talk.answer(201, {"name": "final"}).result == {"name": "final"}
    with pytest.raises(gs.ValidationError, match="checkpoint name"):
        Conversation(session().checkpoint("a/b"))


def test_a_checkpoint_comes_from_a_dict_or_a_file(tmp_path):
    """A file as it lies on the disk, without a copy."""
    pieces = checkpoint_content({"w": np.ones((2, 3))})
    frame = decode_frame(b"".join(pieces))
    assert frame.layout.names == ("w",)
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"".join(pieces))
    assert bytes(checkpoint_content(path)[0]) == b"".join(pieces)
    path.write_bytes(b"")
    with pytest.raises(gs.ValidationError, match="came an empty one"):
        checkpoint_content(path)
    with pytest.raises(gs.ValidationError, match="a path or a dict"):
        checkpoint_content(7)


def test_deleting_a_checkpoint_twice_is_deleting():
    """The first answer may have been lost."""
    assert Conversation(session().delete_checkpoint("c")).refuse("checkpoint-not-found").ended


def test_restoring_names_one_state():
    """A checkpoint or a version."""
    talk = Conversation(session().restore(None, 7))
    assert (talk.asked.path, sent(talk)) == ("/v1/runs/digits/restore", {"version": 7})
    assert talk.answer(200, {"version": 9}).result == {"version": 9}
    for wrong in ((None, None), ("c", 7)):
        with pytest.raises(gs.ValidationError, match="a checkpoint or a version"):
            Conversation(session().restore(*wrong))


def test_a_branch_without_a_checkpoint_passes_through_one():
    """The new run is created from it, then it goes; settings that are given count more than the inherited ones."""
    talk = Conversation(session().branch("hot", None, {"optimizer": gs.Sgd(lr=1.0), "schedule": None}))
    passing = talk.asked.path.removeprefix("/v1/runs/digits/checkpoints/")
    assert passing.startswith("branch-")
    talk.answer(201, {"name": passing})
    assert (talk.asked.method, talk.asked.path) == ("PUT", "/v1/runs/hot")
    body = sent(talk)
    assert body["branch"] == {"run": "digits", "checkpoint": passing}
    assert (body["optimizer"]["lr"], set(body)) == (1.0, {"branch", "optimizer"})
    talk.answer(201, {"uid": "uid-2", "initialised": True, "tensors": []})
    assert (talk.asked.method, talk.asked.path) == ("DELETE", f"/v1/runs/digits/checkpoints/{passing}")
    talk.answer(204)
    assert talk.result.key.name == "hot"
