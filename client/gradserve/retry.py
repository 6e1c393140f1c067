"""Coming again: the one place where a request is repeated.

`with_retries` wraps any flow and is a flow itself, so a simulator's virtual time drives it as a client's real time
does. A request is repeated, byte for byte, after a transport error, 408, 429 or 5xx; that is safe because every request
of this API is idempotent (a push has its sequence, a registration its instance, a change its key). Never after a 409.

A client's reads draw their quick repetitions from one budget: where many of them fail, further ones wait the longest
pause instead of a short one. What changes a run (a push above all) draws from nothing: a worker may always insist, and
has one request on its way at a time.

With several servers the next one is asked at once when one does not answer or cannot; only after all of them failed
comes a pause. That is as safe: they share one journal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ServerUnreachable
from .messages import Flow, Request, Response, Sleep, T
from .servers import Servers

RETRIED_STATUSES_BELOW_500 = frozenset({408, 429})
LONGEST_PAUSE = 30  # an attempt so late that its pause is the longest
ELSEWHERE_STATUSES = frozenset({502, 503, 504})  # this server cannot now: another one may


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how to come again. Time and chance come from outside.

    Full jitter (each pause uniform between 0 and a doubling bound) spreads the workers of a restarted server best:
    Brooker 2015, "Exponential Backoff and Jitter".
    """

    clock: Callable[[], float]  # seconds, monotonic
    jitter: Callable[[], float]  # uniform in [0, 1)
    seconds: float = 600.0  # in all, for one request: a training job outlives a server restart
    first_pause_seconds: float = 0.1
    pause_seconds_max: float = 20.0

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Seconds before attempt number `attempt` + 1. What Retry-After asks for is not undercut."""
        bound = min(self.pause_seconds_max, self.first_pause_seconds * 2.0 ** min(attempt, 30))
        return (retry_after or 0.0) + self.jitter() * bound


@dataclass(slots=True)
class RetryBudget:
    """Quick repetitions of reads that a client may still make: a bucket of tokens, filled by its successes.

    In steady state at most a tenth of the successes are repeated quickly; the bucket lets a client that was well until
    now meet a restart as if there were no budget. An empty one slows down and fails nobody: a training that reads its
    weights outlives a restart too. Counted without a lock: a token more or less does no harm.

    Source: Brooker 2022, "Fixing retries with token buckets and circuit breakers"; gRPC A6 (`retryThrottling`).
    """

    tokens_max: float = 10.0
    tokens_a_success: float = 0.1
    tokens: float = 10.0

    def succeeded(self) -> None:
        """A request was answered."""
        self.tokens = min(self.tokens_max, self.tokens + self.tokens_a_success)

    def allows(self) -> bool:
        """Take a token, if there is a whole one."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


def with_retries(
    flow: Flow[T], patience: Patience, servers: Servers | None = None, budget: RetryBudget | None = None
) -> Flow[T]:
    """The same conversation, with every request repeated until it is answered or the patience runs out.

    Then the flow gets the last refusing answer, or `ServerUnreachable` is thrown into it.
    """
    try:
        step = next(flow)
        while True:
            if isinstance(step, Sleep):
                yield step
                step = flow.send(None)
                continue
            try:
                response = yield from _insist(step, patience, servers, budget)
            except ServerUnreachable as error:
                step = flow.throw(error)
            else:
                step = flow.send(response)
    except StopIteration as stop:
        answer: T = stop.value
        return answer
    finally:
        flow.close()


def _insist(
    request: Request, patience: Patience, servers: Servers | None, budget: RetryBudget | None
) -> Flow[Response]:
    """One request until it has an answer that repeating would not better.

    The last pause is cut to what is left of the patience: it ends with a question, not with an unused rest.
    """
    started = patience.clock()
    rounds = attempts = 0
    while True:
        response, failure, tried = yield from _ask_each(request, servers)
        attempts += tried
        if response is not None and not _is_worth_repeating(response):
            if budget is not None:
                budget.succeeded()
            return response
        waited = patience.clock() - started
        left = patience.seconds - waited
        if left <= 0:
            if response is not None:
                return response
            raise ServerUnreachable(
                f"{request.method} {request.path}: no answer in {attempts} attempts, {waited:.0f} s: {failure}"
            ) from failure
        quick = budget is None or request.method != "GET" or budget.allows()
        pause = patience.pause(rounds if quick else LONGEST_PAUSE, _retry_after(response))
        yield Sleep(min(left, pause), _reason(request, response, failure))
        rounds += 1


def _ask_each(request: Request, servers: Servers | None) -> Flow[tuple[Response | None, ServerUnreachable | None, int]]:
    """One round: the servers in their order, until one answers for itself. The last answer or failure, and how many
    were asked."""
    order = servers.order(request.path) if servers is not None else (0,)
    tried = 0
    for server in order:
        tried += 1
        response: Response | None = None
        failure: ServerUnreachable | None = None
        try:
            response = yield dataclasses.replace(request, server=server) if server else request
        except ServerUnreachable as error:
            failure = error
        if response is not None and response.status not in ELSEWHERE_STATUSES:
            if servers is not None:
                servers.answered(server)
            break
        if servers is not None:
            servers.failed(server)
    return response, failure, tried


def _is_worth_repeating(response: Response) -> bool:
    return response.status >= 500 or response.status in RETRIED_STATUSES_BELOW_500


def _retry_after(response: Response | None) -> float | None:
    """Seconds that the answer asks for. A date instead of a number is left to the doubling pauses."""
    text = response.headers.get("retry-after", "") if response is not None else ""
    return float(text) if text.isdecimal() else None


def _reason(request: Request, response: Response | None, failure: ServerUnreachable | None) -> str:
    what = f"{failure}" if response is None else f"status {response.status}: {response.error()}"
    return f"{request.method} {request.path}: {what}"
