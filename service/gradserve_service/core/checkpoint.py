"""Checkpoints: a run's state under a name, as a safetensors file that its user can open.

The data section is the weights' vector and then each slot's, as in an image: the weights under their own names, slots
as `optimizer/<slot>/<tensor>`. The metadata holds, as JSON text, what else a restore or a branch needs: `step`, `spec`,
`slots`, `memory`, `plateau`, `updates`, `samples_seen`; and where the state comes from: `version`, `position`, `etag`.
Workers' rows, keys of requests and the past are not in it: they belong to a history, not to a state.

A file from outside may have its tensors in any order and any dtype that is read here, and may lack all but the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, Field, Json, ValidationError

from gradserve.problems import refuse
from gradserve.specs import RunSpec, validation_refusal
from gradserve.wire import RESERVED_PREFIX, Frame, Layout, allocate, check_user_names

from .arrays import Arrays
from .control import Control
from .image import header_bytes, tensor_rows
from .optimizers import MEMORY_NAMES, NEVER_NEGATIVE
from .plateau import FRESH, PlateauState

Float32 = NDArray[np.float32]
SLOTS_MAX = 7  # of a file from outside: no rule has more than four
STEPS_MAX = 1 << 52  # of a file from outside: as many again can follow before JSON's integers end
SAMPLES_MAX = 1e100  # of a file from outside: no number of pushes makes it infinite


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a restore brings back. Nobody writes the arrays any more."""

    layout: Layout
    weights: Float32
    slots: Mapping[str, Float32]
    spec: Mapping[str, Any]  # canonical
    step: int = 0
    memory: Mapping[str, float] = field(default_factory=dict)
    plateau: PlateauState = FRESH
    updates: int = 0
    samples_seen: float = 0.0
    version: int | None = None  # None: the state is not of this server's making
    position: int | None = None
    etag: str | None = None
    section: memoryview | None = None  # weights and slots, where they lie end to end

    @property
    def size(self) -> int:
        """Bytes of weights and slots."""
        return self.weights.nbytes * (1 + len(self.slots))


def saved_state(control: Control, arrays: Arrays) -> SavedState:
    """The state of both, which are of one position and have weights. Nothing is copied."""
    assert arrays.layout is not None
    assert arrays.weights is not None
    return SavedState(
        layout=arrays.layout,
        weights=arrays.weights,
        slots=arrays.slots,
        spec=control.spec.canonical(),
        step=arrays.step,
        memory=arrays.memory,
        plateau=control.plateau,
        updates=control.updates,
        samples_seen=control.samples_seen,
        version=arrays.version,
        position=control.position,
        etag=control.etag,
    )


def encode_checkpoint(saved: SavedState) -> list[bytes | memoryview]:
    """The file in pieces, header first; the arrays are not copied."""
    header: dict[str, Any] = {"__metadata__": {name: json.dumps(value) for name, value in _said(saved).items()}}
    begin = 0
    for slot, vector in {"": saved.weights, **saved.slots}.items():
        header.update(tensor_rows(saved.layout, slot, begin))
        begin += vector.nbytes
    return [header_bytes(header), *(vector.data.cast("B") for vector in (saved.weights, *saved.slots.values()))]


def _said(saved: SavedState) -> dict[str, Any]:
    return {
        "version": saved.version,
        "step": saved.step,
        "position": saved.position,
        "etag": saved.etag,
        "spec": saved.spec,
        "slots": list(saved.slots),
        "memory": dict(saved.memory),
        "plateau": asdict(saved.plateau),
        "updates": saved.updates,
        "samples_seen": saved.samples_seen,
    }


