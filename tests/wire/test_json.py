"""JSON is for curl and tiny runs: strict, bounded, and never a crash."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradserve.problems import Refused
from gradserve.wire import (
    JSON_DEPTH_MAX,
    JSON_ELEMENTS_MAX,
    Layout,
    decode_frame,
    frame_from_json,
    parse_json,
    tensors_to_json,
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[-Infinity]",
        b'{"a": 1, "a": 1}',
        b'{"b": {"a": 1, "a": 2}}',
        b"[1] [2]",
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b"[" * 100_000,
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b"9" * 5_000,
        b'"\n"',
        b'"' + b'\\"' * 200_000,
        b'"' * 200_001 + b"[" * 65,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_not_strict_json_is_refused(body):
    with pytest.raises(Refused, match=r"^malformed-json: expected ") as refused:
        parse_json(body)
    assert len(refused.value.rejection.detail) < 300


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_strict_json_is_read_from_any_buffer(kind):
    assert parse_json(kind(b' {"a": [1, 2.5, "\xc3\xa4", null, true]}\r\n')) == {"a": [1, 2.5, "ä", None, True]}


def test_an_escaped_pair_of_surrogates_is_text():
    assert parse_json(b'"\\ud83d\\ude42"') == "🙂"


def test_depth_is_counted_outside_strings():
    """Many brackets in a row are not deep, nor are brackets in text."""
    assert JSON_DEPTH_MAX == 64
    assert len(parse_json(b"[" + b"[],{}," * 100 + b"[]]")) == 201
    assert parse_json(json.dumps("[" * 500 + '"\\' * 3).encode()) == "[" * 500 + '"\\' * 3
    deepest = b"[" * 64 + b"]" * 64
    assert parse_json(deepest) is not None
    parse_json(b"[" + deepest[1:-1] + b"," + deepest[1:-1] + b"]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(JSON, st.booleans())
def test_every_json_value_is_read_as_the_standard_library_reads_it(value, ascii_only):
    """Text here has no halves of pairs: hypothesis leaves them out."""
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse_json(body) == json.loads(body)


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\u0d8f1eN ', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(body):
    try:
        parse_json(body)
    except Refused:
        return


def test_nested_lists_become_a_frame():
    read = frame_from_json({"w": [[1, 2.5], [3, 4]], "s": -1, "none": [], "hollow": [[], []]})
    assert read.layout is Layout.of({"w": (2, 2), "s": (), "none": (0,), "hollow": (2, 0)})
    assert read.dtype == "float32"
    assert read.metadata == {}
    assert read.vector().tolist() == [-1, 1, 2.5, 3, 4]
    assert read.digest == decode_frame(b"".join(read.stored())).digest


@pytest.mark.parametrize(
    "value",
    [
        [[1], [1, 2]],
        [[1], 2],
        [1, [2]],
        [[[1]], [[1, 2]]],
        [[], [1]],
        ["1"],
        "1",
        None,
        [None],
        True,
        [1.5, False],
        {},
        [{}],
        [[1], {}],
    ],
    ids=repr,
)
def test_ragged_lists_and_what_is_not_a_number_are_refused(value):
    """NumPy would make numbers of booleans, texts and null."""
    with pytest.raises(Refused, match=r"^validation-error: tensor 'w': expected (numbers|lists)"):
        frame_from_json({"w": value})


@pytest.mark.parametrize("value", [[], 3, None, "w"])
def test_tensors_come_by_name(value):
    with pytest.raises(Refused, match=r"^validation-error: expected an object of tensors by name"):
        frame_from_json(value)


def test_a_bad_name_is_refused():
    with pytest.raises(Refused, match=r"^validation-error: tensor ''"):
        frame_from_json({"": 1})


def test_a_number_beyond_float32_becomes_infinity():
    """It is JSON, so it is no malformed body: the gradient is refused as not finite, by name."""
    huge = 10**400
    assert frame_from_json({"w": [1e39, -1e300, huge, -huge, 3, 2**63]}).vector().tolist() == [
        np.inf,
        -np.inf,
        np.inf,
        -np.inf,
        3,
        2.0**63,
    ]
    assert frame_from_json({"w": parse_json(b"[1e999]")}).vector().tolist() == [np.inf]


def test_the_limit_of_elements_holds_for_all_tensors_together():
    half = [0] * (JSON_ELEMENTS_MAX // 2)
    assert frame_from_json({"a": half, "b": half}).layout.parameters == JSON_ELEMENTS_MAX
    for more in ({"c": 1}, {"c": [1]}, {"c": [[1]]}):
        with pytest.raises(Refused, match=r"^too-large: expected at most 65536 .*safetensors") as refused:
            frame_from_json({"a": half, "b": half, **more})
        assert refused.value.rejection.extras == {"limit": 65536}


def test_weights_become_nested_lists():
    layout = Layout.of({"w": (2, 2), "s": (), "none": (0,), "hollow": (2, 0)})
    lists = tensors_to_json(layout, np.array([-1, 1, 2.5, 3, 4], np.float32))
    assert lists == {"hollow": [[], []], "none": [], "s": -1.0, "w": [[1, 2.5], [3, 4]]}
    assert frame_from_json(lists).layout is layout


def test_weights_too_many_for_json_are_refused_with_the_way_out():
    layout = Layout.of({"w": (JSON_ELEMENTS_MAX + 1,)})
    with pytest.raises(Refused, match=r"^json-too-large: expected at most 65536 .*came 65537: accept application/vnd"):
        tensors_to_json(layout, np.zeros(layout.parameters, np.float32))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=8))
def test_float32_makes_the_round_trip_through_json_exactly(values):
    layout = Layout.of({"w": (len(values),)})
    vector = np.array(values, np.float32)
    body = json.dumps(tensors_to_json(layout, vector)).encode()
    assert frame_from_json(parse_json(body)).vector().tobytes() == vector.tobytes()
