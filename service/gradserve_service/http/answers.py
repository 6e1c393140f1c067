"""Answers of the hot routes: JSON, and weights straight from the published buffer.

Weights leave as pieces of 1 MiB of the buffer that is published (measured 4-4.9 GB/s on both loops; one large body
0.6-1.1): nothing is copied, and a slow reader holds no more than the buffer it reads. Another dtype is converted piece
by piece on the way, so that no answer needs a second copy of the weights or keeps the event loop for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.types import Send

from gradserve.problems import refuse
from gradserve.wire import Layout, narrow, tensors_to_json
from gradserve_service.core.repeats import Made
from gradserve_service.replica.published import Published

from .json_text import encode_json
from .media import JSON
from .ranges import cut

__all__ = ["VARY", "Headers", "Selection", "send_bytes", "send_empty", "send_json", "send_tensors", "weights_headers"]

PIECE_BYTES = 1 << 20
JOINED_BYTES_MAX = 64 << 10  # up to here one write of a copy is cheaper than two without
_ELEMENTS_A_PIECE = PIECE_BYTES // 4
_CONVERTED_ELEMENTS_A_PIECE = 1 << 16  # 0.1-0.2 ms of the event loop; 256 k leave the cache and take 2 ms
VARY = (b"vary", b"Accept")

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Selection:
    """Tensors to send: spans of a float32 vector in the order of `layout`, in `dtype`."""

    layout: Layout  # of what is sent
    spans: tuple[NDArray[np.float32], ...]
    dtype: str = "float32"
    metadata: Mapping[str, str] | None = None

    @classmethod
    def of(cls, layout: Layout, vector: NDArray[np.float32], *, dtype: str, names: Sequence[str] | None) -> Selection:
        """All of a vector, or the tensors of these names. Raises `unknown-tensor`."""
        if names is None:
            return cls(layout, (vector,), dtype)
        chosen = layout.subset(names)
        return cls(chosen, tuple(vector[layout.span(name)] for name in chosen.names), dtype)

    @classmethod
    def of_rows(
        cls, layout: Layout, vector: NDArray[np.float32], *, dtype: str, name: str, rows: Sequence[int]
    ) -> Selection:
        """Some rows of one tensor, in the order asked for: a copy. Raises `unknown-tensor`, `validation-error`."""
        shape = layout.shape(name)
        if not shape:
            raise refuse("validation-error", f"rows: tensor {name!r} is a scalar, it has none: leave rows out")
        if (largest := max(rows, default=0)) >= shape[0] and rows:
            detail = f"rows: tensor {name!r} has {shape[0]}, expected ids below {shape[0]}; came {largest}"
            raise refuse("validation-error", detail, tensor=name)
        some = vector[layout.span(name)].reshape(shape)[np.array(rows, np.int64)]
        return cls(Layout.of({name: some.shape}), (some.reshape(-1),), dtype)

    @property
    def header(self) -> bytes:
        """The safetensors header in front of the data; the layout keeps it."""
        return self.layout.header(self.dtype, self.metadata)

    @property
    def body_bytes(self) -> int:
        """Size of the whole body."""
        return len(self.header) + self.layout.parameters * (4 if self.dtype == "float32" else 2)

    def body(self) -> Iterator[bytes | memoryview]:
        """The header, then the data a piece at a time."""
        yield self.header
        elements = _ELEMENTS_A_PIECE if self.dtype == "float32" else _CONVERTED_ELEMENTS_A_PIECE
        for span in self.spans:
            for start in range(0, span.size, elements):
                yield memoryview(narrow(span[start : start + elements], self.dtype).data).cast("B")

    def to_json(self) -> dict[str, Any]:
        """Nested lists by name. Raises `json-too-large`."""
        vector = self.spans[0] if len(self.spans) == 1 else np.concatenate(self.spans or (np.empty(0, np.float32),))
        return tensors_to_json(self.layout, vector)


def weights_headers(published: Published | Made) -> Headers:
    """What tells these weights from all others: their ETag, and the head of the chain they stand on."""
    return [(b"etag", published.etag.encode()), (b"gradserve-head", published.head.encode()), VARY]


async def send_json(
    send: Send, document: Any, *, status: int = 200, headers: Headers | None = None, head_only: bool = False
) -> None:
    """One JSON answer; only its headers to a HEAD request."""
    body = encode_json(document)
    head = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body)), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": b"" if head_only else body})


async def send_empty(send: Send, *, status: int, headers: Headers) -> None:
    """An answer without a body (204, 304)."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def send_bytes(
    send: Send, content: memoryview, *, media_type: str, headers: Headers, head_only: bool = False
) -> None:
    """A file that lies in memory, in pieces."""
    head = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(content)), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for start in range(0, 0 if head_only else len(content), PIECE_BYTES):
        await send({"type": "http.response.body", "body": content[start : start + PIECE_BYTES], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def send_tensors(
    send: Send,
    selection: Selection,
    *,
    media_type: str,
    headers: Headers,
    part: tuple[int, int] | None = None,
    head_only: bool = False,
) -> None:
    """One safetensors answer, in pieces. `part` sends only these bytes of it (206); `head_only` answers a HEAD
    request: the headers, with the true length."""
    length = selection.body_bytes
    start, stop = part or (0, length)
    head = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % (stop - start)), *headers]
    if part is not None:
        head.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, length)))
    await send({"type": "http.response.start", "status": 200 if part is None else 206, "headers": head})
    if head_only:
        await send({"type": "http.response.body", "body": b""})
        return
    if length <= JOINED_BYTES_MAX:
        await send({"type": "http.response.body", "body": b"".join(selection.body())[start:stop]})
        return
    for piece in cut(selection.body(), start, stop):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        if selection.dtype != "float32":
            await asyncio.sleep(0)  # converting is work: others get their turn between pieces
    await send({"type": "http.response.body", "body": b""})
