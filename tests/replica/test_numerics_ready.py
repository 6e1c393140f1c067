"""A server whose arithmetic is off is not ready."""

from __future__ import annotations

from gradserve_service.core import numerics
from gradserve_service.replica import Replicas
from gradserve_service.store import open_store


async def test_a_server_that_miscomputes_says_so_instead_of_being_ready(tmp_path, monkeypatch):
    monkeypatch.setitem(numerics.GOLDEN, "sgd", "0" * 16)
    replicas = Replicas(open_store(f"sqlite:///{tmp_path / 'store.db'}", "journal"), durability="journal")
    await replicas.start()
    try:
        assert any("sgd" in reason for reason in await replicas.ready())
    finally:
        await replicas.close()
