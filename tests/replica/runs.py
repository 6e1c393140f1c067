"""What replica tests share: a server in memory on a real store, and small gradients."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from gradserve.problems import Refused
from gradserve.specs import PushFields, RunSpec
from gradserve.wire import Frame, Layout, decode_frame, encode_frame
from gradserve_service.limits import Limits
from gradserve_service.replica import PushAnswer, Replica, Replicas
from gradserve_service.store import open_store

ADAM = RunSpec.model_validate({"optimizer": {"name": "adam", "lr": 0.1}})


@contextlib.asynccontextmanager
async def server(store_url: str, *, clock_ahead_seconds: float = 0.0, **limits: Any) -> AsyncIterator[Replicas]:
    """A server's floor 4 on the store; it is dropped at the end as if killed: no drain, no snapshot.

    Two servers that decide the same push in the same millisecond write the same entry, and both may say `applied`;
    clocks that differ make such a test speak of two entries.
    """
    store = open_store(store_url, "memory")
    replicas = Replicas(store, limits=Limits(**limits), clock=lambda: time.time() + clock_ahead_seconds)
    await replicas.start()
    try:
        yield replicas
    finally:
        await replicas.close()


async def a_run(replicas: Replicas, size: int = 4, spec: RunSpec = ADAM, name: str = "run") -> Replica:
    """A run whose weights are 0, 1, 2, …"""
    run, _ = await replicas.create_run(name, spec)
    with contextlib.suppress(Refused):
        await run.load(tensor(np.arange(size)), if_none_match="*")
    return run


def tensor(values: Any) -> Frame:
    """One tensor `w` as it comes over the wire."""
    with np.errstate(over="ignore"):
        vector = np.asarray(values).astype(np.float32)
    return decode_frame(b"".join(encode_frame(Layout.of({"w": vector.shape}), vector)))


def gradient(seed: int, size: int = 4) -> Frame:
    """A gradient that no other seed gives."""
    return tensor(np.random.default_rng(seed).standard_normal(size))


async def push(run: Replica, sequence: int, *, worker: str = "w0", size: int = 4, **fields: Any) -> PushAnswer:
    """Push number `sequence` of a worker: its gradient follows from both."""
    frame = gradient(1_000 * sum(worker.encode()) + sequence, size)
    return await run.push(worker, sequence, frame, PushFields(**fields))


async def whole_state(run: Replica) -> tuple[bytes, bytes, str]:
    """Weights, slots and head: equal bytes are an equal state."""
    weights = await run.weights()
    assert weights is not None
    _, slots, metadata = await run.optimizer_state()
    return weights.weights.tobytes(), slots.tobytes(), metadata["head"]


async def refusal(awaitable: Any) -> str:
    """The code that a call is refused with."""
    try:
        await awaitable
    except Refused as refused:
        return refused.rejection.code
    raise AssertionError("expected a refusal")
