"""Bytes from strangers are refused by name, and before anything is allocated for them."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gradserve.wire.frames
from gradserve.problems import Refused
from gradserve.wire import HEADER_BYTES_MAX, Layout, decode_frame, encode_frame
from wire.frame_files import GOOD, HOSTILE, entry, floats, frame
from wire.library import load


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_frame_is_refused(name, monkeypatch):
    """With the code of its folder, and without a byte of memory for its tensors."""
    code, content = HOSTILE[name]
    monkeypatch.setattr(gradserve.wire.frames, "allocate", None)
    with pytest.raises(Refused) as refused:
        decode_frame(content, rows=True)
    assert refused.value.rejection.code == code
    assert len(refused.value.rejection.detail) < 400


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_frame_is_refused_where_its_layout_is_known(name):
    """The short way for known headers lets nothing pass that the long way refuses."""
    alive = [Layout.of({}), Layout.of({"w": (2,)}), Layout.of({"w": (1,)}), Layout.of({"a": (2,), "b": (2,)})]
    for layout in alive:
        for dtype in ("float32", "bfloat16", "float16"):
            layout.header(dtype)
    code, content = HOSTILE[name]
    with pytest.raises(Refused) as refused:
        decode_frame(content, rows=True)
    assert refused.value.rejection.code == code


def test_a_header_of_one_mebibyte_is_read_and_a_byte_more_is_not():
    head = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    for extra in (0, 1):
        length = HEADER_BYTES_MAX + extra
        content = struct.pack("<Q", length) + head.ljust(length) + floats(1, 2)
        if extra:
            with pytest.raises(Refused, match="malformed-tensors: expected a header of at most 1048576"):
                decode_frame(content, rows=True)
        else:
            assert decode_frame(content, rows=True).vector().tolist() == [1, 2]


def test_ten_thousand_tensors_are_read_and_one_more_is_not():
    """The library reads 300,000 of them."""
    tensors = {f"{i}": entry([0], 0, 0) for i in range(10_000)}
    assert len(decode_frame(frame(tensors)).layout.names) == 10_000
    tensors["one more"] = entry([0], 0, 0)
    with pytest.raises(Refused, match="malformed-tensors: expected at most 10000 tensors, came 10001"):
        decode_frame(frame(tensors))


def test_names_that_leave_no_room_for_metadata_are_refused():
    content = frame({f"{i:01000}": entry([0], 0, 0) for i in range(960)})
    with pytest.raises(Refused, match="validation-error: names and shapes take"):
        decode_frame(content, rows=True)


def test_many_keys_with_one_of_them_twice_are_refused_in_linear_time():
    """Quadratic work here would be minutes for one request: the test would not end."""
    keys = ",".join(f'"{i}":0' for i in range(80_000))
    with pytest.raises(Refused, match="the key '79999' comes twice"):
        decode_frame(frame("{" + keys + ',"79999":0}'))


def test_names_under_a_reserved_prefix_are_read():
    """Checkpoints have them; `check_user_names` keeps them out of weights and gradients."""
    assert decode_frame(frame({"optimizer/m": entry([1], 0, 4)}, floats(1))).layout.names == ("optimizer/m",)


def read_or_refused(content):
    """The frame or None; anything else that is raised fails the test."""
    try:
        read = decode_frame(content, rows=True)
    except Refused:
        return None
    width = {"float32": 4, "float16": 2, "bfloat16": 2}[read.dtype]
    assert read.raw.nbytes == read.layout.parameters * width
    assert read.vector().shape == (read.layout.parameters,)
    assert decode_frame(b"".join(read.stored()), rows=True).digest == read.digest
    return read


SEEDS = [content for content, *_ in GOOD.values()] + [
    content for _, content in HOSTILE.values() if len(content) < 10_000
]


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
@settings(max_examples=400)
def test_changed_bytes_are_read_or_refused(content, changes):
    """Whatever a mutation makes of a frame, nothing but a refusal is raised."""
    mutated = bytearray(content)
    for place, value in changes:
        if mutated:
            mutated[place % len(mutated)] = value
    read_or_refused(mutated)


@given(st.sampled_from(SEEDS), st.integers(0, 400), st.integers(0, 40), st.binary(max_size=40))
@settings(max_examples=400)
def test_cut_and_spliced_bytes_are_read_or_refused(content, start, length, inserted):
    read_or_refused(content[:start] + inserted + content[start + length :])


@given(st.binary(max_size=200))
@example(b"\x02" + b"\0" * 7 + b"{}")
def test_random_bytes_are_read_or_refused(content):
    read_or_refused(content)


SCALARS = st.sampled_from([None, True, -1, 0, 4, 2**64, 0.0, 1.5, float("nan"), "", "F32", "F64"])
JSON = SCALARS | st.lists(SCALARS | st.integers(0, 24), max_size=2) | st.dictionaries(st.just("shape"), SCALARS)
TENSOR = st.tuples(st.lists(st.integers(0, 3), max_size=2), st.sampled_from(["F32", "F16", "BF16"]))
KEYS = st.sampled_from(["dtype", "shape", "data_offsets", "data_offsets", "stride"])


@st.composite
def headers(draw):
    """A good header, and then at most two things in it that may be wrong."""
    header, end = {}, 0
    for name in draw(st.permutations("abc")):
        shape, dtype = draw(TENSOR)
        size = int(np.prod(shape)) * (4 if dtype == "F32" else 2)
        header[name] = entry(shape, end, end + size, dtype)
        end += size
    for name, key, value in draw(st.lists(st.tuples(st.sampled_from("abc"), KEYS, JSON), max_size=2)):
        header[name][key] = value
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.just("k"), st.text(max_size=2)) | JSON)
    return header, end


@given(headers())
@settings(max_examples=400)
def test_any_header_is_read_or_refused_and_the_library_reads_what_we_read(made):
    """We are stricter than the library, never more lenient."""
    header, data_bytes = made
    content = frame(json.dumps(header), bytes(range(data_bytes)))
    read = read_or_refused(content)
    if read is not None:
        theirs = load(content)
        for name, view in read.layout.views(read.vector()).items():
            assert np.array_equal(theirs[name].astype(np.float32), view, equal_nan=True)


@given(
    st.permutations(["a", "b", "c"]),
    st.permutations(["a", "b", "c"]),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_any_order_of_names_and_data_gives_the_same_frame(names, places, sizes):
    """The names' order in the header and the tensors' order in the data are free."""
    size = dict(zip("abc", sizes, strict=True))
    begin, at = {}, 0
    for name in places:
        begin[name] = at
        at += 4 * size[name]
    numbers = {name: [ord(name) + i for i in range(size[name])] for name in "abc"}
    body = floats(*(number for name in places for number in numbers[name]))
    content = frame({n: entry([size[n]], begin[n], begin[n] + 4 * size[n]) for n in names}, body)
    layout = Layout.of({n: (size[n],) for n in "abc"})
    expected = np.array([*numbers["a"], *numbers["b"], *numbers["c"]], np.float32)
    assert decode_frame(content, rows=True).digest == decode_frame(b"".join(encode_frame(layout, expected))).digest
