"""Frames: safetensors files whose data section is the vector."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_hexdigest

from gradserve.problems import Refused
from gradserve.wire import ALIGNMENT, DTYPES, Layout, allocate, decode_frame, encode_frame
from wire.frame_files import FRAMES, GOOD, entry, files, floats, frame
from wire.library import load

NUMPY_DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16),
                "bfloat16": np.dtype(ml_dtypes.bfloat16)}  # fmt: skip


@pytest.fixture
def layout():
    return Layout.of({"w": (2, 3), "b": (3,), "s": (), "none": (0,)})


@pytest.fixture
def vector():
    return np.linspace(-2, 2, 10).astype(np.float32)


def joined(pieces):
    return b"".join(pieces)


def test_the_files_under_openapi_are_the_ones_that_the_script_makes():
    """Run `python tests/wire/frame_files.py` after changing it."""
    there = {path.relative_to(FRAMES).as_posix(): path.read_bytes() for path in FRAMES.rglob("*.*")}
    assert there == files()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_frame_holds_what_the_json_beside_it_says(name):
    content, dtype, tensors, metadata = GOOD[name]
    for _ in range(2):  # parsed first, known the second time
        read = decode_frame(content)
        assert read.dtype == dtype
        assert read.metadata == metadata
        assert {key: view.tolist() for key, view in read.layout.views(read.vector()).items()} == tensors
        assert list(read.layout.names) == sorted(tensors, key=str.encode)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_frame_is_one_that_the_library_reads(name):
    content, _, tensors, _ = GOOD[name]
    assert {name: value.astype(np.float32).tolist() for name, value in load(content).items()} == tensors


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metadata", [None, {"base": '"é"', "samples": "3"}])
def test_the_library_reads_what_we_write(layout, vector, dtype, metadata):
    content = joined(encode_frame(layout, vector, metadata, dtype=dtype))
    tensors = load(content)
    assert set(tensors) == set(layout.names)
    for name, view in layout.views(vector).items():
        assert tensors[name].dtype == NUMPY_DTYPES[dtype]
        assert np.array_equal(tensors[name], view.astype(NUMPY_DTYPES[dtype]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metadata", [None, {"base": '"é"', "samples": "3"}])
def test_we_read_what_the_library_writes(layout, vector, dtype, metadata):
    tensors = {name: view.astype(NUMPY_DTYPES[dtype]) for name, view in layout.views(vector).items()}
    read = decode_frame(safetensors.numpy.save(tensors, metadata))
    assert read.layout is layout
    assert read.dtype == dtype
    assert read.metadata == (metadata or {})
    assert np.array_equal(read.vector(), vector.astype(NUMPY_DTYPES[dtype]).astype(np.float32))


def test_we_read_the_librarys_order_of_mixed_dtypes():
    """It sorts by dtype before it sorts by name."""
    read = decode_frame(safetensors.numpy.save({"a": np.ones(3, np.float16), "b": np.full(2, 2, np.float32)}))
    assert read.dtype == "float32"
    assert read.vector().tolist() == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metadata", [None, {"loss": "0.7"}])
def test_what_is_encoded_is_decoded(layout, vector, dtype, metadata):
    read = decode_frame(joined(encode_frame(layout, vector, metadata, dtype=dtype)))
    assert read.layout is layout
    assert read.dtype == dtype
    assert read.metadata == (metadata or {})
    assert np.array_equal(read.vector(), vector.astype(NUMPY_DTYPES[dtype]).astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metadata", [None, {"a": "b" * 77}])
def test_the_data_starts_on_a_cache_line(layout, dtype, metadata):
    header = layout.header(dtype, metadata)
    assert len(header) % ALIGNMENT == 0
    assert int.from_bytes(header[:8], "little") == len(header) - 8
    assert header[8:9] == b"{"
    assert header[8:].rstrip(b" ")[-1:] == b"}"
    assert json.loads(header[8:]).get("__metadata__") == metadata


def test_the_header_without_metadata_is_made_once(layout):
    assert layout.header() is layout.header("float32", {})


def test_encoding_float32_copies_nothing(layout, vector):
    header, payload = encode_frame(layout, vector)
    assert isinstance(header, bytes)
    assert np.shares_memory(np.frombuffer(payload, np.float32), vector)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decoding_in_layout_order_copies_nothing(layout, vector, kind):
    """The view is read-only even where the buffer is not; it lives as long as the frame."""
    content = kind(joined(encode_frame(layout, vector)))
    for _ in range(2):
        read = decode_frame(content)
        assert np.shares_memory(read.vector(), np.frombuffer(content, np.uint8))
        assert not read.vector().flags.writeable
        assert read.raw.readonly


def test_a_buffer_of_the_pool_is_decoded_where_it_lies(layout, vector):
    content = joined(encode_frame(layout, vector))
    buffer = allocate(len(content) // 4)
    buffer.data.cast("B")[:] = content
    assert decode_frame(buffer.data).vector().ctypes.data % ALIGNMENT == 0


def test_data_that_is_not_aligned_is_copied(layout, vector):
    content = joined(encode_frame(layout, vector))
    shifted = memoryview(b"x" + content)[1:]
    read = decode_frame(shifted)
    assert read.vector().flags.aligned
    assert np.array_equal(read.vector(), vector)


def test_a_frame_without_parameters_can_be_written_and_read():
    for layout in (Layout.of({}), Layout.of({"none": (0, 3)})):
        for vector in (None, np.zeros(0, np.float32)):
            for metadata in (None, {"a": "b"}):
                read = decode_frame(joined(encode_frame(layout, vector, metadata)))
                assert read.layout is layout
                assert read.vector().shape == (0,)
                assert read.size == len(joined(read.stored()))


@pytest.mark.parametrize(
    "wrong", [np.zeros(9, np.float32), np.zeros(10), np.zeros(20, np.float32)[::2], np.zeros((2, 5), np.float32), None]
)
def test_only_a_contiguous_float32_vector_of_the_layout_is_encoded(layout, wrong):
    with pytest.raises(Refused, match=r"^layout-mismatch: expected a "):
        encode_frame(layout, wrong)


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, {"a": "\ud800"}])
def test_metadata_is_text(layout, metadata):
    with pytest.raises(Refused, match=r"^validation-error: expected metadata"):
        layout.header(metadata=metadata)


def test_metadata_beyond_the_header_is_too_large(layout):
    with pytest.raises(Refused, match=r"^too-large: expected a header of at most"):
        layout.header(metadata={"a": "b" * (1 << 20)})


def test_every_layout_has_room_for_metadata():
    """The largest header that a layout may have still takes the largest cursor."""
    names = [f"{i:0900}" for i in range(900)]
    layout = Layout.of({name: (1,) for name in names})
    vector = np.zeros(900, np.float32)
    assert decode_frame(joined(encode_frame(layout, vector, {"cursor": "\x01" * 1024}))).layout is layout


# ------------------------------------------------------------------------------------------------- canonical form


def test_the_stored_form_is_the_frame_without_metadata(layout, vector):
    read = decode_frame(joined(encode_frame(layout, vector, {"loss": "1"})))
    stored = joined(read.stored())
    assert read.size == len(stored)
    again = decode_frame(stored)
    assert again.metadata == {}
    assert again.layout is layout
    assert bytes(again.raw) == bytes(read.raw)


def test_the_digest_covers_the_stored_form_and_no_metadata(layout, vector):
    read = decode_frame(joined(encode_frame(layout, vector, {"loss": "1"})))
    assert read.digest == xxh3_128_hexdigest(joined(read.stored()))
    assert read.digest == decode_frame(joined(encode_frame(layout, vector))).digest
    assert len(read.digest) == 32


def test_the_digest_does_not_depend_on_the_order_in_the_file():
    one = decode_frame(frame({"b": entry([1], 8, 12), "w": entry([2], 0, 8)}, floats(1, 2, 3)))
    two = decode_frame(frame({"b": entry([1], 0, 4), "w": entry([2], 4, 12)}, floats(3, 1, 2)))
    assert one.digest == two.digest


def test_names_shapes_dtype_and_data_change_the_digest():
    frames = [
        frame({"w": entry([2], 0, 8)}, floats(1, 2)),
        frame({"v": entry([2], 0, 8)}, floats(1, 2)),
        frame({"w": entry([2, 1], 0, 8)}, floats(1, 2)),
        frame({"w": entry([4], 0, 8, "F16")}, floats(1, 2)),
        frame({"w": entry([4], 0, 8, "BF16")}, floats(1, 2)),
        frame({"w": entry([2], 0, 8)}, floats(1, 3)),
        frame({"a": entry([0], 0, 0), "w": entry([2], 0, 8)}, floats(1, 2)),
    ]
    assert len({decode_frame(content).digest for content in frames}) == len(frames)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(lambda n: n != "__metadata__")
SHAPES = st.dictionaries(NAMES, st.lists(st.integers(0, 3), max_size=4), max_size=5)


@given(SHAPES, st.sampled_from(DTYPES), st.dictionaries(NAMES, NAMES, max_size=3), st.randoms(use_true_random=False))
def test_any_layout_makes_the_round_trip_and_the_library_agrees(shapes, dtype, metadata, random):
    layout = Layout.of(shapes)
    vector = np.array([random.uniform(-4, 4) for _ in range(layout.parameters)], np.float32)
    content = joined(encode_frame(layout, vector, metadata, dtype=dtype))
    read = decode_frame(content)
    assert read.layout == layout
    assert read.metadata == metadata
    theirs = load(content)
    assert {name: value.shape for name, value in theirs.items()} == dict(zip(layout.names, layout.shapes, strict=True))
    for name, view in layout.views(read.vector()).items():
        assert np.array_equal(theirs[name].astype(np.float32), view)
