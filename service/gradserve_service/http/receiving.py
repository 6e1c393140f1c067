"""The minimum rate of request bodies, kept by one timer for all of them (a timer for each costs a push 15 µs)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive

from gradserve.problems import refuse
from gradserve_service.limits import Limits

__all__ = ["Disconnected", "SlowSenders"]

LOOK_SECONDS = 1.0


class Disconnected(Exception):
    """The sender is gone; nobody waits for an answer."""


class Reception:
    """A body on its way: which task reads it, and until when the next bytes have to come (loop time)."""

    __slots__ = ("deadline", "expired", "task")

    def __init__(self, task: asyncio.Task[None], deadline: float) -> None:
        self.task = task
        self.deadline = deadline
        self.expired = False


class SlowSenders:
    """Ends the requests whose body comes too slowly.

    Not one deadline: a home uplink may take minutes, as long as it moves. Who has sent n bytes has time until
    `receive_grace_seconds + n / receive_rate_bytes_min` after the start, looked at once a second.
    """

    def __init__(self) -> None:
        self._receptions: set[Reception] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def receive(self, receive: Receive, take: Callable[[bytes], None], limits: Limits) -> None:
        """Hand each chunk of a body to `take` as it comes. Raises `Disconnected`, and `backpressure` when too slow."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        grace_ends = loop.time() + limits.receive_grace_seconds
        reception = Reception(task, grace_ends)
        self._receptions.add(reception)
        if self._timer is None:
            self._timer = loop.call_later(min(LOOK_SECONDS, limits.receive_grace_seconds), self._look, loop)
        received = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                chunk: bytes = message.get("body", b"")
                take(chunk)
                if not message.get("more_body", False):
                    return
                received += len(chunk)
                reception.deadline = grace_ends + received / limits.receive_rate_bytes_min
        except asyncio.CancelledError:
            if not reception.expired or task.uncancel() > 0:
                raise
            raise refuse(
                "backpressure",
                f"the body comes slower than {limits.receive_rate_bytes_min} bytes a second; send it again",
                received=received,
            ) from None
        finally:
            self._receptions.discard(reception)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End those that are late; look again while any body is on its way."""
        now = loop.time()
        for reception in self._receptions:
            if now > reception.deadline and not reception.expired:
                reception.expired = True
                reception.task.cancel()
        self._timer = loop.call_later(LOOK_SECONDS, self._look, loop) if self._receptions else None
