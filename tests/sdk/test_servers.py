"""Several servers: a home for each run, the next one when it fails, and home again. Time moves by the test."""

from __future__ import annotations

from collections import Counter

import pytest

import gradserve as gs
from gradserve.messages import Flow, Request, Response, Sleep, ask
from gradserve.retry import Patience, with_retries
from gradserve.servers import AWAY_SECONDS, AWAY_SECONDS_MAX, Servers, run_of
from sdk.by_hand import Conversation

URLS = ("http://a:8970", "http://b:8970", "http://c:8970")
PATH = "/v1/runs/digits/weights"


class Time:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def requests(number: int) -> Flow[Response]:
    for _ in range(number):
        response = yield from ask(Request("GET", PATH))
    return response


def conversation(servers: Servers, clock: Time, number: int = 1) -> Conversation:
    return Conversation(with_retries(requests(number), Patience(clock, lambda: 0.5), servers))


def test_every_client_finds_the_same_home_whatever_the_order_of_its_urls():
    """It follows from the run's name and the URL alone."""
    for k in range(50):
        path = f"/v1/runs/run-{k}"
        first = Servers(URLS, Time())
        second = Servers(tuple(reversed(URLS)), Time())
        assert [first.urls[n] for n in first.order(path)] == [second.urls[n] for n in second.order(path)]


def test_runs_are_spread_over_the_servers_and_few_move_when_one_goes():
    """Those at home elsewhere stay where they are."""
    three, two = Servers(URLS, Time()), Servers(URLS[:2], Time())
    homes = {f"r{k}": three.order(f"/v1/runs/r{k}")[0] for k in range(300)}
    assert all(count > 60 for count in Counter(homes.values()).values())
    assert all(two.order(f"/v1/runs/{name}")[0] == home for name, home in homes.items() if home < 2)


def test_all_paths_of_a_run_have_its_home():
    """Whatever is asked of it; what is asked of the server itself is no run's."""
    paths = ("/v1/runs/digits", "/v1/runs/digits?x=1", "/v1/runs/digits/workers/w/pushes/1")
    assert {run_of(path) for path in paths} == {"digits"}
    assert {run_of(path) for path in ("/v1/server", "/v1/runs", "/v1/runs?limit=1")} == {""}


@pytest.mark.parametrize("failure", ["lost", 502, 503, 504])
def test_the_next_server_is_asked_at_once(failure):
    """No pause while there is one left to ask; the same bytes go there."""
    clock = Time()
    servers = Servers(URLS, clock)
    home, second, _ = servers.order(PATH)
    talk = conversation(servers, clock, 2)
    assert talk.asked.server == home
    talk.lose() if failure == "lost" else talk.answer(failure)
    assert talk.asked.server == second
    talk.answer(200)
    assert talk.asked.server == second  # and the request after it does not try home first
    assert talk.answer(200).ended


def test_after_a_while_home_is_asked_first_again():
    """A restarted server gets its runs back."""
    clock = Time()
    servers = Servers(URLS, clock)
    home = servers.order(PATH)[0]
    talk = conversation(servers, clock, 2).lose()
    clock.now += AWAY_SECONDS
    assert talk.answer(200).asked.server == home


def test_a_server_that_stays_away_is_tried_ever_more_seldom():
    """Up to a bound; its first answer makes all good."""
    clock = Time()
    servers = Servers(URLS, clock)
    home = servers.order(PATH)[0]
    spans = []
    for _ in range(7):
        servers.failed(home)
        servers.failed(home)  # seen by another thread: no second failure
        began = clock.now
        while servers.order(PATH)[0] != home:
            clock.now += AWAY_SECONDS
        spans.append(clock.now - began)
    assert spans == [min(AWAY_SECONDS_MAX, AWAY_SECONDS * 2**k) for k in range(7)]
    servers.answered(home)
    servers.failed(home)
    clock.now += AWAY_SECONDS
    assert servers.order(PATH)[0] == home


def test_a_pause_comes_only_after_all_have_failed():
    """Then the round begins anew, with the one that failed first; patience counts for all together."""
    clock = Time()
    servers = Servers(URLS, clock)
    order = servers.order(PATH)
    talk = conversation(servers, clock)
    asked = []
    for _ in URLS:
        asked.append(talk.asked.server)
        talk.lose()
    assert tuple(asked) == order
    assert isinstance(talk.asked, Sleep)
    clock.now += 600.0
    talk.sleep_over().lose().lose()
    with pytest.raises(gs.ServerUnreachable, match="6 attempts"):
        talk.lose()


def test_a_busy_server_is_not_left():
    """429 is the run's home at its limit: another server would only load the same store."""
    clock = Time()
    servers = Servers(URLS, clock)
    home = servers.order(PATH)[0]
    talk = conversation(servers, clock).answer(429)
    assert talk.sleep_over().asked.server == home


def test_several_urls_come_as_a_list_or_with_commas(monkeypatch):
    """Also from the environment; each once."""
    for url in ("http://a:1,http://b:2", " http://a:1 , http://b:2,http://a:1,", ["http://a:1", "http://b:2"]):
        with gs.connect(url) as client:
            assert client.urls == ("http://a:1", "http://b:2")
    monkeypatch.setenv("GRADSERVE_URL", "http://a:1,http://b:2")
    with gs.connect() as client:
        assert client.url == "http://a:1,http://b:2"
    with pytest.raises(gs.Misuse, match="expected a URL"):
        gs.connect("http://a:1,ftp://b")
    for wrong in (7, [7], ","):
        with pytest.raises(gs.Misuse):
            gs.connect(wrong)
