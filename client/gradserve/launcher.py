"""Which worker this process is, as its launcher says it.

The rank decides who brings the first weights; with it, the worker's name is the same in its next life, so that it finds
its cursor again. The order of precedence:

    name  the argument of `run.worker(name)` · `worker-<rank>` · `<host>-<process id>`
    rank  $RANK (torchrun, mpirun's wrappers) · $JOB_COMPLETION_INDEX (a Kubernetes Job with completionMode: Indexed)
          · none, which counts as rank 0
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Container

from .errors import Misuse

RANK_VARIABLES = ("RANK", "JOB_COMPLETION_INDEX")  # first match wins
WORLD_SIZE_VARIABLE = "WORLD_SIZE"


def worker_rank() -> int | None:
    """`$RANK` or `$JOB_COMPLETION_INDEX`; None when no launcher says. Raises `Misuse`, also for a rank ≥ the world."""
    for name in RANK_VARIABLES:
        rank = _number(name)
        if rank is not None:
            world = world_size()
            if world is not None and rank >= world:
                raise Misuse(f"${name}: expected a rank below ${WORLD_SIZE_VARIABLE} = {world}, came {rank}")
            return rank
    return None


def world_size() -> int | None:
    """`$WORLD_SIZE`; None when no launcher says. Raises `Misuse`."""
    return _number(WORLD_SIZE_VARIABLE)


def worker_name(rank: int | None, taken: Container[str] = ()) -> str:
    """The name of a worker that was given none; a second one of this process, beside the first, gets a number."""
    if rank is not None:
        return f"worker-{rank}"
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())[:80].strip("-") or "worker"
    name = first = f"{host}-{os.getpid()}"
    more = 1
    while name in taken:
        more += 1
        name = f"{first}-{more}"
    return name


def worker_metadata(rank: int | None) -> dict[str, str]:
    """What the roster shows of this process."""
    metadata = {"host": socket.gethostname(), "pid": str(os.getpid())}
    world = world_size()
    if rank is not None:
        metadata["rank"] = str(rank)
    if world is not None:
        metadata["world_size"] = str(world)
    return metadata


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise Misuse(f"${name}: expected a number 0, 1, 2, …, came {text[:80]!r}")
    return int(text)
