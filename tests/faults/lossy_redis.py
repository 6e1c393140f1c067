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
    """Take some bytes off the end of a dead Redis' append-only file; answers how many. It starts all the same, without
    the commands that are no longer whole."""
    files = sorted((redis.directory / "appendonlydir").glob("*.incr.aof"))
    size = files[-1].stat().st_size
    cut = min(chance.randint(1, bytes_max), size)
    os.truncate(files[-1], size - cut)
    return cut
