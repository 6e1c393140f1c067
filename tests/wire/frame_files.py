"""The frames under `openapi/frames/`: what a reader of the wire has to read, and what it has to refuse.

`python tests/wire/frame_files.py` writes them anew. Each good frame has a JSON file beside it with what it holds; a
hostile one is named by what is wrong, its folder by the code of the refusal.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

FRAMES = Path(__file__).resolve().parents[2] / "openapi" / "frames"


def frame(header: object, data: bytes = b"", *, pad: int = 64) -> bytes:
    """A frame of any header: text, bytes, or what JSON makes of an object. `pad`: where the data may begin."""
    text = header if isinstance(header, bytes) else header if isinstance(header, str) else json.dumps(header)
    encoded = text if isinstance(text, bytes) else text.encode()
    encoded += b" " * (-(8 + len(encoded)) % pad)
    return struct.pack("<Q", len(encoded)) + encoded + data


def entry(shape: object, begin: object, end: object, dtype: object = "F32") -> dict[str, object]:
    """One tensor of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def floats(*values: float) -> bytes:
    """float32, little-endian."""
    return struct.pack(f"<{len(values)}f", *values)


def halves(*values: float) -> bytes:
    """float16, little-endian."""
    return struct.pack(f"<{len(values)}e", *values)


W = {"w": entry([2], 0, 8)}
TWO = floats(1.5, -2.0)

# name → (frame, dtype, tensors as nested lists, metadata)
GOOD: dict[str, tuple[bytes, str, dict[str, object], dict[str, str]]] = {
    "float32": (frame(W, TWO), "float32", {"w": [1.5, -2.0]}, {}),
    "float16": (frame({"w": entry([2], 0, 4, "F16")}, halves(1.5, -2.0)), "float16", {"w": [1.5, -2.0]}, {}),
    "bfloat16": (
        frame({"w": entry([2], 0, 4, "BF16")}, bytes.fromhex("c03f00c0")),
        "bfloat16",
        {"w": [1.5, -2.0]},
        {},
    ),
    "metadata": (
        frame({"__metadata__": {"base": '"1-ä"', "samples": "32"}, **W}, TWO),
        "float32",
        {"w": [1.5, -2.0]},
        {"base": '"1-ä"', "samples": "32"},
    ),
    "metadata-last": (frame({**W, "__metadata__": {"a": ""}}, TWO), "float32", {"w": [1.5, -2.0]}, {"a": ""}),
    "metadata-empty": (frame({"__metadata__": {}, **W}, TWO), "float32", {"w": [1.5, -2.0]}, {}),
    "no-tensors": (frame({}), "float32", {}, {}),
    "scalar": (frame({"s": entry([], 0, 4)}, floats(3.0)), "float32", {"s": 3.0}, {}),
    "zero-size-tensors": (
        frame({"a": entry([0], 0, 0), "b": entry([2, 0, 3], 8, 8), "w": entry([2], 0, 8)}, TWO),
        "float32",
        {"a": [], "b": [[], []], "w": [1.5, -2.0]},
        {},
    ),
    "names-in-another-order": (
        frame({"w": entry([2], 0, 8), "b": entry([1], 8, 12)}, floats(1.5, -2.0, 7.0)),
        "float32",
        {"b": [7.0], "w": [1.5, -2.0]},
        {},
    ),
    "data-in-another-order": (
        frame({"b": entry([1], 8, 12), "w": entry([2], 0, 8)}, floats(1.5, -2.0, 7.0)),
        "float32",
        {"b": [7.0], "w": [1.5, -2.0]},
        {},
    ),
    "mixed-dtypes": (
        frame(
            {"h": entry([2], 8, 12, "F16"), "i": entry([1], 12, 14, "BF16"), "w": entry([2], 0, 8)},
            TWO + halves(0.5, 4.0) + bytes.fromhex("803f"),
        ),
        "float32",
        {"h": [0.5, 4.0], "i": [1.0], "w": [1.5, -2.0]},
        {},
    ),
    "unpadded-header": (frame({"w": entry([2], 0, 8), "__metadata__": {"a": "b"}}, TWO, pad=1), "float32",
                        {"w": [1.5, -2.0]}, {"a": "b"}),
    "names-of-all-scripts": (
        frame({"層.重み": entry([1], 4, 8), "a\n\"b\\": entry([1], 0, 4), "🙂": entry([1], 8, 12)}, floats(1, 2, 3)),
        "float32",
        {"a\n\"b\\": [1.0], "層.重み": [2.0], "🙂": [3.0]},
        {},
    ),
}  # fmt: skip

