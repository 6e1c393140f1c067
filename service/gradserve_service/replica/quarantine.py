"""A run that cannot be rebuilt is set aside: refused without reading its journal, tried again ever more rarely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gradserve.problems import Refused, refuse

from ..limits import Limits


class Quarantine:
    """Counts failures in a row. After `crashes_max` of them the run rests 1 s, then 2 s, 4 s … up to a minute."""

    def __init__(self, name: str, limits: Limits, retry: Callable[[], None]) -> None:
        self._name = name
        self._limits = limits
        self._retry = retry  # look at the run again, whether or not anybody asks for it
        self._failures = 0
        self._rests = 0
        self._until = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self.reason: str | None = None  # while the run is set aside

    def failed(self, reason: str) -> bool:
        """A failure that may be of the moment. Whether the run is set aside now."""
        self._failures += 1
        if self._failures < self._limits.crashes_max:
            return False
        self.set_aside(f"it failed {self._failures} times in a row: {reason}")
        return True

    def set_aside(self, reason: str) -> None:
        """Rest, longer than the last time."""
        loop = asyncio.get_running_loop()
        seconds = min(self._limits.quarantine_seconds_min * 2.0**self._rests, self._limits.quarantine_seconds_max)
        self._failures = max(self._failures, self._limits.crashes_max)  # one more failure is enough from here on
        self._rests = min(self._rests + 1, 32)
        self._until = loop.time() + seconds
        self.reason = reason
        self.cancel()
        self._timer = loop.call_later(seconds, self._retry)

    def check(self) -> None:
        """Raises the refusal while the run rests."""
        if asyncio.get_running_loop().time() < self._until:
            raise self.refusal()

    def refusal(self) -> Refused:
        """Why, and when the next attempt is."""
        seconds = max(0.0, self._until - asyncio.get_running_loop().time())
        return refuse(
            "quarantined",
            f"run '{self._name}' is set aside, {self.reason}; it is tried again in {seconds:.0f} s",
            retry_after_seconds=max(1, round(seconds)),
        )

    def recovered(self) -> None:
        """It works."""
        if self._failures:
            self._failures = self._rests = 0
            self._until, self.reason = float("-inf"), None
            self.cancel()

    def cancel(self) -> None:
        """No more attempts by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
