"""Several servers on one store: which of them a request goes to. No I/O; time comes from outside.

Any server can take any request, for all of them replay the same journal. Each run has a *home* all the same, so that
its weights lie ready in one server's memory: the first in an order that every client finds by itself from the run's
name and the URLs. Who does not answer is passed over for a while, then asked first again.

Source: Thaler & Ravishankar 1998, "Using name-based mappings to increase hit rates" (highest random weight).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

AWAY_SECONDS = 5.0  # how long a server that failed is asked last; doubles while it goes on failing
AWAY_SECONDS_MAX = 80.0


@dataclass(slots=True)
class _Absence:
    """A server that failed lately."""

    until: float
    seconds: float


class Servers:
    """The servers of a client, by their number in `urls`.

    clock  seconds, monotonic
    """

    def __init__(self, urls: Sequence[str], clock: Callable[[], float]) -> None:
        self.urls = tuple(urls)
        self._clock = clock
        self._absent: dict[int, _Absence] = {}

    def order(self, path: str) -> tuple[int, ...]:
        """Whom to ask for this path, first to last: the run's home and its successors, those that failed lately last.

        >>> Servers(["http://a", "http://b"], lambda: 0.0).order("/v1/runs/digits")
        (1, 0)
        """
        if len(self.urls) == 1:
            return (0,)
        name = run_of(path)
        order = sorted(range(len(self.urls)), key=lambda server: -_weight(name, self.urls[server]))
        now = self._clock()
        away = {server: absence.until for server, absence in self._absent.items() if absence.until > now}
        return tuple(sorted(order, key=lambda server: away.get(server, 0.0)))  # a stable sort keeps the rest

    def failed(self, server: int) -> None:
        """It did not answer, or said that it cannot now."""
        before = self._absent.get(server)
        now = self._clock()
        if before is not None and before.until > now:
            return
        seconds = min(AWAY_SECONDS_MAX, 2 * before.seconds) if before is not None else AWAY_SECONDS
        self._absent[server] = _Absence(now + seconds, seconds)

    def answered(self, server: int) -> None:
        """It is there."""
        self._absent.pop(server, None)


def _weight(name: str, url: str) -> int:
    return xxh3_64_intdigest(f"{name}\n{url.rstrip('/')}".encode())


def run_of(path: str) -> str:
    """The run that a path is about; "" for one about the server.

    >>> run_of("/v1/runs/digits/weights?dtype=float16")
    'digits'
    """
    parts = path.partition("?")[0].split("/")
    return parts[3] if len(parts) > 3 and parts[2] == "runs" else ""
