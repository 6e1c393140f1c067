"""Programs of a test, found by a mark in their environment: the proof that none is left behind."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

MARK = "TEST_MARK"


class Marked:
    """A command whose environment carries a mark; its children inherit it."""

    def __init__(self, *words: str, cwd: Path) -> None:
        self.mark = secrets.token_hex(16)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, MARK: self.mark},
        )

    def wait_for_line(self, words: str) -> None:
        """Read its stdout until a line has these words; an end before it fails the test with what it wrote."""
        for line in self.popen.stdout:
            if words in line:
                return
        raise AssertionError(f"it ended before saying {words!r}:\n{self.popen.stderr.read()}")

    def others(self) -> dict[int, str]:
        """Living programs that it started: number and command line."""
        found = {}
        for place in Path("/proc").iterdir():
            if place.name.isdecimal() and int(place.name) != self.popen.pid:
                with suppress(OSError):
                    if f"{MARK}={self.mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                        words = (place / "cmdline").read_bytes().decode().replace("\0", " ")
                        found[int(place.name)] = words
        return found
