"""Coming again: what is repeated, when, and until when. Time stands still unless the test moves it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import gradserve as gs
from gradserve.messages import Flow, Request, Response, Sleep, ask
from gradserve.problems import PROBLEMS
from gradserve.retry import Patience, RetryBudget, with_retries
from sdk.by_hand import Conversation, a_gradient, a_ready_session, accepted


class Time:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def patience(clock: Time | None = None, jitter: float = 1.0, **fields: float) -> Patience:
    return Patience(clock or Time(), lambda: jitter, **fields)


def one_request() -> Flow[Response]:
    return (yield from ask(Request("GET", "/v1/server")))


def test_a_lost_answer_is_asked_for_again_with_the_same_bytes():
    """Same sequence, same body: the server sees a duplicate, never another gradient."""
    session = a_ready_session()
    talk = Conversation(with_retries(session.push(a_gradient()), patience()))
    first = talk.asked
    assert isinstance(talk.lose().asked, Sleep)
    assert talk.sleep_over().asked is first
    assert talk.answer(200, accepted(1, "duplicate")).result.accepted


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_cannot_now_is_asked_again(status):
    """Statuses that another try may better."""
    talk = Conversation(with_retries(one_request(), patience())).answer(status)
    assert isinstance(talk.asked, Sleep)
    assert talk.sleep_over().answer(200).result.status == 200


@pytest.mark.parametrize("status", sorted({p.status for p in PROBLEMS.values()} - {429, 503}))
def test_a_refusal_is_an_answer(status):
    """No 4xx but 408 and 429 is repeated; a 409 least of all."""
    assert Conversation(with_retries(one_request(), patience())).answer(status).ended


def test_pauses_double_under_full_jitter_up_to_a_bound():
    """Uniform between 0 and the bound: here at its upper end, then in the middle."""
    talk = Conversation(with_retries(one_request(), patience()))
    pauses = []
    for _ in range(10):
        pauses.append(talk.lose().asked.seconds)
        talk.sleep_over()
    assert pauses == [pytest.approx(min(20.0, 0.1 * 2**k)) for k in range(10)]
    assert Conversation(with_retries(one_request(), patience(jitter=0.5))).lose().asked.seconds == 0.05


def test_retry_after_is_obeyed():
    """The pause is at least what the server asked for, spread above it."""
    talk = Conversation(with_retries(one_request(), patience(jitter=0.5))).answer(503, retry_after="7")
    assert talk.asked.seconds == 7.05


def test_the_reason_is_told():
    """It ends up in the log: a training that stands still must say why."""
    talk = Conversation(with_retries(one_request(), patience())).refuse("store-unavailable", "Redis is away")
    assert "Redis is away" in talk.asked.reason


def test_patience_ends_with_the_last_answer():
    """After ten minutes in all the refusal becomes the caller's."""
    clock = Time()
    talk = Conversation(with_retries(a_ready_session().push(a_gradient()), patience(clock)))
    talk.refuse("draining").sleep_over()
    clock.now += 600.0
    with pytest.raises(gs.Draining):
        talk.refuse("draining")


def test_the_last_pause_is_cut_to_what_is_left():
    """Patience ends with a question, not with an unused rest; even where Retry-After asks for more."""
    clock = Time()
    talk = Conversation(with_retries(one_request(), patience(clock))).lose().sleep_over()
    clock.now += 599.5
    assert talk.answer(503, retry_after="7").asked.seconds == pytest.approx(0.5)
    clock.now += 0.5
    assert talk.sleep_over().answer(200).result.status == 200


def test_patience_ends_with_no_answer():
    """The slow attempts count, not only the pauses."""
    clock = Time()
    talk = Conversation(with_retries(one_request(), patience(clock))).lose().sleep_over()
    clock.now += 600.0
    with pytest.raises(gs.ServerUnreachable, match="2 attempts, 600 s: connection reset"):
        talk.lose()


def test_patience_is_for_one_request():
    """A long conversation is not a failing one: the second request has all of it."""
    clock = Time()

    def two_requests() -> Flow[Response]:
        yield from ask(Request("GET", "/v1/server"))
        return (yield from ask(Request("GET", "/v1/server")))

    talk = Conversation(with_retries(two_requests(), patience(clock)))
    clock.now += 600.0
    assert isinstance(talk.answer(200).lose().asked, Sleep)


def test_pauses_of_the_flow_itself_pass_through():
    """Waiting for rank 0 is not a retry."""

    def napping() -> Flow[str]:
        yield Sleep(3.0, "tired")
        return "rested"

    talk = Conversation(with_retries(napping(), patience()))
    assert talk.asked == Sleep(3.0, "tired")
    assert talk.sleep_over().result == "rested"


QUICK = 1.0  # seconds: the first pauses of a request are shorter


def quick_repetitions(flows: int, failures: int, budget: RetryBudget, flow: Callable[[], Flow[object]]) -> int:
    """How many pauses were quick, of conversations that each fail so many times before they are answered."""
    quick = 0
    for _ in range(flows):
        talk = Conversation(with_retries(flow(), patience(), budget=budget))
        for _ in range(failures):
            quick += talk.answer(503).asked.seconds < QUICK
            talk.sleep_over()
        talk.answer(200, accepted(1))
    return quick


def test_reads_are_repeated_quickly_for_a_tenth_of_the_successes():
    """Where every read fails once, most of the repetitions wait the longest pause: at most 10 % and the bucket."""
    quick = quick_repetitions(1_000, 1, RetryBudget(), one_request)
    assert 100 <= quick <= 0.1 * 1_000 + 10


def test_a_single_outage_is_met_as_if_there_were_no_budget():
    """The bucket of a client that was well holds more than a restart takes."""
    assert quick_repetitions(1, 3, RetryBudget(), one_request) == 3


def test_an_empty_bucket_fails_no_read():
    """It only comes again later; and answers fill the bucket."""
    budget = RetryBudget(tokens=0.0)
    talk = Conversation(with_retries(one_request(), patience(), budget=budget)).answer(503)
    assert talk.asked.seconds == 20.0
    assert talk.sleep_over().answer(200).result.status == 200
    assert budget.tokens == pytest.approx(0.1)


def test_pushes_insist_whatever_reads_have_spent():
    """A worker's gradient does not wait longer because somebody watches the run."""
    budget = RetryBudget(tokens=0.0)
    talk = Conversation(with_retries(a_ready_session().push(a_gradient()), patience(), budget=budget))
    assert talk.answer(503).asked.seconds == 0.1
    assert budget.tokens == 0.0
