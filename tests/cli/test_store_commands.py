"""`inspect` and `replay` on real stores that a real server has written."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis
from xxhash import xxh3_128_hexdigest

UPDATES = 3


PUSH = {"gradients": {"a": [1.0, -1.0], "b": [0.25]}}


@pytest.fixture
def written(serve, store_url):
    """The URL of a store in which a server has left run `r` at version 3, and an empty run `new`; and the weights."""
    return store_url, write(serve, store_url)


def write(serve: Callable[..., Any], store_url: str) -> dict[str, list[float]]:
    """Fill a store as `written` says; answers the last weights."""
    server = serve("--store", store_url, "--durability", "memory")
    with httpx.Client(base_url=server.address["url"]) as client:
        spec = {"optimizer": {"name": "adam", "lr": 0.1}}
        client.put("/v1/runs/new", json=spec).raise_for_status()
        client.put("/v1/runs/r", json={**spec, "weights": {"b": [0.5], "a": [1.0, 2.0]}}).raise_for_status()
        for sequence in range(1, UPDATES + 1):
            client.put(f"/v1/runs/r/workers/w/pushes/{sequence}", json=PUSH).raise_for_status()
        client.put("/v1/runs/r/checkpoints/best").raise_for_status()
        weights: dict[str, list[float]] = client.get(
            "/v1/runs/r/weights", headers={"Accept": "application/json"}
        ).json()["weights"]
    assert server.end() == 0
    return weights


def files(url: str) -> dict[str, bytes]:
    """What an SQLite store has on disk, apart from what every reader touches (lock, index of the WAL)."""
    if not url.startswith("sqlite"):
        return {}
    place = Path(url.removeprefix("sqlite:///"))
    return {
        str(path): path.read_bytes()
        for path in sorted(place.parent.rglob("*"))
        if path.is_file() and path.suffix not in {".lock", ".log"}
    }


def test_inspect_shows_runs_journals_and_heads_and_changes_nothing(gradserve, written):
    url, _ = written
    before = files(url)
    shown = gradserve("inspect", "--store", url, "--json")
    assert shown.returncode == 0, shown.stderr
    new, r = json.loads(shown.stdout)["runs"]
    assert (new["name"], new["position"], new["entries"], new["snapshots"]) == ("new", 0, 0, [])
    assert (r["name"], r["first"], r["position"], r["entries"]) == ("r", 1, UPDATES + 1, UPDATES + 1)
    assert len(bytes.fromhex(r["head"])) == 32
    assert r["payload_bytes"] > 0
    assert new["checkpoints"] == []
    assert [(each["name"], each["version"]) for each in r["checkpoints"]] == [("best", UPDATES)]
    assert files(url) == before


def test_inspect_verifies_everything_and_names_the_place_of_a_damage(gradserve, written):
    url, _ = written
    whole = gradserve("inspect", "--verify", "--store", url)
    assert (whole.returncode, whole.stdout.splitlines()[-1]) == (0, "everything is as it was written"), whole.stderr
    flip_a_bit_of_an_entry(url)
    damaged = gradserve("inspect", "--verify", "--store", url)
    assert damaged.returncode == 1
    assert "run 'r': entry 3 does not continue the history held here" in damaged.stdout


def flip_a_bit_of_an_entry(url: str) -> None:
    """In the header of the third entry of run `r`."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
            where = "place = (SELECT number << 40 | 3 FROM runs JOIN names USING (uid) WHERE name = 'r')"
            database.execute(f"UPDATE entries SET header = CAST(replace(header, 'push', 'pusi') AS BLOB) WHERE {where}")
        database.close()
        return
    client = Redis.from_url(url)
    (key,) = (key for key in client.scan_iter("*:journal"))
    entries = client.xrange(key)
    client.delete(key)
    for identity, fields in entries:
        header = fields[b"h"].replace(b"push", b"pusi") if identity == b"3-0" else fields[b"h"]
        client.xadd(key, {**fields, b"h": header}, id=identity)
    client.close()


def test_inspect_for_people_has_a_line_for_each_run(gradserve, written):
    url, _ = written
    lines = gradserve("inspect", "--store", url).stdout.splitlines()
    assert any(line.startswith("new ") for line in lines)
    assert any(line.startswith("r ") and "1-4" in line and line.rstrip().endswith(" best") for line in lines)


def test_inspect_prints_the_last_entries_of_a_journal(gradserve, written):
    url, _ = written
    shown = json.loads(gradserve("inspect", "r", "--entries", "2", "--store", url, "--json").stdout)
    last = shown["runs"][0]["last_entries"]
    assert [entry["kind"] for entry in last] == ["push", "push"]
    assert [entry["sequence"] for entry in last] == [UPDATES - 1, UPDATES]
    assert last[-1]["hash"] == shown["runs"][0]["head"]


