"""A real server process for a test, and a line between it and the client that can be cut."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

END_SECONDS_MAX = 60.0


class Server:
    """`gradserve serve` on a store in `place`. After `stop()` or `kill()` it can be started again on the same port."""

    def __init__(self, place: Path, *flags: str) -> None:
        self.place = place
        self._flags = flags
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> Self:
        """Start it and wait for its start-up line."""
        store = f"sqlite:///{self.place / 'store' / 'gradserve.db'}"
        where = [] if "--uds" in self._flags else ["--port", str(self._port)]
        command = [sys.executable, "-m", "gradserve_service", "serve", "--json", "--store", store, *where, *self._flags]
        environment = {name: text for name, text in os.environ.items() if not name.startswith("GRADSERVE_")}
        with (self.place / "log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise AssertionError((self.place / "log").read_text())
        address: dict[str, Any] = json.loads(line)
        self.url, self._port = address["url"], address["port"] or 0
        return self

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: whatever was not on disk is gone."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        code = process.wait(END_SECONDS_MAX)
        assert process.stdout is not None
        process.stdout.close()
        return code


class Line:
    """A TCP line to a server that can lose an answer: the server has done the work, the client never hears of it."""

    def __init__(self, url: str) -> None:
        self._upstream = ("127.0.0.1", int(url.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.answers_to_lose = 0
        self.lose_every = 0  # and every so many-th piece of an answer
        self._pieces = itertools.count(1)
        self.requests: list[bytes] = []  # what the client has sent, a connection each
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                self.requests.append(b"")
                threading.Thread(target=self._forth, args=(client, server, len(self.requests) - 1), daemon=True).start()
                threading.Thread(target=self._back, args=(client, server), daemon=True).start()

    def _forth(self, client: socket.socket, server: socket.socket, index: int) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                self.requests[index] += piece
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(1 << 16):
                if self.answers_to_lose:
                    self.answers_to_lose -= 1
                    break
                if self.lose_every and next(self._pieces) % self.lose_every == 0:
                    break
                client.sendall(piece)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