def decode_checkpoint(file: memoryview) -> SavedState:
    """The inverse of `encode_checkpoint`, for bytes that are known to be its; the arrays are views of them."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(bytes(file[8 : 8 + size]))
    said = {name: json.loads(text) for name, text in header.pop("__metadata__").items()}
    layout = Layout.of({name: row["shape"] for name, row in header.items() if not name.startswith(RESERVED_PREFIX)})
    section, names = file[8 + size :].toreadonly(), said.pop("slots")
    weights, *slots = np.frombuffer(section, "<f4").reshape(1 + len(names), layout.parameters)
    said["plateau"] = PlateauState(**said["plateau"])
    return SavedState(layout, weights, dict(zip(names, slots, strict=True)), section=section, **said)


def payload_frame(saved: SavedState) -> Frame:
    """Weights and slots end to end, as the payload of a `load` entry; its header says which slots they are."""
    section = saved.section
    if section is None:
        section = np.concatenate([saved.weights, *saved.slots.values()]).data.cast("B").toreadonly()
    layout = Layout.of({f"{number:02}": [saved.layout.parameters] for number in range(1 + len(saved.slots))})
    return Frame(layout, "float32", section, {})


# Files from outside


def _of_a_rule(name: str) -> str:
    if name not in MEMORY_NAMES:
        raise ValueError(f"expected the numbers that a rule keeps ({', '.join(sorted(MEMORY_NAMES))})")
    return name


MemoryName = Annotated[str, AfterValidator(_of_a_rule)]


class _Plateau(BaseModel):
    """As `PlateauState`, checked."""

    scale: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    best: Annotated[float | None, Field(allow_inf_nan=False)] = None
    bad: Annotated[int, Field(ge=0, le=STEPS_MAX)] = 0
    cooldown: Annotated[int, Field(ge=0, le=STEPS_MAX)] = 0
    pending: Annotated[int, Field(ge=0, le=STEPS_MAX)] = 0
    mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0


class _Said(BaseModel):
    """What is read of a file's metadata; other members belong to other programs."""

    step: Json[Annotated[int, Field(ge=0, le=STEPS_MAX)]] = 0
    spec: Json[RunSpec | None] = None
    memory: Json[dict[MemoryName, Annotated[float, Field(allow_inf_nan=False)]]] = {}
    plateau: Json[_Plateau] = _Plateau()
    updates: Json[Annotated[int, Field(ge=0, le=STEPS_MAX)]] = 0
    samples_seen: Json[Annotated[float, Field(ge=0, le=SAMPLES_MAX)]] = 0.0


def imported_state(frame: Frame, spec: Mapping[str, Any]) -> SavedState:
    """The state in a file from outside; `spec` (canonical) stands in for a file without one. Raises `Refused`."""
    try:
        said = _Said.model_validate(frame.metadata)
    except ValidationError as error:
        raise validation_refusal(error, within="__metadata__") from None
    shapes = dict(zip(frame.layout.names, frame.layout.shapes, strict=True))
    layout = Layout.of({name: shape for name, shape in shapes.items() if not name.startswith(RESERVED_PREFIX)})
    check_user_names(layout)
    if not layout.names:
        raise refuse("validation-error", "the file has no weights: expected one tensor at least outside 'optimizer/'")
    slots = _slot_names(frame.layout, layout)
    vectors = allocate((1 + len(slots)) * layout.parameters).reshape(1 + len(slots), layout.parameters)
    views = frame.layout.views(frame.vector())
    for slot, vector in zip(("", *slots), vectors, strict=True):
        prefix = f"{RESERVED_PREFIX}{slot}/" if slot else ""
        for name, view in layout.views(vector).items():
            np.copyto(view, views[prefix + name])
            if slot in NEVER_NEGATIVE and view.size and view.min() < 0:
                detail = f"{prefix + name!r}: expected no negative number, {float(view.min())!r} came: a root is taken"
                raise refuse("validation-error", detail, tensor=prefix + name)
    return SavedState(
        layout=layout,
        weights=vectors[0],
        slots=dict(zip(slots, vectors[1:], strict=True)),
        spec=spec if said.spec is None else said.spec.canonical(),
        step=said.step,
        memory=said.memory,
        plateau=PlateauState(**said.plateau.model_dump()),
        updates=said.updates,
        samples_seen=said.samples_seen,
    )


def _slot_names(came: Layout, weights: Layout) -> list[str]:
    """The slots of a file: each has every tensor of the weights, in its shape."""
    found: dict[str, set[str]] = {}
    for name in came.names:
        if name.startswith(RESERVED_PREFIX):
            slot, _, tensor = name.removeprefix(RESERVED_PREFIX).partition("/")
            if not slot:
                detail = f"{name!r}: expected {RESERVED_PREFIX}<slot>/<tensor>, came an empty slot"
                raise refuse("validation-error", detail, tensor=name)
            if tensor not in weights:
                raise refuse("unknown-tensor", f"{name!r}: expected a slot of a tensor of the weights", tensor=name)
            expected, shape = list(weights.shape(tensor)), list(came.shape(name))
            if shape != expected:
                detail = f"{name!r}: expected the shape {expected} of its tensor, came {shape}"
                raise refuse("layout-mismatch", detail, tensor=name, expected=expected, came=shape)
            found.setdefault(slot, set()).add(tensor)
    if len(found) > SLOTS_MAX:
        raise refuse("validation-error", f"expected at most {SLOTS_MAX} slots, came {len(found)}")
    for slot, tensors in found.items():
        if len(tensors) < len(weights.names):
            missing = next(name for name in weights.names if name not in tensors)
            detail = f"slot {slot!r}: expected one tensor for each of the weights, {missing!r} is missing"
            raise refuse("layout-mismatch", detail, tensor=missing)
    return list(found)
