"""Server-sent events: bytes in any pieces → events, and the place to go on from."""

from __future__ import annotations

import pytest

import gradserve as gs
from gradserve.events import AGAIN_SECONDS, Event, EventFeed
from gradserve.messages import Sleep
from sdk.by_hand import RUN, Conversation, sent_header

UPDATE = b'id: 7\nevent: update\ndata: {"position": 7, "version": 3}\n\n'
STREAM = b": here\n\n" + UPDATE + b'id: 8\r\nevent: configure\r\ndata: {"a":\r\ndata: 1}\r\n\r\n: still here\n\n'


class Body:
    """An open stream that notes its end."""

    closed = False

    def close(self) -> None:
        self.closed = True


def opened(feed: EventFeed) -> Conversation:
    """A feed whose stream the server has opened."""
    talk = Conversation(feed.open(RUN))
    if talk.asked.path == RUN.path:
        talk.answer(200, {"uid": RUN.uid, "position": 6, "state": "running"})
    return talk.answer(200, content_type="text/event-stream; charset=utf-8")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_pieces_of_any_size_give_the_same_events(size):
    """Comments are no events; both kinds of line ends; data over several lines is one text."""
    feed = EventFeed(0)
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    events = [event for piece in pieces for event in feed.read(piece)]
    assert [(event.id, event.kind, event.fields) for event in events] == [
        (7, "update", {"position": 7, "version": 3}),
        (8, "configure", {"a": 1}),
    ]
    assert feed.last_id == 8


def test_half_an_event_does_not_move_the_place():
    """Where the connection breaks inside an event, that event comes again."""
    feed = EventFeed(6)
    assert list(feed.read(UPDATE[:-1])) == []
    assert feed.last_id == 6
    assert opened(feed).ended
    (event,) = feed.read(UPDATE)
    assert (event.id, event.fields["version"]) == (7, 3)


def test_from_now_on_begins_at_the_runs_position():
    """Asked before listening: what happens between the two is not missed."""
    talk = Conversation(EventFeed().open(RUN))
    assert talk.asked.path == RUN.path
    talk.answer(200, {"uid": RUN.uid, "position": 6, "state": "running"})
    assert (talk.asked.path, sent_header(talk.asked, "Last-Event-ID")) == (f"{RUN.path}/events", "6")
    assert talk.asked.streamed


@pytest.mark.parametrize("since", [None, 6, 7])
def test_a_run_that_is_closed_already_tells_nothing_more(since):
    """The stream would begin behind the event that ends it, and never end."""
    talk = Conversation(EventFeed(since).open(RUN)).answer(200, {"uid": RUN.uid, "position": 6, "state": "closed"})
    assert talk.ended
    assert talk.result is None


def test_of_a_closed_run_what_is_left_is_told():
    """Reports may lie behind the closing event: the last of them ends it."""
    feed = EventFeed(5)
    talk = Conversation(feed.open(RUN)).answer(200, {"uid": RUN.uid, "position": 7, "state": "closed"})
    assert sent_header(talk.asked, "Last-Event-ID") == "5"
    assert [feed.ends_with(Event(position, "report")) for position in (6, 7)] == [False, True]


def test_a_broken_stream_goes_on_after_the_last_event():
    """After the pause that the server asks for."""
    feed = EventFeed()
    opened(feed)
    list(feed.read(UPDATE))
    talk = Conversation(feed.open(RUN))
    assert (type(talk.asked), talk.asked.seconds) == (Sleep, AGAIN_SECONDS)
    assert sent_header(talk.sleep_over().asked, "Last-Event-ID") == "7"
    list(feed.read(b"retry: 2500\n\n"))
    talk.answer(200, content_type="text/event-stream")
    assert Conversation(feed.open(RUN)).asked.seconds == 2.5


def test_what_is_no_stream_of_events_is_told():
    """A proxy's page, or lines that are no JSON."""
    talk = Conversation(EventFeed(0).open(RUN))
    with pytest.raises(gs.RunNotFound):
        talk.refuse("run-not-found")
    with pytest.raises(gs.UnexpectedAnswer, match="not JSON"):
        list(EventFeed(0).read(b"data: <html>\n\n"))
