"""One server owns an SQLite store. The lock is the kernel's: it is gone the moment its owner is, whatever killed it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .protocols import StoreUnfit


class LockFile:
    """An exclusive lock on a file that names its owner's process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises StoreUnfit, naming the owner, if it is held (also by another store of this process)."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 64).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreUnfit(
                f"{self.path} is held by the server with process id {owner}: "
                "stop it, talk to it over HTTP, or give this server another --store"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StoreUnfit(f"{self.path} cannot be locked ({error}): put the database on a local disk") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """The file stays: removing it would let a third server lock a file that the second no longer sees."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
