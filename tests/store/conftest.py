"""A store of each kind, open and empty."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gradserve_service.store import Store, open_store
from store.chains import Chain


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """Both kinds, one after the other."""
    store = open_store(store_url, "memory")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def chain(store: Store) -> Chain:
    """A run named digits, with no entry yet."""
    return await Chain.create(store)
