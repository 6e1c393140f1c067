"""Weights as a worker holds them, and the outcome of a push."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UnexpectedAnswer
from .messages import Response
from .problems import Refused
from .wire import Layout, decode_frame

ACCEPTED_OUTCOMES = frozenset({"applied", "contributed", "skipped", "duplicate"})


class Weights(dict[str, NDArray[np.float32]]):
    """The run's tensors by name: read-only views, in the run's shapes, into the one buffer that they arrived in.

    A dict like any other, and it knows where it comes from: `version` and `etag` say which weights these are (`etag` is
    sent as the base of gradients computed at them), `vector` is float32[N], all tensors end to end in `layout`,
    `metadata` what the server said beside them. `part`: they are not the whole of the run's.
    Copy a tensor before changing it.
    """

    __slots__ = ("etag", "layout", "metadata", "part", "vector", "version")

    def __init__(
        self,
        layout: Layout,
        vector: NDArray[np.float32],
        version: int,
        etag: str,
        metadata: Mapping[str, str] | None = None,
        *,
        part: bool = False,
    ) -> None:
        super().__init__(layout.views(vector))
        self.layout = layout
        self.vector = vector
        self.version = version
        self.etag = etag
        self.metadata = dict(metadata or {})
        self.part = part

    @classmethod
    def of_response(cls, response: Response, *, part: bool = False) -> Weights:
        """The weights in an answer's body, without a copy when it is float32. Raises `UnexpectedAnswer`."""
        etag = response.header("etag")
        try:
            frame = decode_frame(response.body)
            version = int(etag.strip('"').split("-")[0])  # "<version>-<16 hex>"; with a push, not that push's version
        except (Refused, ValueError) as error:
            raise UnexpectedAnswer(response.status, f"weights {etag}: {error}") from error
        return cls(frame.layout, frame.vector(), version, etag, frame.metadata, part=part)

    def __repr__(self) -> str:
        return f"<Weights version {self.version}: {self.layout.parameters:,} parameters in {len(self)} tensors>"


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of a gradient.

    `outcome` from the server: `applied`, `contributed` (to a batch that is still open: `batch`), `skipped`
    (not finite, by the run's policy) or `duplicate` (a repeated request: it was applied once, and only once).
    From the SDK, when the gradient was *not* applied: `refreshed` (it was stale) or `rewound` (the server's history
    lost what this worker was told); `weights` then has the weights to continue from.
    """

    outcome: str
    version: int  # that this push made; for refreshed and rewound, of `weights`
    sequence: int
    step: int | None = None
    staleness: int | None = None
    staleness_weight: float | None = None
    lr: float | None = None  # before the staleness weight
    gradient_norm: float | None = None
    clip_scale: float | None = None
    finite: bool | None = None  # all of the gradient were numbers: what a GradScaler's `update` wants to know
    batch: Mapping[str, Any] | None = None  # of a run that accumulates: pushes, samples, target
    durability: str | None = None
    original: Any = None  # of a duplicate: the recorded outcome
    weights: Weights | None = None

    @property
    def accepted(self) -> bool:
        """The gradient is in the run's journal."""
        return self.outcome in ACCEPTED_OUTCOMES

    @classmethod
    def of_json(cls, sequence: int, answer: Mapping[str, Any]) -> PushResult:
        """From the JSON answer, which has every field."""
        fields = {name: answer[name] for name in _ANSWERED if name in answer}
        return cls(sequence=sequence, **fields)

    @classmethod
    def of_headers(cls, sequence: int, response: Response, weights: Weights) -> PushResult:
        """From the headers of an answer whose body is the new weights. Raises `UnexpectedAnswer`."""
        headers = response.headers
        return cls(
            outcome=response.header("gradserve-outcome"),
            version=int(response.header("gradserve-version")),
            sequence=sequence,
            step=_read(int, headers.get("gradserve-step")),
            staleness=_read(int, headers.get("gradserve-staleness")),
            lr=_read(float, headers.get("gradserve-lr")),
            gradient_norm=_read(float, headers.get("gradserve-gradient-norm")),
            clip_scale=_read(float, headers.get("gradserve-clip-scale")),
            finite=_read(_flag, headers.get("gradserve-finite")),
            batch=_read(json.loads, headers.get("gradserve-batch")),
            durability=headers.get("gradserve-durability"),
            weights=weights,
        )


_ANSWERED = (
    "outcome",
    "version",
    "step",
    "staleness",
    "staleness_weight",
    "lr",
    "gradient_norm",
    "clip_scale",
    "finite",
    "batch",
    "durability",
    "original",
)


def _flag(text: str) -> bool:
    return text == "true"


def _read(kind: Any, text: str | None) -> Any:
    return None if text is None or text == "" else kind(text)
