"""Which worker this process is, as its launcher says it."""

from __future__ import annotations

import os

# First match wins: torchrun (and mpirun's wrappers) set RANK, a Kubernetes Job with completionMode: Indexed the other.
RANK_VARIABLES = ("RANK", "JOB_COMPLETION_INDEX")


def worker_rank() -> int | None:
    """`$RANK` (torchrun) or `$JOB_COMPLETION_INDEX` (Kubernetes); None when no launcher says. Raises `ValueError`."""
    for name in RANK_VARIABLES:
        text = os.environ.get(name, "")
        if text.isdecimal():
            return int(text)
        if text:
            raise ValueError(f"${name}: expected a rank 0, 1, 2, …, came {text!r}")
    return None