def test_a_database_that_a_server_holds_is_not_read_beside_it(gradserve, serve):
    server = serve()
    refused = gradserve("inspect")
    assert refused.returncode == 1
    assert str(server.child.pid) in refused.stderr
    assert "over HTTP" in refused.stderr


def test_looking_for_a_database_does_not_make_one(gradserve, tmp_path):
    refused = gradserve("inspect", "--store", "sqlite:///nowhere/x.db")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no database" in refused.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", ["inspect", "replay"])
def test_a_run_that_is_not_there_is_one_line(gradserve, written, command):
    refused = gradserve(command, "other", "--store", written[0])
    assert refused.returncode == 1
    assert refused.stderr.startswith("gradserve: there is no run 'other'")
    assert "Traceback" not in refused.stderr


def test_replay_ends_where_the_server_was(gradserve, written):
    url, weights = written
    replayed = gradserve("replay", "r", "--store", url, "--json")
    assert replayed.returncode == 0, replayed.stderr
    found = json.loads(replayed.stdout)
    assert (found["version"], found["step"], found["position"]) == (UPDATES, UPDATES, UPDATES + 1)
    vector = np.array([*weights["a"], *weights["b"]], np.float32)
    assert found["digests"]["weights"] == xxh3_128_hexdigest(vector.tobytes())
    assert set(found["digests"]) == {"weights", "exp_avg", "exp_avg_sq"}


def test_replay_of_a_run_without_weights_has_no_digests(gradserve, written):
    found = json.loads(gradserve("replay", "new", "--store", written[0], "--json").stdout)
    assert (found["version"], found["digests"]) == (None, {})


def test_replay_equals_a_running_server_at_the_same_head(gradserve, serve, written, tmp_path):
    """On SQLite from a copy of the files, which is how a server's own store is looked at while it runs."""
    url, _ = written
    copied = url
    if url.startswith("sqlite"):
        place = Path(url.removeprefix("sqlite:///"))
        copied = f"sqlite:///{tmp_path / 'copy' / place.name}"
        (tmp_path / "copy").mkdir()
        shutil.copy(place, tmp_path / "copy" / place.name)
        shutil.copytree(f"{place}-objects", tmp_path / "copy" / f"{place.name}-objects", dirs_exist_ok=True)
    server = serve("--store", url, "--durability", "memory")
    compared = gradserve("replay", "r", "--store", copied, "--url", server.address["url"], "--json")
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)["equal"] is True


def test_replay_finds_a_server_that_holds_other_bits(gradserve, serve, redis_url, tmp_path):
    """A server whose arithmetic is off by a hair at one update is at the same head with other digests."""
    write(serve, redis_url)
    (tmp_path / "sitecustomize.py").write_text(
        "from gradserve_service.core import arrays\n"
        "straight = arrays.update\n"
        "def bent(held, entry, *rest, **named):\n"
        "    straight(held, entry, *rest, **named)\n"
        f"    if entry.position == {UPDATES + 2}:\n"
        "        held.weights[0] *= 1.0000002\n"
        "arrays.update = bent\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    server = serve("--store", redis_url, "--durability", "memory", PYTHONPATH=path)
    url = server.address["url"]
    httpx.put(f"{url}/v1/runs/r/workers/w/pushes/{UPDATES + 1}", json=PUSH).raise_for_status()
    compared = gradserve("replay", "r", "--store", redis_url, "--url", url, "--json")
    assert compared.returncode == 1, compared.stdout
    assert json.loads(compared.stdout)["equal"] is False
    assert "other bits" in compared.stderr


def test_replay_refuses_a_payload_that_was_changed(gradserve, serve, tmp_path):
    """What cannot be verified is never applied: one line, exit code 1."""
    place = tmp_path / "store.db"
    write(serve, f"sqlite:///{place}")
    with closing(sqlite3.connect(place)) as database, database:
        database.execute("DELETE FROM snapshots")
        (last, inline) = database.execute("SELECT place, inline FROM entries ORDER BY place DESC LIMIT 1").fetchone()
        bent = inline[:-1] + bytes([inline[-1] ^ 1])
        database.execute("UPDATE entries SET inline = ? WHERE place = ?", (bent, last))
    refused = gradserve("replay", "r", "--store", f"sqlite:///{place}")
    assert refused.returncode == 1
    assert "not the one that was journaled" in refused.stderr
    assert "Traceback" not in refused.stderr
