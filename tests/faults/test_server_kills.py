"""kill -9 of the server under eight pushing workers, again and again: nothing is lost, nothing counts twice."""

from __future__ import annotations

from faults.siege import Siege, besiege

KILLS = 20
KILLS_WITH_SNAPSHOTS = 8  # each of these restores from a snapshot, and most hit one being written


def require_kept(findings, *, trimmed=False):
    """Every promise was kept, and enough happened for that to mean something."""
    assert findings.complaints == []
    assert (findings.lost, findings.doubled, findings.rewound) == (0, 0, 0)
    assert findings.version == findings.acknowledged > 50
    assert trimmed == (findings.trimmed_entries > 0)
    assert trimmed or findings.in_journal == findings.acknowledged


def test_20_kills_lose_nothing_and_double_nothing(store_url, tmp_path):
    """Each acknowledged push is in the journal exactly once, and what is served is bit for bit its replay."""
    require_kept(besiege(Siege(store_url, tmp_path, seed=1), KILLS))


def test_kills_with_large_payloads_and_trimmed_journals(store_url, tmp_path):
    """Payloads as objects, threaded updates, a snapshot every few pushes: kills hit all of it. The journal's beginning
    is gone by then; the replay is made from what the workers were told."""
    siege = Siege(store_url, tmp_path, seed=2, parameters=70_000)
    findings = besiege(siege, KILLS_WITH_SNAPSHOTS, module="faults.small_snapshots", trimmed=True)
    require_kept(findings, trimmed=True)


def test_kills_with_snapshots_beside_a_whole_journal(store_url, tmp_path):
    """What a server restores from a snapshot is bit for bit the journal's replay from its first entry."""
    siege = Siege(store_url, tmp_path, seed=3, parameters=20_000)
    require_kept(besiege(siege, KILLS_WITH_SNAPSHOTS, module="faults.small_snapshots", settings={"retain": "all"}))
