"""`gradserve replay`: build a run again from its newest image and its journal, in this process, and say what came out.

With `--url` the result is compared with a running server: servers at the same head hold the same bits, or something
is wrong with one of the two machines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from xxhash import xxh3_128

from gradserve.wire import Buffers
from gradserve_service.limits import Limits
from gradserve_service.replica.recovery import State, Workshop, catch_up, restore
from gradserve_service.replica.threads import Threads
from gradserve_service.store import Store

from .asking import PATIENCE_SECONDS, Token, connected
from .inspecting import opened_to_read
from .printing import (
    FAILED,
    AsJson,
    RunName,
    StoreUrl,
    complaints_as_lines,
    fail,
    print_facts,
    print_json,
    store_url,
)  # fmt: skip

__all__ = ["replay", "state_digests"]

LOOKS_MAX = 20  # at a server whose run moves on meanwhile


def replay(
    run: RunName,
    store: StoreUrl = None,
    url: Annotated[
        str | None, typer.Option(help="Compare with the server there: the same head must have the same digests.")
    ] = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild a run from its newest image and the journal, and print position, head and digests of the state.

    Exit code 1 when the store's bytes cannot be verified, or when a server at the same head holds other bits.
    """
    with complaints_as_lines():
        found = asyncio.run(_replay(store_url(store), run, url, token))
    if as_json:
        print_json(found)
    else:
        print_facts({name: value for name, value in found.items() if name != "digests"})
        print_facts(found["digests"])
    if found.get("equal") is False:
        fail(f"the server at {url} is at the same head and holds other bits: see docs/operations.md", FAILED)


async def _replay(place: str, name: str, url: str | None, token: str | None) -> dict[str, Any]:
    limits = Limits()
    threads = Threads()
    shop = Workshop(threads, Buffers(spare=4), limits.inline_parameters_max)
    try:
        async with opened_to_read(place) as store:
            record = await store.find(name)
            if record is None or record.deleted:
                fail(f"there is no run '{name}' in {store.url}", FAILED)
            state = await restore(store, record, shop, limits.catch_up_entries)
            if url is None:
                return _described(name, state)
            theirs = await _same_place(store, state, shop, name, url, token)
            ours = state_digests(state)
            return {**_described(name, state), "url": url, "equal": ours == theirs}
    finally:
        threads.close()


def _described(name: str, state: State) -> dict[str, Any]:
    control = state.control
    return {
        "name": name,
        "uid": control.uid,
        "position": control.position,
        "head": control.head.hex(),
        "version": control.shown_version,
        "step": control.step,
        "image_at": state.restored_from,
        "replayed": control.position - state.restored_from,
        "digests": state_digests(state),
    }


async def _same_place(
    store: Store, state: State, shop: Workshop, name: str, url: str, token: str | None
) -> dict[str, str]:
    """The server's digests at the head that `state` is brought to. A run that moves on is looked at again."""
    for _ in range(LOOKS_MAX):
        head, theirs = await asyncio.to_thread(_look, name, url, token)
        await catch_up(store, state, shop, Limits().catch_up_entries, await store.head(state.control.uid))
        if head == state.control.head.hex():
            return theirs
    fail(f"run '{name}' moves on faster than it can be compared: pause it first", FAILED)


def _look(name: str, url: str, token: str | None) -> tuple[str, dict[str, str]]:
    """Head and digests of a server's run; the head is "" when the run moved between the questions."""
    with connected(url, token, PATIENCE_SECONDS) as client:
        run = client.run(name)
        head = run.description["head"]
        if not run.description["initialised"]:
            return head, {}
        weights, slots = run.pull(), run.optimizer_state()
        theirs = {"weights": tensors_digest(weights), **slot_digests(slots)}
        return (head if run.describe()["head"] == head else ""), theirs


def state_digests(state: State) -> dict[str, str]:
    """xxh3-128 of the weights and of each slot, tensors end to end in name order."""
    arrays = state.arrays
    if arrays.layout is None or arrays.weights is None:
        return {}
    slots = {
        slot: tensors_digest(arrays.slot_layout(slot).views(buffer)) for slot, buffer in sorted(arrays.slots.items())
    }
    return {"weights": tensors_digest(arrays.layout.views(arrays.weights)), **slots}


def slot_digests(slots: Mapping[str, NDArray[np.float32]]) -> dict[str, str]:
    """Of an answer's `<slot>/<tensor>`."""
    by_slot: dict[str, dict[str, NDArray[np.float32]]] = {}
    for path, tensor in slots.items():
        slot, _, name = path.partition("/")
        by_slot.setdefault(slot, {})[name] = tensor
    return {slot: tensors_digest(tensors) for slot, tensors in sorted(by_slot.items())}


def tensors_digest(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """xxh3-128 of tensors, end to end in name order, hex."""
    digest = xxh3_128()
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]).data.cast("B") if tensors[name].size else b"")
    return digest.hexdigest()
