"""A fleet behind a bad network: proxies that misbehave between the workers and the servers, and between each server
and its Redis. Nobody is killed; every promise must hold all the same."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faults.audit import Findings
from faults.crew import working
from faults.fleet import Fleet
from faults.processes import Server
from faults.proxy import FaultProxy, proxies_before
from faults.siege import Siege
from real_redis import RealRedis

HTTP_SHARE = 0.05  # of the requests between workers and servers
REDIS_SHARE = 0.01  # of the requests between a server and Redis
BETWEEN_LOOKS = 20  # acknowledged pushes


@dataclass
class BadNetwork:
    """How many faults, and what was counted."""

    siege: Siege
    redis: RealRedis
    faults: int
    servers: int = 3
    counts: Counter[str] = field(default_factory=Counter)
    _proxies: dict[str, list[FaultProxy]] = field(default_factory=dict)

    def faults_by_kind(self) -> Counter[str]:
        """So far."""
        found: Counter[str] = Counter()
        for where, proxies in self._proxies.items():
            for proxy in proxies:
                found.update({f"{where}: {fault}": number for fault, number in proxy.counts.items()})
        return found

    def run(self, progress: Callable[[int, int, float], None] = lambda *_: None, **how: Any) -> Findings:
        """Push until that many faults have happened, let everybody finish in peace, then audit."""
        siege, began = self.siege, time.monotonic()
        seed = f"proxy {siege.seed}"
        with proxies_before([self.redis.port] * self.servers, f"{seed} redis", REDIS_SHARE) as before_redis:
            fleet = Fleet([self._server(index, proxy, how) for index, proxy in enumerate(before_redis)])
            ports = [server.port for server in fleet.servers]
            with proxies_before(ports, f"{seed} http", 0.0) as before_servers:
                try:
                    quiet_while_starting(before_redis, fleet)
                    urls = ",".join(f"http://127.0.0.1:{proxy.port}" for proxy in before_servers)
                    siege.create_run(urls)
                    self._push(urls, before_redis, before_servers, progress, began)
                    fleet.agree(siege.run)
                    siege.save_served(random.Random(seed).choice(fleet.servers))
                finally:
                    fleet.end()
        return siege.audit()

    def _server(self, index: int, proxy: FaultProxy, how: dict[str, Any]) -> Server:
        folder = self.siege.folder / f"server-{index}"
        folder.mkdir(parents=True, exist_ok=True)
        return Server(f"redis://127.0.0.1:{proxy.port}/0", folder, **how)

    def _push(
        self,
        urls: str,
        before_redis: list[FaultProxy],
        before_servers: list[FaultProxy],
        progress: Callable[[int, int, float], None],
        began: float,
    ) -> None:
        siege, proxies = self.siege, [*before_redis, *before_servers]
        self._proxies = {"redis": before_redis, "http": before_servers}
        crew_size = {"workers": siege.workers, "parameters": siege.parameters, "seed": siege.seed}
        with working(urls, siege.run, siege.folder, **crew_size) as crew:
            crew.everybody(1)
            set_shares(before_redis, REDIS_SHARE)
            set_shares(before_servers, HTTP_SHARE)
            while (happened := sum(proxy.counts.total() for proxy in proxies)) < self.faults:
                crew.acknowledged(BETWEEN_LOOKS)
                progress(happened, crew.count, time.monotonic() - began)
            set_shares(proxies, 0.0)
            crew.everybody(1)
            crew.finish()
        self.counts = self.faults_by_kind()


def quiet_while_starting(proxies: list[FaultProxy], fleet: Fleet) -> None:
    """Start the servers over a network that behaves."""
    set_shares(proxies, 0.0)
    fleet.start()


def set_shares(proxies: list[FaultProxy], share: float) -> None:
    """How many of the requests get a fault from now on."""
    for proxy in proxies:
        proxy.share = share