_TENSOR = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

ROWS = {"w": entry([1, 2], 0, 8), "w:rows": entry([1], 8, 16, "I64")}
DECLARED = {"rows": '["w"]'}
ONE_ROW = TWO + struct.pack("<q", 0)

MALFORMED: dict[str, bytes] = {
    "empty-file": b"",
    "header-length-cut-off": b"\x10\x00\x00",
    "header-length-beyond-the-file": struct.pack("<Q", 100) + b"{}",
    "header-length-beyond-1-mib": struct.pack("<Q", (1 << 20) + 1) + b"{}",
    "header-length-overflows": struct.pack("<Q", 2**64 - 1) + b"{}",
    "header-length-zero": struct.pack("<Q", 0),
    "header-not-utf8": frame(b'{"\xff\xfe":{}}'),
    "header-not-json": frame("{w}"),
    "header-not-an-object": frame("[]"),
    "header-with-leading-space": frame(" {}"),
    "header-with-byte-order-mark": frame("\ufeff{}"),
    "header-too-deep": frame('{"w":' + "[" * 100_000),
    "header-with-text-behind-it": frame("{}{}"),
    "header-with-a-comma-missing": frame('{"__metadata__":{}' + _TENSOR + "}", TWO),
    "header-with-a-dangling-comma": frame('{"__metadata__":{},}'),
    "header-with-nan": frame('{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', TWO),
    "header-with-a-huge-number": frame('{"w":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,8]}}', TWO),
    "tensor-twice": frame("{" + _TENSOR + "," + _TENSOR + "}", TWO),
    "tensor-key-twice": frame('{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', TWO),
    "tensor-key-missing": frame({"w": {"dtype": "F32", "shape": [2]}}, TWO),
    "tensor-key-unknown": frame({"w": {**entry([2], 0, 8), "stride": [1]}}, TWO),
    "tensor-not-an-object": frame({"w": [2]}, TWO),
    "metadata-twice": frame('{"__metadata__":{},"__metadata__":{},' + _TENSOR + "}", TWO),
    "metadata-key-twice": frame('{"__metadata__":{"a":"1","a":"2"},' + _TENSOR + "}", TWO),
    "metadata-value-a-number": frame({"__metadata__": {"samples": 32}, **W}, TWO),
    "metadata-value-an-object": frame({"__metadata__": {"a": {}}, **W}, TWO),
    "metadata-a-list": frame({"__metadata__": [], **W}, TWO),
    "metadata-null": frame({"__metadata__": None, **W}, TWO),
    "metadata-half-of-a-surrogate-pair": frame('{"__metadata__":{"a":"\\ud800"},' + _TENSOR + "}", TWO),
    "name-empty": frame({"": entry([2], 0, 8)}, TWO),
    "name-too-long": frame({"w" * 1025: entry([2], 0, 8)}, TWO),
    "name-half-of-a-surrogate-pair": frame('{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', TWO),
    "dtype-a-number": frame({"w": entry([2], 0, 8, 32)}, TWO),
    "shape-a-number": frame({"w": entry(2, 0, 8)}, TWO),
    "shape-negative": frame({"w": entry([-2], 0, 8)}, TWO),
    "shape-twice-negative": frame({"w": entry([-1, -2], 0, 8)}, TWO),
    "shape-of-floats": frame({"w": entry([2.0], 0, 8)}, TWO),
    "shape-of-booleans": frame({"w": entry([True, 2], 0, 8)}, TWO),
    "shape-of-strings": frame({"w": entry(["2"], 0, 8)}, TWO),
    "shape-overflows": frame({"w": entry([2**32, 2**32], 0, 0)}),
    "shape-overflows-around-zero": frame({"w": entry([0, 2**62], 0, 0)}),
    "shape-of-33-dimensions": frame({"w": entry([1] * 33, 0, 4)}, floats(1.0)),
    "offsets-a-number": frame({"w": {"dtype": "F32", "shape": [2], "data_offsets": 0}}, TWO),
    "offsets-of-three": frame({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}}, TWO),
    "offsets-of-floats": frame({"w": entry([2], 0.0, 8.0)}, TWO),
    "offsets-of-booleans": frame({"w": entry([0], False, False)}),
    "offsets-negative": frame({"w": entry([2], -8, 0)}, TWO),
    "offsets-reversed": frame({"w": entry([2], 8, 0)}, TWO),
    "offsets-beyond-the-data": frame({"w": entry([4], 0, 16)}, TWO),
    "offsets-beyond-64-bits": frame({"w": entry([2], 2**64, 2**64 + 8)}, TWO),
    "offsets-not-of-the-shape": frame({"w": entry([1], 0, 8)}, TWO),
    "data-with-a-hole": frame({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, floats(1, 2, 3)),
    "data-with-a-hole-at-the-start": frame({"a": entry([1], 4, 8)}, TWO),
    "data-with-an-overlap": frame({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, floats(1, 2, 3)),
    "data-shared-by-two-tensors": frame({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, TWO),
    "data-with-bytes-behind-it": frame(W, TWO + b"\0"),
    "data-without-tensors": frame({}, TWO),
    "data-cut-off": frame(W, TWO[:-1]),
    "empty-tensor-inside-another": frame({"a": entry([0], 4, 4), "w": entry([2], 0, 8)}, TWO),
    "rows-declared-without-a-list": frame({"__metadata__": {"rows": "w"}, **ROWS}, ONE_ROW),
    "rows-declared-as-numbers": frame({"__metadata__": {"rows": "[1]"}, **ROWS}, ONE_ROW),
    "rows-declared-twice": frame({"__metadata__": {"rows": '["w","w"]'}, **ROWS}, ONE_ROW),
    "rows-without-ids": frame({"__metadata__": DECLARED, "w": entry([1, 2], 0, 8)}, TWO),
    "rows-without-values": frame({"__metadata__": DECLARED, "w:rows": entry([1], 0, 8, "I64")}, TWO),
    "rows-more-than-ids": frame({"__metadata__": DECLARED, **ROWS, "w": entry([2, 1], 0, 8)}, ONE_ROW),
    "rows-of-a-scalar": frame(
        {"__metadata__": DECLARED, "w": entry([], 0, 4), "w:rows": entry([1], 4, 8, "I32")}, floats(1.0, 0.0)
    ),
    "rows-with-ids-in-a-matrix": frame(
        {"__metadata__": DECLARED, **ROWS, "w:rows": entry([1, 1], 8, 16, "I64")}, ONE_ROW
    ),
}

UNSUPPORTED: dict[str, bytes] = {
    "dtype-float64": frame({"w": entry([1], 0, 8, "F64")}, TWO),
    "dtype-int64": frame({"w": entry([1], 0, 8, "I64")}, TWO),
    "dtype-bool": frame({"w": entry([8], 0, 8, "BOOL")}, TWO),
    "dtype-invented": frame({"w": entry([2], 0, 8, "F33")}, TWO),
    "dtype-in-lower-case": frame({"w": entry([2], 0, 8, "f32")}, TWO),
    "rows-with-ids-of-floats": frame(
        {"__metadata__": DECLARED, "w": entry([1, 2], 0, 8), "w:rows": entry([1], 8, 12)}, floats(1, 2, 0)
    ),
    "rows-with-ids-that-nobody-declares": frame(ROWS, ONE_ROW),
}

HOSTILE: dict[str, tuple[str, bytes]] = {
    **{name: ("malformed-tensors", content) for name, content in MALFORMED.items()},
    **{name: ("dtype-unsupported", content) for name, content in UNSUPPORTED.items()},
}


def files() -> dict[str, bytes]:
    """Path under `openapi/frames/` → content."""
    made: dict[str, bytes] = {}
    for name, (content, dtype, tensors, metadata) in GOOD.items():
        holds = {"dtype": dtype, "tensors": tensors, "metadata": metadata}
        made[f"good/{name}.safetensors"] = content
        made[f"good/{name}.json"] = json.dumps(holds, ensure_ascii=False, indent=1).encode() + b"\n"
    for name, (code, content) in HOSTILE.items():
        made[f"hostile/{code}/{name}.safetensors"] = content
    return made


def write() -> None:
    """Bring the folder to what `files` says."""
    for path in FRAMES.rglob("*.*"):
        path.unlink()
    for name, content in files().items():
        target = FRAMES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    write()
