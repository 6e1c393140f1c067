"""The page that Prometheus reads."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from gradserve_service.replica import Replicas
from gradserve_service.store import StoreUnavailable, StoreUnfit

from ..metrics import Holdings, Metrics

__all__ = ["router"]

STORE_SECONDS_MAX = 2.0  # a scrape must come back before Prometheus gives it up

router = APIRouter(tags=["server"])


@router.get(
    "/metrics", summary="Metrics for Prometheus", operation_id="get_metrics", response_class=Response,
    responses={200: {"description": "The text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def get_metrics(request: Request) -> Response:
    """Counters, clocks and holdings of this server, in Prometheus' text format or OpenMetrics."""
    state = request.app.state
    metrics: Metrics = state.metrics
    metrics.store_up(await _store_answers(state.replicas))
    holdings = CollectorRegistry(auto_describe=False)
    holdings.register(Holdings(state.replicas, state.waits))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    # Two registries, one page: what is held is read on the event loop, where nothing changes meanwhile.
    held, counted = encode(holdings), await asyncio.to_thread(encode, metrics.registry)
    return Response(held.removesuffix(b"# EOF\n") + counted, headers={"content-type": content_type})


async def _store_answers(replicas: Replicas) -> bool:
    try:
        async with asyncio.timeout(STORE_SECONDS_MAX):
            await replicas.store.check()
    except (StoreUnavailable, StoreUnfit, TimeoutError):
        return False
    return True
