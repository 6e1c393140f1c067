"""Which form a body has and which form an answer takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from gradserve.problems import refuse
from gradserve.wire import DTYPES, MEDIA_TYPE, MEDIA_TYPES

from .parameters import Incoming

__all__ = ["JSON", "answer_type", "body_form", "parse_dtype"]

JSON = "application/json"
Form = Literal["safetensors", "json"]


def body_form(incoming: Incoming) -> tuple[Form, str]:
    """How the body is written, and its media type. Raises `unsupported-media-type` with the cure."""
    coding = incoming.header(b"content-encoding")
    if coding is not None and coding.lower() != "identity":
        raise refuse("unsupported-media-type", f"the body is {coding!r}-encoded; send it without a Content-Encoding")
    return _form_of(incoming.header(b"content-type"))


@lru_cache(maxsize=256)
def _form_of(content_type: str | None) -> tuple[Form, str]:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type in MEDIA_TYPES:
        return "safetensors", media_type
    if media_type == JSON:
        return "json", media_type
    came = repr(media_type) if media_type else "no Content-Type"
    hint = ""
    if media_type == "application/x-www-form-urlencoded":
        hint = " (curl -d sends that type: use curl --json)"
    raise refuse(
        "unsupported-media-type",
        f"expected {MEDIA_TYPE} or {JSON}; came {came}{hint or '; with curl use --json'}",
        supported=[*MEDIA_TYPES, JSON],
    )


@lru_cache(maxsize=1024)
def answer_type(accept: str | None, default: str, offered: tuple[str, ...] = (*MEDIA_TYPES, JSON)) -> str:
    """The media type of the answer: the offered type that Accept likes best, `default` among equals.

    Without Accept (or with `*/*`) that is `default`: a worker that sends safetensors gets safetensors.
    Raises `not-acceptable`.
    """
    if accept is None or not accept.strip():
        return default
    ranges = [_parse_range(part) for part in accept.split(",") if part.strip()]
    best, liking = default, 0.0
    for candidate in (default, *offered):
        quality = _quality(candidate, ranges)
        if quality > liking:
            best, liking = candidate, quality
    if liking == 0.0:
        raise refuse(
            "not-acceptable", f"expected Accept to allow {' or '.join(offered)}; came {accept[:200]!r}",
            offered=list(offered),
        )  # fmt: skip
    return best


def _parse_range(text: str) -> tuple[str, float]:
    media_range, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = min(max(float(value), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return media_range, quality if quality == quality else 0.0


def _quality(candidate: str, ranges: list[tuple[str, float]]) -> float:
    """The q of the most specific range that covers the candidate, 0 when none does."""
    for pattern in (candidate, candidate.partition("/")[0] + "/*", "*/*"):
        matching = [quality for media_range, quality in ranges if media_range == pattern]
        if matching:
            return max(matching)
    return 0.0


def parse_dtype(query: dict[str, str]) -> str:
    """`?dtype=`; float32 when absent. Raises `dtype-unsupported`."""
    dtype = query.get("dtype", "float32")
    if dtype not in DTYPES:
        raise refuse("dtype-unsupported", f"dtype: expected {', '.join(DTYPES)}; came {dtype[:40]!r}", supported=DTYPES)
    return dtype
