"""The optimizer's slots, for export and for the curious."""

from __future__ import annotations

from starlette.types import Send

from gradserve.wire import MEDIA_TYPE, MEDIA_TYPES

from ..answers import VARY, Selection, send_tensors
from ..hot import hot_route, open_run
from ..media import answer_type
from ..parameters import Incoming

__all__ = ["OPTIMIZER_STATE_PATH", "routes"]

OPTIMIZER_STATE_PATH = "/v1/runs/{run}/optimizer-state"


async def get_optimizer_state(incoming: Incoming, send: Send) -> None:
    """GET: every slot by tensor, `<slot>/<tensor>`, as safetensors; the step and the version are in its metadata."""
    media_type = answer_type(incoming.header(b"accept"), MEDIA_TYPE, MEDIA_TYPES)
    incoming.query()
    run = await open_run(incoming)
    layout, vector, metadata = await run.optimizer_state()
    await send_tensors(
        send,
        Selection(layout, (vector,), metadata=metadata),
        media_type=media_type,
        headers=[(b"etag", metadata["etag"].encode()), (b"gradserve-head", metadata["head"].encode()), VARY],
        head_only=incoming.scope["method"] == "HEAD",
    )


routes = [hot_route(OPTIMIZER_STATE_PATH, GET=get_optimizer_state)]
