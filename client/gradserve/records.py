"""The conversations about what a run has done: its history, its journal, who works for it. Generators without I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from .errors import UnexpectedAnswer, ValidationError
from .flows import ACCEPT_JSON, RunKey, ask_json, json_request
from .messages import Flow, Request, ask

NDJSON_MEDIA_TYPE = "application/x-ndjson"

Columns = dict[str, NDArray[Any]]


def history_flow(
    run: RunKey, series: str | Sequence[str] | None = None, since: int | None = None, max_points: int | None = None
) -> Flow[Columns]:
    """The run's history as columns of one length. Raises `ValidationError`."""
    names = [series] if isinstance(series, str) else list(series or ())
    query = {"series": ",".join(names) or None, "since": since, "max_points": max_points}
    answer = yield from ask_json(Request("GET", with_query(f"{run.path}/history", query), (*ACCEPT_JSON, *run.guard)))
    return {name: column(values) for name, values in answer.items()}


def column(values: Sequence[float | None]) -> NDArray[Any]:
    """int64 where every value is whole by its kind, else float64 with NaN where there is none."""
    if all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    return np.array([math.nan if value is None else value for value in values], np.float64)


def statistics_flow(run: RunKey) -> Flow[dict[str, Any]]:
    """Where training stands: steps, norms of each tensor, the effective learning rate, warnings."""
    return (yield from ask_json(Request("GET", f"{run.path}/statistics", (*ACCEPT_JSON, *run.guard))))


def journal_flow(run: RunKey, since: int = 0) -> Flow[list[dict[str, Any]]]:
    """The headers of all kept entries with a position > `since`, in order."""
    path = with_query(f"{run.path}/journal", {"since": since})
    response = yield from ask(Request("GET", path, (("Accept", NDJSON_MEDIA_TYPE), *run.guard)))
    if response.status >= 300:
        raise response.error()
    try:
        return [json.loads(line) for line in bytes(response.body).splitlines() if line]
    except ValueError as error:
        raise UnexpectedAnswer(response.status, f"a journal that is not JSON lines: {error}") from error


def report_flow(run: RunKey, values: Mapping[str, Any], version: int | None, idempotency_key: str) -> Flow[None]:
    """Put evaluation results into the run's history; a schedule may follow one of them."""
    body: dict[str, Any] = {"values": numbers(values)}
    if version is not None:
        body["version"] = version
    extra = (("Idempotency-Key", idempotency_key), *run.guard)
    response = yield from ask(json_request("POST", f"{run.path}/metrics", body, extra))
    if response.status >= 300:
        raise response.error()


def workers_flow(run: RunKey) -> Flow[list[dict[str, Any]]]:
    """The run's roster, in name order."""
    answer = yield from ask_json(Request("GET", f"{run.path}/workers", (*ACCEPT_JSON, *run.guard)))
    found: list[dict[str, Any]] = answer["workers"]
    return found


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Named results as JSON takes them, from floats, ints and scalars of any array. Raises `ValidationError`."""
    if not isinstance(values, Mapping):
        raise ValidationError(f"values: expected a dict of numbers, came {type(values).__name__}")
    read: dict[str, float] = {}
    for name, value in values.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValidationError(f"values.{name}: expected a number, came {type(value).__name__}") from None
        if not math.isfinite(number):
            raise ValidationError(f"values.{name}: expected a finite number, came {number}")
        read[str(name)] = number
    return read


def with_query(path: str, query: Mapping[str, object]) -> str:
    """The path with those of the query's members that are not None."""
    given = "&".join(f"{name}={quote(str(value), safe=',')}" for name, value in query.items() if value is not None)
    return f"{path}?{given}" if given else path
