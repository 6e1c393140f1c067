"""The bytes of request bodies that a server holds at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gradserve.problems import refuse


class Budget:
    """Counts held bytes against a limit. One body is always let in: a limit below a run's size would starve it."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.held_bytes = 0

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count `size` bytes while the block runs; refused with `backpressure` when that is too much."""
        if self.held_bytes and self.held_bytes + size > self._bytes_max:
            raise refuse(
                "backpressure",
                f"the server holds {self.held_bytes} bytes of request bodies and takes at most {self._bytes_max}: "
                "send the same again later",
                limit=self._bytes_max,
            )
        self.held_bytes += size
        try:
            yield
        finally:
            self.held_bytes -= size
