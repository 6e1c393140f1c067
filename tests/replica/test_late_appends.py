"""Appends whose reply was lost, and which the store runs all the same, later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradserve_service.store.protocols import StoreUnavailable
from gradserve_service.store.records import Appended, AppendResult, Head, Record
from replica.runs import a_run, push, server, whole_state

OBJECTS = {"inline_payload_bytes_max": 512}  # payloads of 400 parameters are objects of their own
SIZE = 400


async def test_the_payload_of_an_append_that_ran_late_stays(store_url: str) -> None:
    """It landed while it was sent again: the push finds itself in the journal, and the object that it brought is the
    journal's, not its own to discard."""
    async with server(store_url, **OBJECTS) as replicas:
        run = await a_run(replicas, SIZE)
        await push(run, 1, size=SIZE)
        append = replicas.store.append
        late: list[Any] = []
        ran: list[AppendResult] = []
        held: Any = replicas._open["run"][1]
        now = held.now

        async def losing(uid: str, expected: Head, records: Sequence[Record]) -> AppendResult:
            if not late:
                late.append((uid, expected, list(records)))
                held.now = lambda: now() + 1  # the same entry of the same millisecond would simply be on top
                raise StoreUnavailable("the reply was lost")
            if not ran:
                ran.append(await append(*late[0]))
            return await append(uid, expected, records)

        store: Any = replicas.store
        store.append = losing
        assert (await push(run, 2, size=SIZE)).outcome["version"] == 2
        assert isinstance(ran[0], Appended)
        before = await whole_state(run)
    async with server(store_url, **OBJECTS) as replicas:
        assert await whole_state(await replicas.open("run")) == before
