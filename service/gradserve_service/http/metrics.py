"""Counters and clocks for Prometheus. No name of a run or a worker is a label, and no value of a tensor is in it.

Each app has its own registry. What a request adds is counted where it happens, a microsecond a line; what a server
holds (runs, queues, waits) is read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gradserve_service.replica import Replicas

from .waits import Waits

__all__ = ["Metrics"]

# From a hot push (0.5 ms) over a large one to the longest long-poll.
REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0)
STEP_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """What one app counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._pushes = Counter(
            "gradserve_pushes", "Pushes, by what became of them.", ["outcome", "code"], registry=self.registry
        )
        self._durations = Histogram(
            "gradserve_request_duration_seconds", "From the request's head to the answer's last byte.",
            ["method", "route", "status"], buckets=REQUEST_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._steps = Histogram(
            "gradserve_push_step_seconds", "Parts of a push: receive, decode, ingest, store, apply.",
            ["step"], buckets=STEP_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._received = Counter("gradserve_received_bytes", "Bytes of request bodies.", registry=self.registry)
        self._sent = Counter("gradserve_sent_bytes", "Bytes of answers' bodies.", registry=self.registry)
        self._store_up = Gauge("gradserve_store_up", "1 when the store answered just now.", registry=self.registry)
        Info("gradserve_build", "The version that runs.", registry=self.registry).info(
            {"version": version("gradserve")}
        )
        ProcessCollector(registry=self.registry)
        # Looked up once: `labels` costs as much as the counting itself.
        self._push_counter = lru_cache(maxsize=256)(self._pushes.labels)
        self._duration_clock = lru_cache(maxsize=1024)(self._durations.labels)
        self._step_clock = lru_cache(maxsize=16)(self._steps.labels)

    def push(self, outcome: str, timings: Mapping[str, float]) -> None:
        """A push was answered, and these were its parts, in seconds."""
        self._push_counter(outcome, "").inc()
        for step, seconds in timings.items():
            self._step_clock(step).observe(seconds)

    def push_refused(self, code: str) -> None:
        """A push was refused."""
        self._push_counter("refused", code).inc()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the template of its path, never the path."""
        group = f"{status // 100}xx" if status else "gone"  # who asked went away before an answer
        self._duration_clock(method, route, group).observe(seconds)

    def bodies(self, received: int, sent: int) -> None:
        """Bytes went in and out."""
        if received:
            self._received.inc(received)
        if sent:
            self._sent.inc(sent)

    def store_up(self, answers: bool) -> None:
        """The store was asked, and answered or not."""
        self._store_up.set(answers)


class Holdings(Collector):
    """What a server holds at the moment of the question."""

    def __init__(self, replicas: Replicas, waits: Waits) -> None:
        held = replicas.holdings()
        self._divergences = held.divergences
        self._gauges = {
            "gradserve_runs_in_memory": ("Runs with a task on this server.", held.runs),
            "gradserve_state_bytes": ("Weights and slots in memory.", held.state_bytes),
            "gradserve_queued_requests": ("Requests that wait for their run's task, all runs together.", held.queued),
            "gradserve_longest_queue": ("Requests that wait for one run's task, at most.", held.queued_most),
            "gradserve_body_bytes": ("Request bodies that are held now.", held.body_bytes),
            "gradserve_long_polls": ("Requests that wait for something to happen.", waits.count),
            "gradserve_draining": ("1 while the server shuts down.", int(replicas.draining)),
        }

    def collect(self) -> Iterator[Metric]:
        """One gauge each, and what was counted below this floor."""
        for name, (text, value) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=value)
        yield CounterMetricFamily(
            "gradserve_state_diverged",
            "States of runs that differed from the published snapshot of their position, and were restored.",
            value=self._divergences,
        )
