"""openapi/wire.md shows bytes: they are what it says, to our reader and to the safetensors library."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gradserve.specs import PushFields
from gradserve.wire import decode_frame, encode_frame
from wire.frame_files import FRAMES, HOSTILE
from wire.library import load

DOCUMENT = (FRAMES.parent / "wire.md").read_text()
GRADIENT = {"b": 0.5, "w": [[1.0, -2.0], [3.0, -4.0]]}
WEIGHTS = {"b": 0.25, "w": [[1.5, 2.5], [-3.5, 0.0]]}
SHOWN = {"push": GRADIENT, "weights": WEIGHTS, "weights-bfloat16": WEIGHTS}


def shown(name: str) -> bytes:
    """The bytes of a dump: sixteen to a line, between the offset and the text."""
    (dump,) = re.findall(rf"^```hexdump {name}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    content = b""
    for line in dump.splitlines():
        offset, _, rest = line.partition("  ")
        assert int(offset, 16) == len(content)
        content += bytes.fromhex(rest.partition("|")[0])
    return content


@pytest.mark.parametrize("name", SHOWN)
def test_both_readers_find_the_tensors_that_the_text_tells(name: str) -> None:
    frame = decode_frame(shown(name))
    ours = frame.layout.views(frame.vector())
    theirs = load(shown(name))
    for tensor, expected in SHOWN[name].items():
        assert np.array_equal(ours[tensor], expected)
        assert np.array_equal(theirs[tensor].astype(np.float32), expected)


@pytest.mark.parametrize("name", SHOWN)
def test_our_writer_writes_these_very_bytes(name: str) -> None:
    frame = decode_frame(shown(name))
    written = encode_frame(frame.layout, frame.vector(), frame.metadata, dtype=frame.dtype)
    assert b"".join(bytes(piece) for piece in written) == shown(name)


def test_the_metadata_of_the_push_says_what_a_json_push_would() -> None:
    fields = PushFields.from_metadata(decode_frame(shown("push")).metadata)
    said = {"base": '"3-9f86d081884c7d65"', "samples": 32.0, "loss": 0.75, "generation": 1}
    assert fields.model_dump(exclude_unset=True) == said


def test_every_field_of_a_push_is_in_the_table() -> None:
    table = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    assert set(PushFields.model_fields) | {"codec", "format"} <= table


def test_the_rows_are_what_the_text_tells() -> None:
    """And our writer writes these very bytes."""
    frame = decode_frame(shown("rows"), rows=True)
    assert {name: ids.tolist() for name, ids in frame.rows.items()} == {"emb": [1, 0]}
    assert frame.layout.views(frame.vector())["emb"].tolist() == [[3, 4], [1, 2]]
    assert load(shown("rows"))["emb:rows"].tolist() == [1, 0]
    assert b"".join(bytes(piece) for piece in frame.stored()) == shown("rows")


def test_every_hostile_frame_is_named() -> None:
    named = set(re.findall(r"`([a-z0-9-]+)`", DOCUMENT.partition("| wrong in | files |")[2]))
    assert set(HOSTILE) <= named
