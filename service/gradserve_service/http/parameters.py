"""What a request says beside its body: names, sequences, preconditions and preferences, each checked once here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Path, Request
from starlette.types import Receive, Scope

from gradserve.problems import refuse
from gradserve.specs import NAME_PATTERN
from gradserve_service.limits import Limits
from gradserve_service.replica.replicas import Replicas

__all__ = [
    "NAME_PATTERN",
    "Incoming",
    "Preferences",
    "RunName",
    "WorkerName",
    "check_query",
    "idempotency_key",
    "known_etag",
    "parse_count",
    "parse_name",
    "parse_preferences",
    "parse_rows",
]

ROWS_ASKED_MAX = 4_096  # in a query: many more would not fit into the line of a request
SEQUENCE_MAX = 1 << 53  # the largest integer that every JSON reader keeps exact
_NAME = re.compile(NAME_PATTERN[1:-1])
_COUNT = re.compile("0|[1-9][0-9]{0,15}")
_SECONDS = re.compile("[0-9]{1,6}([.][0-9]{1,6})?")

RunName = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of the run.")]
WorkerName = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of the worker.")]


class Incoming:
    """A request of a hot route: headers as a dictionary, the query parsed when asked for, the app's parts at hand."""

    __slots__ = ("app", "headers", "path_params", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.app: Any = scope["app"]
        self.path_params: dict[str, str] = scope["path_params"]
        self.headers: dict[bytes, bytes] = join_headers(scope["headers"])

    @property
    def replicas(self) -> Replicas:
        """The runs of this server. Read at each request: whoever owns the app may exchange them."""
        replicas: Replicas = self.app.state.replicas
        return replicas

    @property
    def limits(self) -> Limits:
        """The bounds of this server."""
        return self.replicas.limits

    def header(self, name: bytes) -> str | None:
        """A header's text, None when absent."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()

    def name(self, parameter: str) -> str:
        """A name from the path, checked."""
        return parse_name(parameter, self.path_params[parameter])

    def query(self, *known: str) -> dict[str, str]:
        """The query's parameters. One that the route does not know is refused: a typo must not change the maths."""
        text = self.scope["query_string"]
        return parse_query(text.decode("latin-1"), known) if text else {}


def parse_query(text: str, known: Iterable[str]) -> dict[str, str]:
    """The parameters of a query. Raises `validation-error` for unknown and for doubled ones."""
    pairs = parse_qsl(text, keep_blank_values=True)
    found = dict(pairs)
    if unknown := [name for name in found if name not in known]:
        expected = ", ".join(known) or "nothing"
        raise refuse("validation-error", f"query: expected {expected}; came {', '.join(unknown)[:200]}")
    if len(found) < len(pairs):
        raise refuse("validation-error", f"query: expected each parameter once; came {text[:200]!r}")
    return found


async def check_query(request: Request) -> None:
    """For FastAPI's routes, which pass over what they do not know: the same refusal as `Incoming.query`."""
    if text := request.scope["query_string"]:
        known = [field.alias for field in request.scope["route"].dependant.query_params]
        parse_query(text.decode("latin-1"), known)


def join_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; one that came twice is joined with a comma, which means the same (RFC 9110, 5.3)."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


@lru_cache(maxsize=4096)
def parse_name(kind: str, text: str) -> str:
    """A run's or worker's name. Raises `validation-error`."""
    if _NAME.fullmatch(text) is None:
        raise refuse(
            "validation-error",
            f"{kind}: expected a name of 1 to 100 letters, digits, '.', '_' or '-' that starts with a letter or a "
            f"digit; came {text[:120]!r}",
        )
    return text


def parse_count(kind: str, text: str, *, least: int = 0) -> int:
    """A whole number from `least` to 2^53, in plain decimal digits. Raises `validation-error`."""
    number = int(text) if _COUNT.fullmatch(text) else -1
    if not least <= number <= SEQUENCE_MAX:
        raise refuse("validation-error", f"{kind}: expected a whole number from {least} to 2^53; came {text[:40]!r}")
    return number


def parse_rows(text: str, names: Sequence[str] | None) -> list[int]:
    """The rows that a query asks for, of the one tensor that it names. Raises `validation-error`."""
    if names is None or len(names) != 1:
        came = "no names" if names is None else f"{len(names)} of them"
        raise refuse("validation-error", f"rows: expected names with the one tensor that they are of; came {came}")
    parts = text.split(",", ROWS_ASKED_MAX) if text else []
    if len(parts) > ROWS_ASKED_MAX:
        raise refuse("validation-error", f"rows: expected at most {ROWS_ASKED_MAX} ids in a request; ask in parts")
    return [parse_count("rows", part) for part in parts]


def idempotency_key(incoming: Incoming) -> str | None:
    """The Idempotency-Key of a request that may arrive twice. Raises `validation-error`."""
    key = incoming.header(b"idempotency-key")
    if key is not None and not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
        raise refuse("validation-error", f"Idempotency-Key: expected 1 to 200 characters of ASCII; came {key[:40]!r}")
    return key


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the Prefer header (RFC 7240) asks for. What is not understood is ignored, as the RFC wants it."""

    wait_seconds: float | None = None
    representation: bool = False


@lru_cache(maxsize=256)
def parse_preferences(text: str | None) -> Preferences:
    """`return=representation, wait=30` → `Preferences(30.0, True)`."""
    wait: float | None = None
    representation = False
    for preference in (text or "").replace(";", ",").split(","):
        name, _, value = preference.partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "wait" and wait is None and _SECONDS.fullmatch(value):
            wait = float(value)
        elif name == "return":
            representation = value.lower() == "representation"
    return Preferences(wait, representation)


def known_etag(header: str | None, current: str | None) -> str | None:
    """The one ETag of an If-None-Match list to compare with: the current one when it is listed, else the first.

    `*` stands for the current one. Weak tags compare as strong ones do (RFC 9110, 13.1.2).
    """
    if header is None:
        return None
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    if current is not None and ("*" in tags or current in tags):
        return current
    return tags[0]
