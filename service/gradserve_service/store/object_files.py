"""Objects as files beside an SQLite database: written, synced, renamed, and only then named by an entry."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from xxhash import xxh3_128

from .buffers import aligned_buffer
from .protocols import StoreDamaged, StoreFull, StoreUnavailable
from .records import ObjectRef

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")  # uids and ids: never a path
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: the limit of `ulimit -f`
DIGEST_PIECE_BYTES = 1 << 20  # of a file read only to be checked
PIECES_MAX = 64  # buffers in one writev; Linux takes 1,024


class ObjectFiles:
    """`<database>-objects/<uid>/<id>`. Blocking calls: run them in a thread."""

    def __init__(self, root: Path, *, sync: bool) -> None:
        self.root = root
        self._sync = sync

    def put(self, uid: str, pieces: Sequence[bytes | memoryview]) -> ObjectRef:
        """Raises StoreFull (nothing is left behind) and StoreUnavailable."""
        views = [memoryview(piece).cast("B") for piece in pieces]
        ref = ObjectRef(secrets.token_hex(16), sum(view.nbytes for view in views))
        final = self._path(uid, ref.id)
        partial = final.with_name(f"{ref.id}.partial")
        try:
            if not final.parent.is_dir():
                final.parent.mkdir(parents=True, exist_ok=True)
                self._sync_directory(self.root)
                self._sync_directory(self.root.parent)
            self._write(partial, views)
            partial.rename(final)
            self._sync_directory(final.parent)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise trouble(error) from error
        return ref

    def get(self, uid: str, ref: ObjectRef) -> memoryview:
        """Raises KeyError when it is not there in full."""
        try:
            with open(self._path(uid, ref.id), "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size != ref.size:
                    raise KeyError(ref.id)
                buffer = aligned_buffer(ref.size)
                filled = 0
                while filled < ref.size:
                    count = file.readinto(buffer[filled:])
                    if not count:
                        raise KeyError(ref.id)
                    filled += count
        except FileNotFoundError:
            raise KeyError(ref.id) from None
        except OSError as error:
            raise trouble(error) from error
        return buffer.toreadonly()

    def digest(self, uid: str, ref: ObjectRef) -> str:
        """xxh3-128 of its bytes, hex. Raises KeyError when it is not there in full."""
        if not self.complete(uid, ref):
            raise KeyError(ref.id)
        digest = xxh3_128()
        try:
            with open(self._path(uid, ref.id), "rb", buffering=0) as file:
                while piece := file.read(DIGEST_PIECE_BYTES):
                    digest.update(piece)
        except FileNotFoundError:
            raise KeyError(ref.id) from None
        except OSError as error:
            raise trouble(error) from error
        return digest.hexdigest()

    def complete(self, uid: str, ref: ObjectRef) -> bool:
        """It is there, and as long as it should be."""
        try:
            return self._path(uid, ref.id).stat().st_size == ref.size
        except FileNotFoundError:
            return False

    def discard(self, uid: str, ids: Iterable[str]) -> None:
        """Remove the files; those that are gone already are no error."""
        for identity in ids:
            with contextlib.suppress(StoreDamaged):  # the name of no file
                self._path(uid, identity).unlink(missing_ok=True)

    def discard_run(self, uid: str) -> None:
        """Remove all objects of a run."""
        shutil.rmtree(self._path(uid, "x").parent, ignore_errors=True)

    def sweep(self, named: Callable[[str], set[str] | None]) -> int:
        """Remove every file that nothing names; `named(uid)` answers the ids, None for a run that is not there."""
        removed = 0
        for directory in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            ids = named(directory.name)
            if ids is None:
                shutil.rmtree(directory, ignore_errors=True)
                removed += 1
                continue
            for file in directory.iterdir():
                if file.name not in ids:
                    file.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _path(self, uid: str, identity: str) -> Path:
        for name in (uid, identity):
            if not _NAME.fullmatch(name):
                raise StoreDamaged(f"not the name of a run or an object: {name!r}")
        return self.root / uid / identity

    def _write(self, path: Path, views: list[memoryview]) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            waiting = [view for view in views if view.nbytes]
            while waiting:
                written = os.writev(descriptor, waiting[:PIECES_MAX])
                while waiting and written >= waiting[0].nbytes:
                    written -= waiting.pop(0).nbytes
                if written:
                    waiting[0] = waiting[0][written:]
            if self._sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _sync_directory(self, path: Path) -> None:
        """A rename is only as lasting as the directory that holds it."""
        if self._sync:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def trouble(error: OSError) -> StoreFull | StoreUnavailable:
    """What an error of the file system means for the caller."""
    if error.errno in _FULL:
        return StoreFull(f"the disk of the store is full: {error.strerror}")
    return StoreUnavailable(f"the disk of the store fails: {error}")
