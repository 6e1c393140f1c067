"""A worker's side of exactly once: what it says, and what it does when the server says otherwise."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gradserve as gs
from gradserve.flows import FirstWeights
from gradserve.messages import Sleep
from gradserve.session import RESUBMITS_MAX
from sdk.by_hand import (
    LAYOUT,
    ROW,
    Conversation,
    a_gradient,
    a_ready_session,
    a_session,
    accepted,
    etag,
    held,
    sent_header,
    sent_metadata,
    weights_body,
)


def test_a_push_says_what_it_was_computed_at_and_what_the_worker_was_told():
    """Base ETag exactly as it came, generation, receipt, and the uid that guards against a later run of the name."""
    session = a_ready_session(version=3)
    talk = Conversation(session.push(a_gradient(), samples=32, loss=0.5, cursor="epoch 1"))
    assert talk.asked.method == "PUT"
    assert talk.asked.path == "/v1/runs/digits/workers/w0/pushes/1"
    assert sent_header(talk.asked, "Gradserve-Run") == "uid-1"
    assert sent_metadata(talk.asked) == {
        "base": etag(3), "base_version": "3", "generation": "1", "after": "r0",
        "samples": "32.0", "loss": "0.5", "cursor": "epoch 1",
    }  # fmt: skip


def test_an_accepted_push_moves_sequence_receipt_and_cursor_on():
    """The next push carries what this one's answer said."""
    session = a_ready_session()
    talk = Conversation(session.push(a_gradient(), cursor="batch 7")).answer(200, accepted(1, version=4))
    assert (talk.result.outcome, talk.result.version, talk.result.accepted) == ("applied", 4, True)
    assert (session.next_sequence, session.receipt, session.cursor) == (2, "r1", "batch 7")
    again = Conversation(session.push(a_gradient()))
    assert again.asked.path.endswith("/pushes/2")
    assert sent_metadata(again.asked)["after"] == "r1"


def test_a_step_brings_the_new_weights_and_their_own_version():
    """The answer's version is the push's; other pushes may have followed, and the ETag says so."""
    session = a_ready_session()
    talk = Conversation(session.push(a_gradient(), want_weights=True))
    assert "return=representation" in sent_header(talk.asked, "Prefer")
    talk.weights(
        6, 2.0,
        gradserve_outcome="applied", gradserve_version="4", gradserve_staleness="1", gradserve_lr="0.1",
        gradserve_next_sequence="2", gradserve_receipt="r1", gradserve_durability="journal",
        gradserve_step="3", gradserve_gradient_norm="1.5", gradserve_clip_scale="0.5",
    )  # fmt: skip
    assert (talk.result.version, talk.result.staleness, talk.result.lr) == (4, 1, 0.1)
    assert (talk.result.step, talk.result.gradient_norm, talk.result.clip_scale) == (3, 1.5, 0.5)
    assert (session.weights.version, session.weights.etag) == (6, etag(6))
    assert (session.weights["w"] == 2.0).all()


def test_a_duplicate_is_success():
    """A repeated request whose first answer was lost: applied once, adopted as any other."""
    session = a_ready_session()
    talk = Conversation(session.push(a_gradient())).answer(200, accepted(1, "duplicate", original="applied"))
    assert talk.result.accepted
    assert session.next_sequence == 2


def test_a_refused_push_uses_up_no_sequence():
    """After the caller has cured it, the next gradient goes under the same number."""
    session = a_ready_session()
    talk = Conversation(session.push(a_gradient()))
    with pytest.raises(gs.NonFiniteGradient) as caught:
        talk.refuse("non-finite-gradient", "w[0] is NaN", tensors=["w[0]"])
    assert (caught.value.status, caught.value.extras) == (422, {"tensors": ["w[0]"]})
    assert session.next_sequence == 1


@pytest.mark.parametrize("code", ["history-rewound", "sequence-reused"])
def test_a_rewound_history_drops_the_gradient_and_goes_on_from_what_the_server_has(code):
    """Sent under another sequence it could be applied twice: it is never sent again."""
    session = a_ready_session(version=9)
    talk = Conversation(session.push(a_gradient())).refuse(code)
    assert talk.asked.path == "/v1/runs/digits/workers/w0"
    assert json.loads(talk.asked.body[0]) == {
        "instance": "instance-1",
        "metadata": {},
    }  # no generation: join, or the row
    talk.answer(200, {"generation": 2, "next_sequence": 5, "receipt": "r4", "cursor": "batch 4"})
    assert talk.asked.method == "GET"
    assert talk.asked.path.endswith("/weights")
    talk.weights(4)
    assert (talk.result.outcome, talk.result.accepted, talk.result.weights.version) == ("rewound", False, 4)
    assert (session.generation, session.next_sequence, session.receipt) == (2, 5, "r4")
    assert session.cursor == "batch 4"
    assert len(session.notices) == 1
    assert "not applied" in session.notices[0]


