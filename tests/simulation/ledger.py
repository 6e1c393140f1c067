"""What clients asked, what they were told and what they were promised: the other half of the truth.

Filled by the clients as they go, read by the invariants at the end. Every moment has a *tick*: the order of what
happened, where virtual time may stand still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from gradserve.messages import Request, Response

NoticeKind = Literal["registered", "rewound", "fenced"]


@dataclass(slots=True, eq=False)
class Exchange:
    """One attempt of a request, seen by its client."""

    client: str
    request: Request
    begin: int  # tick
    end: int | None = None
    response: Response | None = None  # None: none came


@dataclass(slots=True, eq=False)
class Gradient:
    """One gradient that a worker computed. No two are equal, so its digest is its name."""

    digest: str
    worker: str
    instance: str | None  # which process of the worker; None where it does not say
    sequence: int
    item: int  # which of the worker's samples
    base_etag: str | None  # of the weights it was computed at, where the worker says so
    base_bytes: bytes | None
    says_after: bool = True  # the worker sends the receipt of the push before
    lr: float | None = None  # that the push names
    samples: float = 1.0
    loss: float | None = None
    acknowledged: int | None = None  # tick
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What one process of a worker was told beside its pushes."""

    tick: int
    worker: str
    instance: str | None
    kind: NoticeKind


@dataclass(frozen=True, slots=True)
class Told:
    """One event, as a watcher got it."""

    tick: int
    connection: int
    id: int  # of the feed when it came
    kind: str
    fields: dict[str, Any]


@dataclass(slots=True)
class Watched:
    """All that one watcher was told."""

    name: str
    told: list[Told] = field(default_factory=list)
    closed: bool = False  # it heard that the run was closed


@dataclass(slots=True)
class Ledger:
    """All of one run."""

    tick: Callable[[], int]
    exchanges: list[Exchange] = field(default_factory=list)
    gradients: dict[str, Gradient] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    items_done: dict[str, int] = field(default_factory=dict)  # of workers that follow their cursor, when they left
    gone: list[str] = field(default_factory=list)  # workers that left for good
    keys: dict[str, str] = field(default_factory=dict)  # of the operator's changes → uid of the run that is meant
    watched: list[Watched] = field(default_factory=list)
    branched: list[str] = field(default_factory=list)  # uids of branches whose making was answered
    deletions: list[str] = field(default_factory=list)  # uids of the runs that the operator asked to delete

    def ask(self, client: str, request: Request) -> Exchange:
        """An attempt begins."""
        exchange = Exchange(client, request, self.tick())
        self.exchanges.append(exchange)
        return exchange

    def answered(self, exchange: Exchange, response: Response) -> None:
        """Its client has the answer in hand."""
        exchange.end, exchange.response = self.tick(), response

    def asked_to_leave(self, worker: str) -> int:
        """The tick of the last answered request by which the worker left."""
        leaves = (x for x in self.exchanges if x.client == worker and x.request.method == "DELETE")
        return max((exchange.begin for exchange in leaves if exchange.response is not None), default=-1)

    def acknowledged(self, digest: str, outcome: str) -> None:
        """The worker was told that its gradient is in the run."""
        gradient = self.gradients[digest]
        gradient.acknowledged, gradient.outcome = self.tick(), outcome

    def began(self, notice: Notice) -> int:
        """The tick at which the worker sent the request whose answer gave the notice."""
        answered = [x for x in self.exchanges if x.client == notice.worker and x.end and x.end <= notice.tick]
        return max(answered, key=lambda exchange: exchange.end or 0).begin

    def notice(self, worker: str, instance: str | None, kind: NoticeKind) -> None:
        """The worker was told where the run stands, that something is lost, or that it was replaced."""
        self.notices.append(Notice(self.tick(), worker, instance, kind))
