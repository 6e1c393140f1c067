"""A push of which nothing was heard: it stays outstanding, and the next word to the server finds out."""

from __future__ import annotations

import numpy as np
import pytest

import gradserve as gs
from gradserve.session import WorkerSession
from gradserve.wire import decode_frame
from sdk.by_hand import ROW, RUN, Conversation, a_gradient, a_ready_session, accepted


def interrupted(fill: float = 1.0) -> WorkerSession:
    """A session whose first push went out, and whose driver was interrupted."""
    session = a_ready_session()
    flow = session.push(a_gradient(fill), cursor="batch 1")
    next(flow)
    flow.close()
    return session


def value(talk: Conversation) -> float:
    """What the gradient on its way is filled with."""
    frame = decode_frame(b"".join(talk.asked.body))
    return float(frame.layout.views(frame.vector())["w"][0, 0])


def test_it_is_sent_again_before_the_next():
    """The same bytes under the same sequence; then the next gradient under the next one."""
    session = interrupted(1.0)
    talk = Conversation(session.push(a_gradient(2.0)))
    assert (talk.asked.path[-2:], value(talk)) == ("/1", 1.0)
    talk.answer(200, accepted(1, "duplicate"))
    assert (talk.asked.path[-2:], value(talk)) == ("/2", 2.0)
    assert talk.answer(200, accepted(2)).result.sequence == 2
    assert session.cursor == "batch 1"


def test_the_same_gradient_is_sent_once():
    """The caller repeats what it could not finish: that is the same request, not another gradient."""
    talk = Conversation(interrupted(1.0).push(a_gradient(1.0)))
    assert talk.answer(200, accepted(1, "duplicate")).result.outcome == "duplicate"


def test_the_callers_arrays_are_free_again():
    """What is sent later is what was to be sent then."""
    session = a_ready_session()
    gradient = a_gradient(1.0)
    vector = np.concatenate([gradient["b"].ravel(), gradient["w"].ravel()])
    flow = session.push(vector)
    next(flow)
    flow.close()
    vector[:] = 9.0
    assert value(Conversation(session.push(a_gradient(2.0)))) == 1.0


@pytest.mark.parametrize("code", ["store-unavailable", "backpressure"])
def test_a_refusal_for_now_may_have_been_preceded_by_an_acceptance(code):
    """An earlier try of the same request may have arrived: it stays outstanding, and raises."""
    session = a_ready_session()
    with pytest.raises(gs.Unavailable):
        Conversation(session.push(a_gradient(1.0))).refuse(code)
    assert value(Conversation(session.push(a_gradient(2.0)))) == 1.0


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (404, {"body": b"default backend", "content_type": "text/plain"}),  # of an ingress that is being rolled out
        (302, {"body": b"", "location": "/login"}),
        (204, {}),
        (200, {"body": b"<html>", "content_type": "text/html"}),
        (200, {"document": {"status": "ok"}}),
        (200, {"document": []}),
        (200, {"document": {**accepted(1), "next_sequence": None}}),
    ],
    ids=str,
)
def test_an_answer_of_something_else_says_nothing_of_it(status, answer):
    """An earlier try may have arrived: it stays outstanding, and its repetition is the same request."""
    session = a_ready_session()
    with pytest.raises(gs.UnexpectedAnswer):
        Conversation(session.push(a_gradient(1.0))).answer(status, **answer)
    Conversation(session.heartbeat()).answer(200, {**ROW, "next_sequence": 2, "receipt": "r1"})
    assert session.notices == []
    talk = Conversation(session.push(a_gradient(1.0)))
    assert (talk.asked.path[-2:], value(talk)) == ("/1", 1.0)
    assert talk.answer(200, accepted(1, "duplicate")).result.outcome == "duplicate"


@pytest.mark.parametrize("arrived", [False, True])
def test_what_is_answered_by_something_else_each_time_ends_with_the_servers_word(arrived):
    """A proxy's limit for this one body: the worker's row tells where to go on, and the next gradient goes out."""
    session = a_ready_session()
    with pytest.raises(gs.UnexpectedAnswer):
        Conversation(session.push(a_gradient(1.0))).answer(413, body=b"too large", content_type="text/html")
    talk = Conversation(session.push(a_gradient(2.0)))
    assert value(talk) == 1.0
    talk.answer(413, body=b"too large", content_type="text/html")
    assert (talk.asked.method, talk.asked.path) == ("PUT", f"{RUN.path}/workers/w0")
    talk.answer(200, {**ROW, "next_sequence": 2, "receipt": "r1"} if arrived else ROW)
    assert (talk.asked.path[-2:], value(talk)) == ("/2" if arrived else "/1", 2.0)
    assert "413" in session.notices[0]


def test_where_nothing_but_something_else_answers_it_stays():
    """Then the row is not to be had either."""
    session = a_ready_session()
    with pytest.raises(gs.UnexpectedAnswer):
        Conversation(session.push(a_gradient(1.0))).answer(404, body=b"default backend", content_type="text/plain")
    with pytest.raises(gs.UnexpectedAnswer):
        Conversation(session.push(a_gradient(2.0))).answer(404, body=b"no").answer(404, body=b"no")
    assert value(Conversation(session.push(a_gradient(2.0)))) == 1.0


@pytest.mark.parametrize("code", ["unauthorized", "forbidden", "malformed-request", "malformed-tensors"])
def test_a_refusal_that_did_not_look_at_it_says_nothing_of_it(code):
    """A token that ran out, or bytes that a proxy damaged, on the second try."""
    session = a_ready_session()
    with pytest.raises(gs.ProblemError):
        Conversation(session.push(a_gradient(1.0))).refuse(code)
    assert value(Conversation(session.push(a_gradient(2.0)))) == 1.0


def test_a_code_of_a_newer_server_with_a_status_for_now_says_nothing_of_it():
    """As any 503."""
    session = a_ready_session()
    document = {"code": "of-tomorrow", "detail": "come again"}
    with pytest.raises(gs.Unavailable, match="of-tomorrow"):
        Conversation(session.push(a_gradient(1.0))).answer(503, document)
    assert value(Conversation(session.push(a_gradient(2.0)))) == 1.0


def test_a_refusal_ends_it():
    """It was not applied: that is told, and the next gradient takes its sequence."""
    session = interrupted(1.0)
    talk = Conversation(session.push(a_gradient(2.0))).refuse("stale-gradient", "too old")
    assert (talk.asked.path[-2:], value(talk)) == ("/1", 2.0)
    assert "was not applied" in session.notices[0]


def test_a_rewound_history_drops_it():
    """As any outstanding gradient; the next one goes out under what the server knows."""
    session = interrupted(1.0)
    talk = Conversation(session.push(a_gradient(2.0))).refuse("history-rewound")
    talk.answer(200, {**ROW, "next_sequence": 5, "receipt": "r4"})
    assert (talk.asked.path[-2:], value(talk)) == ("/5", 2.0)
    assert "is dropped" in session.notices[0]


def test_leaving_asks_the_server_where_the_worker_stands():
    """Then it leaves what there is, without a warning."""
    session = interrupted(1.0)
    talk = Conversation(session.leave())
    assert talk.asked.method == "PUT"
    talk.answer(200, {**ROW, "next_sequence": 2, "receipt": "r1"})
    assert talk.asked.path.endswith("next_sequence=2&after=r1")
    assert talk.answer(204).ended
    assert session.notices == []
