"""Answers that are longer than one piece: sent piece by piece, and left when the reader or the server goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from typing import Any

from starlette.types import Receive, Send

from .answers import Headers

__all__ = ["send_pieces", "until_gone"]


async def send_pieces(send: Send, pieces: AsyncIterable[bytes], *, media_type: str, headers: Headers) -> None:
    """A 200 answer of unknown length. The next piece is asked for when the one before is on its way."""
    head = [(b"content-type", media_type.encode()), *headers]
    started = False
    async for piece in pieces:  # what the first piece refuses is still answered as a problem
        if not started:
            await send({"type": "http.response.start", "status": 200, "headers": head})
            started = True
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if not started:
        await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": b""})


async def until_gone(receive: Receive, stream: Coroutine[Any, Any, None]) -> None:
    """Run the stream to its end, or until the reader hangs up: writing to nobody does not fail by itself."""
    tasks = [asyncio.create_task(_hung_up(receive)), asyncio.create_task(stream)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[1].done():
            await tasks[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hung_up(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
