"""SIGTERM under load: the server leaves in order and nobody notices."""

from __future__ import annotations

from faults.siege import Siege
from faults.test_server_kills import require_kept


def test_sigterm_under_load_loses_nothing_and_shows_nothing(store_url, tmp_path):
    """Exit code 0; the workers' SDK carries them over; whatever was acknowledged is there after the restart."""
    siege = Siege(store_url, tmp_path, seed=4)
    with siege.under_load(settings={"retain": "all"}) as (server, crew):
        for _ in range(3):
            crew.everybody(3)
            assert server.terminate() == 0, server.log.end()
            server.start()
        crew.everybody(3)
        siege.last_life(server, crew)
        outcomes = {push["outcome"] for push in crew.outcomes()}
    assert outcomes <= {"applied", "duplicate"}
    require_kept(siege.audit())