def test_a_stale_gradient_is_dropped_for_fresh_weights_by_default():
    """The result says so; nothing of it was applied."""
    session = a_ready_session(version=3)
    talk = Conversation(session.push(a_gradient())).refuse("stale-gradient", staleness=9)
    assert sent_header(talk.asked, "If-None-Match") == etag(3)
    talk.weights(12)
    assert (talk.result.outcome, talk.result.accepted, talk.result.weights.version) == ("refreshed", False, 12)
    assert session.next_sequence == 1


def test_a_stale_gradient_can_be_resubmitted_at_the_new_base():
    """The same tensors under the same sequence, as if computed at the current weights."""
    session = a_ready_session(version=3)
    talk = Conversation(session.push(a_gradient(7.0), on_stale="resubmit"))
    first = talk.asked
    talk.refuse("stale-gradient").weights(12)
    assert talk.asked.path == first.path
    assert sent_metadata(talk.asked)["base"] == etag(12)
    assert talk.asked.body[1:] == first.body[1:]
    assert talk.answer(200, accepted(1)).result.outcome == "applied"


def test_resubmitting_ends():
    """A gradient slower than its run is the caller's to cure."""
    session = a_ready_session(version=3)
    talk = Conversation(session.push(a_gradient(), on_stale="resubmit"))
    for version in range(RESUBMITS_MAX - 1):
        talk.refuse("stale-gradient").weights(10 + version)
    talk.refuse("stale-gradient")
    with pytest.raises(gs.StaleGradient):
        talk.weights(99)


def test_a_stale_gradient_can_be_raised():
    """on_stale="raise"."""
    talk = Conversation(a_ready_session().push(a_gradient(), on_stale="raise"))
    with pytest.raises(gs.StaleGradient):
        talk.refuse("stale-gradient", version=12)


@pytest.mark.parametrize("code", ["fenced", "run-paused", "run-closed", "lr-owned-by-server"])
def test_other_conflicts_are_the_callers(code):
    """No 409 is ever repeated blindly."""
    talk = Conversation(a_ready_session().push(a_gradient()))
    with pytest.raises(gs.Conflict) as caught:
        talk.refuse(code)
    assert caught.value.code == code


def test_a_gradient_can_name_the_weights_it_was_computed_at():
    """With overlap those are older than the ones held."""
    session = a_ready_session(version=9)
    talk = Conversation(session.push(a_gradient(), base=held(7)))
    assert sent_metadata(talk.asked)["base"] == etag(7)


def test_a_push_without_weights_pulls_and_registers_first():
    """Then its base is what it would be for a push without one: the current weights."""
    session = a_session()
    talk = Conversation(session.push(a_gradient())).answer(200, ROW).weights(5)
    assert sent_metadata(talk.asked)["base"] == etag(5)


def test_unchanged_weights_stay_the_same_object():
    """304: nothing is sent, nothing is copied."""
    session = a_ready_session(version=3)
    weights = session.weights
    talk = Conversation(session.pull(wait_seconds=20.0))
    assert sent_header(talk.asked, "Prefer") == "wait=20"
    assert talk.asked.wait_seconds == 20.0
    assert talk.answer(304).result is weights


def test_rank_0_uploads_the_first_weights():
    """And pulls them like everyone else."""
    first = FirstWeights.of(a_gradient())
    session = a_session(first=first)
    talk = Conversation(session.pull()).refuse("weights-uninitialised")
    talk.refuse("weights-uninitialised")
    assert (talk.asked.method, sent_header(talk.asked, "If-None-Match")) == ("PUT", "*")
    assert sent_header(talk.asked, "Gradserve-Run") == "uid-1"
    talk.answer(201, {"version": 0})
    assert talk.weights(0).result.version == 0


def test_other_ranks_wait_for_the_first_weights():
    """They hold a long-poll, and come again when it ends without weights."""
    session = a_session(first=FirstWeights.of(a_gradient()), rank=1)
    talk = Conversation(session.pull()).refuse("weights-uninitialised").refuse("weights-uninitialised")
    assert sent_header(talk.asked, "Prefer") == "wait=30"
    talk.refuse("weights-uninitialised")
    assert isinstance(talk.asked, Sleep)
    assert talk.sleep_over().weights(0).ended


def test_waiting_for_rank_0_ends():
    """After ten minutes of long-polls, with the error that says what is missing."""
    talk = Conversation(a_session(rank=1).pull()).refuse("weights-uninitialised").refuse("weights-uninitialised")
    for _ in range(19):
        talk.refuse("weights-uninitialised").sleep_over()
    talk.refuse("weights-uninitialised")
    with pytest.raises(gs.WeightsUninitialised, match="rank 0"):
        talk.sleep_over()


def test_a_run_that_lost_its_beginning_is_started_again_by_rank_0():
    """The gradient is dropped: it was computed at weights that are gone."""
    session = a_ready_session(version=9, first=FirstWeights.of(a_gradient(0.5)))
    talk = Conversation(session.push(a_gradient())).refuse("weights-uninitialised")
    talk.answer(200, {**ROW, "generation": 1})
    talk.refuse("weights-uninitialised").refuse("weights-uninitialised")
    assert talk.asked.method == "PUT"
    talk.answer(201, {"version": 0}).weights(0, 0.5)
    assert (talk.result.outcome, talk.result.weights.version) == ("rewound", 0)
    assert any("lost its weights" in notice for notice in session.notices)


