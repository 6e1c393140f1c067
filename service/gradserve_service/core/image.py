"""Images: the whole state of a run at one position, as a safetensors file.

The data section is the tables of the history, float64, then the weights' vector and each slot's, end to end; the header
names every tensor in them: the weights under their own names, slots as `optimizer/<slot>/<tensor>`, the sum of an open
batch as `optimizer/batch/<tensor>`, the history as `optimizer/history/<table>`. Control state is JSON in the
metadata, with the version of the arithmetic's meaning and a fingerprint of the machine that computed the numbers.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128, xxh3_128_hexdigest

from gradserve.wire import ALIGNMENT, RESERVED_PREFIX, Layout, allocate

from .accumulating import Accumulator
from .arrays import Arrays
from .control import Control
from .history import History
from .slots import cut, own_layouts

SEMANTICS = 2  # raised when `advance` or `update` come to mean something else
METADATA_KEY = "gradserve"
BATCH = "batch"  # the sum of an open batch, beside the slots: no slot has this name
HISTORY_PREFIX = f"{RESERVED_PREFIX}history/"


class DamagedImage(Exception):
    """The bytes are not an image that this code wrote for this run."""


def encode_image(control: Control, arrays: Arrays) -> list[bytes | memoryview]:
    """The image in pieces, header first; the arrays are not copied."""
    vectors: list[tuple[str, NDArray[Any]]] = list(_vectors(arrays))
    state = {
        "semantics": SEMANTICS,
        "host": f"{platform.machine()} numpy {np.__version__}",
        "control": control.to_json(),
        "slots": list(arrays.slots) if vectors else [],
        "memory": arrays.memory,  # doubles in their shortest exact form
        **_batch_json(arrays),
        "step": arrays.step,
        "version": arrays.version,
        "history": arrays.history.to_json(),
    }
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: json.dumps(state, separators=(",", ":"))}}
    begin = 0
    tables = arrays.history.vectors()
    for name, table in tables:
        offsets = [begin, begin + table.nbytes]
        header[f"{HISTORY_PREFIX}{name}"] = {"dtype": "F64", "shape": list(table.shape), "data_offsets": offsets}
        begin += table.nbytes
    for prefix, vector in vectors:
        header.update(tensor_rows(arrays.slot_layout(prefix), prefix, begin))
        begin += vector.nbytes
    return [
        header_bytes(header),
        *(_bytes_of(table) for _, table in tables),
        *(_bytes_of(vector) for _, vector in vectors),
    ]


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _vectors(arrays: Arrays) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The weights under no name, then the slots under theirs, then the sum of an open batch."""
    if arrays.weights is not None:
        yield "", arrays.weights
        yield from arrays.slots.items()
    if arrays.accumulator is not None:
        yield BATCH, arrays.accumulator.total


def _batch_json(arrays: Arrays) -> dict[str, Any]:
    return {} if arrays.accumulator is None else {"batch": arrays.accumulator.to_json()}


def header_bytes(header: dict[str, Any]) -> bytes:
    """A safetensors header with its length, padded so that the data begins on a boundary."""
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-(8 + len(raw)) % ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw


def tensor_rows(layout: Layout, slot: str, begin: int) -> dict[str, Any]:
    """The tensors of one vector that lies at byte `begin`: the weights (no slot), or a slot's."""
    prefix = f"{RESERVED_PREFIX}{slot}/" if slot else ""
    return {
        f"{prefix}{row['name']}": {
            "dtype": "F32",
            "shape": row["shape"],
            "data_offsets": [begin + 4 * row["offset"], begin + 4 * (row["offset"] + layout.size(row["name"]))],
        }
        for row in layout.describe()
    }


def image_digest(pieces: Sequence[bytes | memoryview]) -> str:
    """xxh3-128 of the image's bytes, hex."""
    digest = xxh3_128()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def state_digest(control: Control, arrays: Arrays) -> str:
    """xxh3-128 of control, the rule's memory, weights and slots, hex: equal states have it equal on every host.

    The history is left out: nothing that is applied is made of it.
    """
    small = {
        "semantics": SEMANTICS,
        "control": control.to_json(),
        "slots": [name for name, _ in _vectors(arrays)],
        "memory": arrays.memory,
        **_batch_json(arrays),
        "step": arrays.step,
        "version": arrays.version,
    }
    pieces = [json.dumps(small, separators=(",", ":"), sort_keys=True).encode()]
    return image_digest([*pieces, *(_bytes_of(vector) for _, vector in _vectors(arrays))])


def decode_image(
    image: memoryview,
    uid: str,
    creation: bytes,
    digest: str,
    new_buffer: Callable[[int], NDArray[np.float32]] = allocate,
) -> tuple[Control, Arrays]:
    """The state in an image, equal to the one encoded bit for bit. Raises `DamagedImage`."""
    if xxh3_128_hexdigest(image) != digest:
        raise DamagedImage("the image's bytes are not the ones that were published")
    size = int.from_bytes(image[:8], "little")
    header = json.loads(bytes(image[8 : 8 + size]))
    state = json.loads(header["__metadata__"][METADATA_KEY])
    if state["semantics"] != SEMANTICS:
        raise DamagedImage(f"the image has semantics {state['semantics']}, this server has {SEMANTICS}")
    control = Control.from_json(uid, creation, state["control"])
    arrays = Arrays(control.spec, control.layout, step=state["step"], version=state["version"])
    arrays.memory = state.get("memory", {})
    arrays.history = History.from_json(state["history"], _read_tables(header, image[8 + size :]))
    if control.layout is not None:
        arrays.own_layouts = own_layouts(arrays.rule.slots, control.layout)
        batch = state.get("batch")
        names = ["", *state["slots"], *([] if batch is None else [BATCH])]
        sizes = [arrays.slot_layout(name).parameters for name in names]
        section = image[len(image) - 4 * sum(sizes) :]
        vectors = dict(zip(names, _read_vectors(section, sizes, new_buffer), strict=True))
        arrays.weights = vectors[""]
        arrays.slots = {name: vectors[name] for name in state["slots"]}
        if batch is not None:
            arrays.accumulator = Accumulator.from_json(batch, vectors[BATCH])
    return control, arrays


def _read_vectors(
    section: memoryview, sizes: Sequence[int], new_buffer: Callable[[int], NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Copies: slots are written in place, and the image's own memory goes back to whoever read it."""
    vectors = [new_buffer(size) for size in sizes]
    for vector, source in zip(vectors, cut(np.frombuffer(section, "<f4"), sizes), strict=True):
        np.copyto(vector, source)
    return vectors


def _read_tables(header: Mapping[str, Any], section: memoryview) -> dict[str, NDArray[np.float64]]:
    """The tables of the history, as views."""
    found = {}
    for name, tensor in header.items():
        if name.startswith(HISTORY_PREFIX):
            start, stop = tensor["data_offsets"]
            rows = np.frombuffer(section[start:stop], "<f8").reshape(tensor["shape"])
            found[name.removeprefix(HISTORY_PREFIX)] = rows
    return found
