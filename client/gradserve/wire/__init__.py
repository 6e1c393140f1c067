"""Bytes ↔ tensors: safetensors frames whose data section is the flat float32 vector of a run.

A run's tensors lie end to end, in the byte order of their UTF-8 names, in one vector; `Layout` says where each lies.
A frame is an 8-byte little-endian header length, a JSON header padded with spaces so that the data starts on a
64-byte boundary, and the data. With the tensors in layout order the data *is* the vector: nothing is copied.

Every check is made on the header, before anything is allocated: bytes from strangers only ever raise `Refused`.
The front door: nothing else of this package is imported from outside.
"""

from .bounds import (
    ALIGNMENT,
    DTYPES,
    HEADER_BYTES_MAX,
    JSON_DEPTH_MAX,
    JSON_ELEMENTS_MAX,
    LAYOUT_BYTES_MAX,
    MEDIA_TYPE,
    MEDIA_TYPES,
    NAME_BYTES_MAX,
    PARAMETERS_MAX,
    RANK_MAX,
    RESERVED_PREFIX,
    TENSORS_MAX,
)
from .buffers import Buffers
from .frames import Frame, decode_frame, encode_frame
from .layout import Layout, check_user_names, is_real
from .nested import frame_from_json, tensors_to_json
from .numbers import allocate, narrow, widen
from .rows import RowIds
from .strict_json import parse_json

__all__ = [
    "ALIGNMENT",
    "DTYPES",
    "HEADER_BYTES_MAX",
    "JSON_DEPTH_MAX",
    "JSON_ELEMENTS_MAX",
    "LAYOUT_BYTES_MAX",
    "MEDIA_TYPE",
    "MEDIA_TYPES",
    "NAME_BYTES_MAX",
    "PARAMETERS_MAX",
    "RANK_MAX",
    "RESERVED_PREFIX",
    "TENSORS_MAX",
    "Buffers",
    "Frame",
    "Layout",
    "RowIds",
    "allocate",
    "check_user_names",
    "decode_frame",
    "encode_frame",
    "frame_from_json",
    "is_real",
    "narrow",
    "parse_json",
    "tensors_to_json",
    "widen",
]
