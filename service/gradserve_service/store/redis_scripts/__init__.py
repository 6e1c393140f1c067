"""The scripts that Redis runs: all checks first, then the writes. No shebang line, so that Redis 6.2 runs them too."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua source and the name that Redis knows it by after SCRIPT LOAD."""

    source: bytes
    sha: bytes  # 40 hex digits


def _script(name: str) -> Script:
    source = (files(__name__) / f"{name}.lua").read_bytes()
    return Script(source, sha1(source, usedforsecurity=False).hexdigest().encode())


APPEND = _script("append")
CREATE = _script("create")
DELETE = _script("delete")
DROP_CHECKPOINT = _script("drop_checkpoint")
KEEP_CHECKPOINT = _script("keep_checkpoint")
PUBLISH = _script("publish")
PURGE = _script("purge")
PURGE_END = _script("purge_end")
TRIM = _script("trim")
SCRIPTS = (APPEND, CREATE, DELETE, DROP_CHECKPOINT, KEEP_CHECKPOINT, PUBLISH, PURGE, PURGE_END, TRIM)
