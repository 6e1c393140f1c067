"""A flow driven by the test itself: each answer is written where it is read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gradserve.errors import ServerUnreachable
from gradserve.flows import RunKey
from gradserve.messages import Flow, Request, Response, Sleep
from gradserve.problems import PROBLEMS
from gradserve.session import WorkerSession
from gradserve.weights import Weights
from gradserve.wire import Layout, decode_frame, encode_frame

RUN = RunKey("digits", "uid-1")
LAYOUT = Layout.of({"b": (2,), "w": (2, 3)})
ROW = {"generation": 1, "next_sequence": 1, "receipt": "r0", "cursor": None}


class Conversation:
    """A flow between two answers: what it asks now, or what it returned. Its exceptions come out of `answer`."""

    def __init__(self, flow: Flow[Any]) -> None:
        self._flow = flow
        self.asked: Any = None  # Request or Sleep
        self.result: Any = None
        self.ended = False
        self._go_on(None)

    def answer(self, status: int, document: Any = None, *, body: bytes = b"", **headers: str) -> Conversation:
        """Answer the request; a document goes as JSON."""
        assert isinstance(self.asked, Request), self.asked
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if document is not None:
            body, named["content-type"] = json.dumps(document).encode(), "application/json"
        self._go_on(Response(status, named, body))
        return self

    def refuse(self, code: str, detail: str = "no", **extras: Any) -> Conversation:
        """Answer with a problem document."""
        problem = {"type": f"/problems/{code}", "title": "t", "status": 0, "code": code, "detail": detail, **extras}
        return self.answer(PROBLEMS[code].status, problem)

    def weights(self, version: int, fill: float = 0.0, **headers: str) -> Conversation:
        """Answer with weights."""
        return self.answer(200, body=weights_body(fill), etag=etag(version), **headers)

    def lose(self) -> Conversation:
        """The answer never comes."""
        self._step(lambda: self._flow.throw(ServerUnreachable("connection reset")))
        return self

    def sleep_over(self) -> Conversation:
        """Let the pause pass."""
        assert isinstance(self.asked, Sleep), self.asked
        self._go_on(None)
        return self

    def _go_on(self, sent: Response | None) -> None:
        self._step(lambda: self._flow.send(sent))

    def _step(self, step: Any) -> None:
        try:
            self.asked = step()
        except StopIteration as stop:
            self.asked, self.result, self.ended = None, stop.value, True


def etag(version: int) -> str:
    """The ETag of a version."""
    return f'"{version}-{version:016x}"'


def weights_body(fill: float) -> bytes:
    """A frame of `LAYOUT`."""
    return b"".join(encode_frame(LAYOUT, np.full(LAYOUT.parameters, fill, np.float32)))


def a_session(**fields: Any) -> WorkerSession:
    """A session that nobody has answered yet."""
    return WorkerSession(RUN, "w0", "instance-1", **fields)


def a_ready_session(version: int = 3, **fields: Any) -> WorkerSession:
    """A session that is registered and holds weights of that version."""
    session = a_session(**fields)
    assert Conversation(session.register()).answer(200, ROW).ended
    assert Conversation(session.pull()).weights(version).ended
    return session


def a_gradient(fill: float = 1.0) -> dict[str, np.ndarray]:
    """A gradient of `LAYOUT`."""
    return {"w": np.full((2, 3), fill, np.float32), "b": np.zeros(2, np.float32)}


def sent_metadata(request: Request) -> dict[str, str]:
    """What a push says beside its tensors."""
    return decode_frame(b"".join(request.body)).metadata


def sent_header(request: Request, name: str) -> str | None:
    """A header of a request."""
    return dict(request.headers).get(name)


def accepted(sequence: int, outcome: str = "applied", **fields: Any) -> dict[str, Any]:
    """The JSON answer to a push."""
    answer = {"outcome": outcome, "version": 4, "step": 4, "staleness": 0, "lr": 0.1, "durability": "journal"}
    return {**answer, "next_sequence": sequence + 1, "receipt": f"r{sequence}", **fields}


def held(version: int) -> Weights:
    """Weights as if pulled."""
    return Weights(LAYOUT, np.zeros(LAYOUT.parameters, np.float32), version, etag(version))