def test_a_heartbeat_that_agrees_changes_nothing():
    """It carries the generation, so that a zombie's is refused."""
    session = a_ready_session()
    talk = Conversation(session.heartbeat())
    assert json.loads(talk.asked.body[0])["generation"] == 1
    assert talk.answer(200, ROW).ended
    assert session.notices == []


@pytest.mark.parametrize(
    "known", [{"generation": 2}, {"next_sequence": 7}, {"receipt": "other"}], ids=["generation", "sequence", "receipt"]
)
def test_a_heartbeat_that_differs_is_a_rewound_history(known):
    """Found before a gradient is lost to it."""
    session = a_ready_session()
    talk = Conversation(session.heartbeat()).answer(200, {**ROW, **known})
    assert "generation" not in json.loads(talk.asked.body[0])
    assert talk.answer(200, {**ROW, **known}).ended
    assert len(session.notices) == 1
    assert (session.generation, session.next_sequence, session.receipt) == tuple({**ROW, **known}.values())[:3]


def test_a_fenced_heartbeat_raises():
    """A newer instance has taken over."""
    talk = Conversation(a_ready_session().heartbeat())
    with pytest.raises(gs.Fenced):
        talk.refuse("fenced", generation=2)


def test_leaving_says_what_the_worker_was_told():
    """So that a lost acknowledgement is told even now; then it registers again, to leave what there is."""
    session = a_ready_session()
    talk = Conversation(session.leave())
    assert talk.asked.method == "DELETE"
    assert talk.asked.path == "/v1/runs/digits/workers/w0?generation=1&next_sequence=1&after=r0"
    talk.refuse("history-rewound").answer(200, {**ROW, "next_sequence": 1, "receipt": "r9"})
    assert talk.asked.path.endswith("after=r9")
    assert talk.answer(204).ended
    assert len(session.notices) == 1


def test_an_answer_without_a_receipt_is_not_counted():
    """A proxy's page with status 200 must not move the sequence on."""
    session = a_ready_session()
    talk = Conversation(session.push(a_gradient()))
    with pytest.raises(gs.UnexpectedAnswer):
        talk.answer(200, body=b"<html>", content_type="text/html")
    assert session.next_sequence == 1


def test_a_flat_vector_goes_out_from_where_it_lies():
    """No copy between the caller's gradient and the socket."""
    vector = np.arange(LAYOUT.parameters, dtype=np.float32)
    talk = Conversation(a_ready_session().push(vector))
    assert np.shares_memory(np.frombuffer(talk.asked.body[1], np.uint8), vector)


def test_a_tensor_left_out_is_left_out():
    """The frame has the others, in order."""
    session = a_ready_session()
    talk = Conversation(session.push({"w": np.ones((2, 3))}))
    assert b'"b"' not in talk.asked.body[0]
    with pytest.raises(gs.UnknownTensor):
        Conversation(session.push({"v": np.ones(3)}))
    with pytest.raises(gs.LayoutMismatch, match="expected"):
        Conversation(session.push({"w": np.ones((3, 2))}))


def test_nonsense_is_refused_before_it_is_sent():
    """With the server's own words."""
    session = a_ready_session()
    with pytest.raises(gs.ValidationError, match="samples"):
        Conversation(session.push(a_gradient(), samples=0))
    with pytest.raises(gs.ValidationError, match="worker name"):
        type(session)(session.run, "a/b", "i")


def test_numbers_may_be_of_numpy():
    """A loss comes out of somebody's arithmetic."""
    talk = Conversation(a_ready_session().push(a_gradient(), samples=np.int64(8), loss=np.float32(0.5)))
    assert sent_metadata(talk.asked).items() >= {"samples": "8.0", "loss": "0.5"}.items()


def test_a_loss_that_is_not_finite_is_not_sent():
    """What is wrong shows in the gradient, and the run's policy for it must be able to decide."""
    talk = Conversation(a_ready_session().push(a_gradient(), loss=float("nan")))
    assert "loss" not in sent_metadata(talk.asked)


def test_weights_are_read_only_views_of_the_answer():
    """One buffer, no copies; and the copy that the SDK holds cannot be changed behind its back."""
    session = a_ready_session(version=1)
    weights = session.weights
    assert all(np.shares_memory(tensor, weights.vector) for tensor in weights.values())
    with pytest.raises(ValueError, match="read-only"):
        weights["w"][0, 0] = 1.0
    assert weights_body(0.0).endswith(bytes(weights.vector.tobytes()))


def test_a_heartbeat_does_not_adopt_the_sequence_of_a_push_without_an_answer():
    """The push went out and its answer is lost: the server may count it. Repeated, it must keep its sequence."""
    session = a_ready_session()
    talk = Conversation(session.push(a_gradient()))
    path = talk.asked.path
    with pytest.raises(gs.ServerUnreachable):
        talk.lose()
    Conversation(session.heartbeat()).answer(200, {**ROW, "next_sequence": 2, "receipt": "r1"})
    assert session.notices == []
    assert Conversation(session.push(a_gradient())).asked.path == path
