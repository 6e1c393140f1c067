"""A Redis that loses acknowledged writes when it is killed: by a slow disk, or because its file lost its end."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from real_redis import RealRedis

SOURCE = Path(__file__).with_name("slow_fsync.c")
END_OF_TRANSACTION = b"*1\r\n$4\r\nEXEC\r\n"
FSYNC_MILLISECONDS = 3_000  # longer than the 2 s that Redis holds a write back


def on_a_slow_disk(redis: RealRedis) -> None:
    """Let every fsync of this Redis take seconds, from its next start. Raises RuntimeError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise RuntimeError("no C compiler for tests/faults/slow_fsync.c: type 'sudo apt-get install -y gcc libc6-dev'")
    library = redis.directory / "slow_fsync.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    preloaded: Mapping[str, str] = {"LD_PRELOAD": str(library), "SLOW_FSYNC_MILLISECONDS": str(FSYNC_MILLISECONDS)}
    redis.environment = {**os.environ, **preloaded}


def cut_the_end(redis: RealRedis, chance: random.Random, bytes_max: int) -> int:
    """Take some whole transactions off the end of a dead Redis' append-only file; answers how many bytes.

    Never a part of one: Redis 7.0 starts on a torn transaction and appends what comes next *into* it, so that its next
    start but one runs the torn half as well. It then holds what it had lost in the place of what it had acknowledged.
    The chain tells, where it is read; no server can undo it.
    """
    parts = sorted((redis.directory / "appendonlydir").glob("*.incr.aof"))
    file = parts[-1] if parts else redis.directory / "appendonly.aof"  # Redis 6 has one file
    kept = file.read_bytes()
    end = max(0, len(kept) - chance.randint(1, bytes_max))
    end = kept.rfind(END_OF_TRANSACTION, 0, end) + len(END_OF_TRANSACTION)
    assert end >= len(END_OF_TRANSACTION), "nothing would be left of the file"
    os.truncate(file, end)
    return len(kept) - end
