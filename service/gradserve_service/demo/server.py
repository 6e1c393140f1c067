"""The demo's server: `gradserve serve` as a child program, on a port that it chooses."""

from __future__ import annotations

import json
import os
import selectors
import time
from dataclasses import dataclass
from http.client import HTTPConnection

from .crew import DemoFailed, ended
from .programs import Program, Programs

__all__ = ["Server", "start_server"]

START_SECONDS_MAX = 60.0
STORE_SECONDS_MAX = 5.0  # a server waits for its store as long as it takes; a demo says that there is none


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    program: Program
    url: str
    durability: str


def start_server(programs: Programs, store: str, durability: str) -> Server:
    """Start it, wait for the line in which it says where it listens, and for its store. Raises `DemoFailed`."""
    words = ("serve", "--json", "--port", "0", "--store", store, "--durability", durability, "--log-level", "warning")
    program = programs.start("server", "gradserve_service", *words)
    line = json.loads(_first_line(program))
    _wait_for_store(str(line["host"]), int(line["port"]))
    return Server(program, str(line["url"]), str(line["durability"]))


def _first_line(program: Program) -> bytes:
    deadline = time.monotonic() + START_SECONDS_MAX
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ)
        while b"\n" not in text:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise DemoFailed(f"the server did not start in {START_SECONDS_MAX:.0f} s:\n{program.last_words()}")
            chunk = os.read(program.stdout.fileno(), 1 << 12)
            if not chunk:
                raise ended(program)
            text += chunk
    return text.split(b"\n", 1)[0]


def _wait_for_store(host: str, port: int) -> None:
    deadline = time.monotonic() + STORE_SECONDS_MAX
    while True:
        connection = HTTPConnection(host, port, timeout=START_SECONDS_MAX)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            document = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status == 200:
            return
        if time.monotonic() > deadline:
            raise DemoFailed(str(document["detail"]))
        time.sleep(0.2)
