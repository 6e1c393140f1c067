"""Names and limits of the wire: each with its unit and its reason."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..problems import refuse

DTYPES: Final = ("float32", "bfloat16", "float16")
MEDIA_TYPE: Final = "application/vnd.safetensors"
MEDIA_TYPES: Final = (MEDIA_TYPE, "application/x-safetensors", "application/octet-stream")

METADATA_KEY: Final = "__metadata__"  # safetensors' own name for the strings beside the tensors
RESERVED_PREFIX: Final = "optimizer/"  # what a checkpoint holds beside the weights

ALIGNMENT: Final = 64  # bytes: a cache line, and the widest SIMD register
HEADER_BYTES_MAX: Final = 1 << 20  # a header is parsed before its sender has proved anything
LAYOUT_BYTES_MAX: Final = HEADER_BYTES_MAX - (64 << 10)  # leaves room for metadata in every frame of the layout
TENSORS_MAX: Final = 10_000  # each costs microseconds to check
NAME_BYTES_MAX: Final = 1_024
RANK_MAX: Final = 32  # what every NumPy can view
PARAMETERS_MAX: Final = 1 << 48  # dimensions multiply: no product of a shape may come near 64 bits
JSON_ELEMENTS_MAX: Final = 65_536  # as JSON a number is five times the bytes and a hundred times the work
JSON_DEPTH_MAX: Final = 64  # deeper than any tensor in its document

CODES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # dtype → safetensors' name
STORAGE: Final[dict[str, np.dtype[Any]]] = {
    "float32": np.dtype("<f4"),
    "bfloat16": np.dtype("<u2"),  # NumPy has no bfloat16: its bits
    "float16": np.dtype("<f2"),
}


def storage_of(dtype: str) -> np.dtype[Any]:
    """How elements of a dtype are kept. Raises `Refused` (dtype-unsupported)."""
    try:
        return STORAGE[dtype]
    except KeyError:
        raise refuse("dtype-unsupported", f"expected one of {', '.join(DTYPES)}, came {shown(dtype)}") from None


def shown(value: object) -> str:
    """What came, short enough for a message; of a list or an object only how much."""
    if isinstance(value, (dict, list, tuple)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value) if not isinstance(value, str) or value.isprintable() else ascii(value)
    return text if len(text) <= 80 else text[:79] + "…"


def encodable(text: str) -> bool:
    """Whether UTF-8 can write it: JSON's escapes can spell halves of pairs that nothing can."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
