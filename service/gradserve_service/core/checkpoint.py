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
from gradserve.wire import RESERVED_PREFIX, Frame, Layout, check_user_names

from .arrays import Arrays
from .averages import AVERAGE_NUMBERS
from .control import Control
from .image import header_bytes, tensor_rows
from .optimizers import MEMORY_NAMES, NEVER_NEGATIVE, rule_for
from .plateau import FRESH, PlateauState
from .slots import cut, own_layouts

Float32 = NDArray[np.float32]
SLOTS_MAX = 12  # of a file from outside: no rule has more than ten
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
    own_layouts: Mapping[str, Layout] = field(default_factory=dict)  # of slots that are not as the weights are

    @property
    def size(self) -> int:
        """Bytes of weights and slots."""
        return self.weights.nbytes + sum(slot.nbytes for slot in self.slots.values())

    def slot_layout(self, name: str) -> Layout:
        """Where each tensor lies in a slot; of the weights, whose name is empty, where it lies in them."""
        return self.own_layouts.get(name, self.layout)

    @property
    def slot_shapes(self) -> dict[str, dict[str, list[int]] | None]:
        """The slots in their order: the shape of each tensor in it, None for the weights' own."""
        own = self.own_layouts
        return {name: _shapes(own[name]) if name in own else None for name in self.slots}


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
        own_layouts=arrays.own_layouts,
    )


def encode_checkpoint(saved: SavedState) -> list[bytes | memoryview]:
    """The file in pieces, header first; the arrays are not copied."""
    header: dict[str, Any] = {"__metadata__": {name: json.dumps(value) for name, value in _said(saved).items()}}
    begin = 0
    for slot, vector in {"": saved.weights, **saved.slots}.items():
        header.update(tensor_rows(saved.slot_layout(slot), slot, begin))
        begin += vector.nbytes
    return [header_bytes(header), *(vector.data.cast("B") for vector in (saved.weights, *saved.slots.values()))]


def _said(saved: SavedState) -> dict[str, Any]:
    return {
        "version": saved.version,
        "step": saved.step,
        "position": saved.position,
        "etag": saved.etag,
        "spec": saved.spec,
        "slots": saved.slot_shapes,
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
    own = {name: Layout.of(shapes) for name, shapes in names.items() if shapes is not None}
    sizes = [own.get(name, layout).parameters for name in ("", *names)]
    weights, *slots = cut(np.frombuffer(section, "<f4"), sizes)
    said["plateau"] = PlateauState(**said["plateau"])
    vectors = dict(zip(names, slots, strict=True))
    return SavedState(layout, weights, vectors, section=section, own_layouts=own, **said)


def _shapes(layout: Layout) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)}


def payload_frame(saved: SavedState) -> Frame:
    """Weights and slots end to end, as the payload of a `load` entry; its header says which slots they are."""
    section = saved.section
    if section is None:
        section = np.concatenate([saved.weights, *saved.slots.values()]).data.cast("B").toreadonly()
    vectors = (saved.weights, *saved.slots.values())
    layout = Layout.of({f"{number:02}": [vector.size] for number, vector in enumerate(vectors)})
    return Frame(layout, "float32", section, {})


# Files from outside


def _of_a_rule(name: str) -> str:
    known = MEMORY_NAMES | AVERAGE_NUMBERS
    if name not in known:
        raise ValueError(f"expected the numbers that a rule or an average keeps ({', '.join(sorted(known))})")
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
    stated = spec if said.spec is None else said.spec.canonical()
    known = {} if not stated else own_layouts(rule_for(RunSpec.model_validate(stated).optimizer).slots, layout)
    own = _slot_layouts(frame.layout, layout, known)
    views = frame.layout.views(frame.vector())
    vectors = []
    for slot, tensors in {"": layout, **own}.items():
        prefix = f"{RESERVED_PREFIX}{slot}/" if slot else ""
        vectors.append(tensors.flatten({name: views[prefix + name] for name in tensors.names}))
        if slot in NEVER_NEGATIVE and vectors[-1].size and vectors[-1].min() < 0:
            _refuse_negative(prefix, {name: views[prefix + name] for name in tensors.names})
    return SavedState(
        layout=layout,
        weights=vectors[0],
        slots=dict(zip(own, vectors[1:], strict=True)),
        spec=stated,
        step=said.step,
        memory=said.memory,
        plateau=PlateauState(**said.plateau.model_dump()),
        updates=said.updates,
        samples_seen=said.samples_seen,
        own_layouts={name: slot for name, slot in own.items() if name in known},
    )


def _slot_layouts(came: Layout, weights: Layout, known: Mapping[str, Layout]) -> dict[str, Layout]:
    """The slots of a file: each has the tensors that it should, in their shapes. `known`: not as the weights are."""
    found: dict[str, set[str]] = {}
    for name in came.names:
        if name.startswith(RESERVED_PREFIX):
            slot, _, tensor = name.removeprefix(RESERVED_PREFIX).partition("/")
            if not slot:
                detail = f"{name!r}: expected {RESERVED_PREFIX}<slot>/<tensor>, came an empty slot"
                raise refuse("validation-error", detail, tensor=name)
            layout = known.get(slot, weights)
            if tensor not in layout:
                raise refuse("unknown-tensor", f"{name!r}: expected a slot of a tensor of the weights", tensor=name)
            expected, shape = list(layout.shape(tensor)), list(came.shape(name))
            if shape != expected:
                detail = f"{name!r}: expected the shape {expected}, came {shape}"
                raise refuse("layout-mismatch", detail, tensor=name, expected=expected, came=shape)
            found.setdefault(slot, set()).add(tensor)
    if len(found) > SLOTS_MAX:
        raise refuse("validation-error", f"expected at most {SLOTS_MAX} slots, came {len(found)}")
    for slot, tensors in found.items():
        layout = known.get(slot, weights)
        if len(tensors) < len(layout.names):
            missing = next(name for name in layout.names if name not in tensors)
            detail = f"slot {slot!r}: expected one tensor for each of the weights, {missing!r} is missing"
            raise refuse("layout-mismatch", detail, tensor=missing)
    return {slot: known.get(slot, weights) for slot in found}


def _refuse_negative(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> None:
    name, least = next((name, x.min()) for name, x in tensors.items() if x.size and x.min() < 0)
    detail = f"{prefix + name!r}: expected no negative number, {float(least)!r} came: a root is taken"
    raise refuse("validation-error", detail, tensor=prefix + name)
