"""Two servers on one Redis, and kill -9 of a run's home under load: workers go on with the other, and come home."""

from __future__ import annotations

import random
import time

from faults.crew import working
from faults.processes import Server, serving
from faults.siege import Siege
from gradserve.servers import Servers

KILLS = 4


def served_pushes(server: Server) -> int:
    """How many requests for pushes this life of the server has answered."""
    lines = server.answer("GET", "/metrics").body.decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if "_count{" in line and "/pushes/" in line)


def test_kills_of_the_home_lose_nothing_and_double_nothing(redis_url, tmp_path):
    """While home is away the other server takes every push; home again, it takes them. In the end each acknowledged
    gradient is in the journal exactly once, and what is served is bit for bit its replay."""
    siege = Siege(redis_url, tmp_path, workers=6, seed=4)
    chance = random.Random(siege.seed)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with serving(redis_url, folders[0]) as one, serving(redis_url, folders[1]) as two:
        urls = (one.url, two.url)
        order = Servers(urls, time.monotonic).order(f"/v1/runs/{siege.run}")
        home, other = (one, two) if order[0] == 0 else (two, one)
        siege.create_run(",".join(urls))
        crew_size = {"workers": siege.workers, "parameters": siege.parameters, "seed": siege.seed}
        with working(",".join(urls), siege.run, tmp_path, **crew_size) as crew:
            crew.everybody(2)
            assert served_pushes(home) > 0
            assert served_pushes(other) == 0
            for _ in range(KILLS):
                home.kill()
                crew.everybody(2)  # through the other
                home.start()
                crew.acknowledged(chance.randint(0, 40))
            assert served_pushes(other) > 0
            while served_pushes(home) == 0:
                crew.acknowledged(1)
            crew.finish()
        siege.save_served(home)
        home.kill()
        other.kill()
    findings = siege.audit()
    assert findings.complaints == []
    assert (findings.lost, findings.doubled, findings.rewound) == (0, 0, 0)
    assert findings.version == findings.acknowledged == findings.in_journal > 50
