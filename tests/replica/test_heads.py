"""Head reads that nobody waits for any more."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from gradserve_service.replica.heads import HeadReads
from gradserve_service.store.protocols import StoreUnavailable


async def test_a_read_may_fail_after_all_who_asked_have_hung_up() -> None:
    """The loop is not told of an error that was nobody's: it would be logged as one of the server's."""
    asked, fails = asyncio.Event(), asyncio.Event()
    told: list[dict[str, Any]] = []

    class Silent:
        async def head(self, uid: str) -> Any:
            asked.set()
            await fails.wait()
            raise StoreUnavailable("cut off")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    reads = HeadReads(Silent(), "u1")  # type: ignore[arg-type]
    asker = asyncio.create_task(reads.read())
    await asked.wait()
    asker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker
    fails.set()
    assert reads._current is not None
    await asyncio.wait([reads._current])
    del reads
    gc.collect()
    assert told == []
