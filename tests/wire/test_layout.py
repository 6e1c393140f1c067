"""A layout says where each tensor lies in the flat vector."""

from __future__ import annotations

import gc

import ml_dtypes
import numpy as np
import pytest

from gradserve.problems import Refused
from gradserve.wire import Layout, allocate, check_user_names


@pytest.fixture
def layout():
    return Layout.of({"w": (2, 3), "b": (3,), "s": (), "empty": (0, 4)})


def refusal(code):
    return pytest.raises(Refused, match=f"^{code}: ")


def test_tensors_lie_in_the_byte_order_of_their_names(layout):
    """Order of insertion does not matter; capital letters come first, as in bytes."""
    assert layout.names == ("b", "empty", "s", "w")
    assert layout.offsets == (0, 3, 3, 4)
    assert layout.parameters == 10
    assert Layout.of({"a": (), "Z": (), "é": (), "z": ()}).names == ("Z", "a", "z", "é")


def test_names_beyond_the_first_plane_keep_the_order_of_their_bytes():
    """UTF-16 would put the smiley before the private-use letter; UTF-8 does not."""
    names = ["\uffee", "🙂", "\ue000", "z"]
    assert list(Layout.of({name: () for name in names}).names) == sorted(names, key=str.encode)


def test_equal_layouts_are_the_same_object_while_one_lives(layout):
    again = Layout.of({"s": [], "empty": [0, 4], "b": [3], "w": [np.int64(2), 3]})
    assert again is layout
    assert hash(again) == hash(layout)
    assert layout != Layout.of({"w": (2, 3)})
    assert layout != "layout"


def test_a_layout_that_nobody_holds_is_forgotten():
    """Else strangers could fill the memory with layouts."""
    from gradserve.wire.layout import _LAYOUTS

    Layout.of({"only here": (5,)}).header("float16")
    gc.collect()
    assert (("only here",), ((5,),)) not in _LAYOUTS


def test_equal_layouts_made_apart_are_equal_by_content(layout):
    """Two threads may both make one."""
    apart = Layout(layout.names, layout.shapes, layout.offsets, layout.parameters, dict(layout._places))
    assert apart is not layout
    assert apart == layout
    assert hash(apart) == hash(layout)


def test_views_span_and_size_agree(layout):
    vector = np.arange(10, dtype=np.float32)
    views = layout.views(vector)
    assert list(views) == list(layout.names)
    for name, view in views.items():
        assert view.shape == layout.shape(name)
        assert view.size == layout.size(name)
        assert np.array_equal(view.ravel(), vector[layout.span(name)])
        assert view.size == 0 or np.shares_memory(view, vector)
    assert views["s"].shape == ()
    assert "w" in layout
    assert "v" not in layout


def test_views_need_a_vector_of_the_layout(layout):
    with refusal("layout-mismatch"):
        layout.views(np.zeros(9, np.float32))
    with refusal("layout-mismatch"):
        layout.views(np.zeros((10, 1), np.float32))


def test_flatten_is_the_inverse_of_views(layout):
    vector = np.arange(10, dtype=np.float32)
    tensors = dict(reversed(layout.views(vector).items()))
    flat = layout.flatten(tensors)
    assert np.array_equal(flat, vector)
    assert not np.shares_memory(flat, vector)
    assert flat.ctypes.data % 64 == 0


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float16, np.int64, np.uint8, ml_dtypes.bfloat16, ">f4"], ids=lambda d: np.dtype(d).str
)
def test_flatten_reads_every_real_dtype(dtype):
    flat = Layout.of({"w": (3,)}).flatten({"w": np.array([0, 1, 2]).astype(dtype)})
    assert flat.dtype == np.float32
    assert flat.tolist() == [0, 1, 2]


def test_flatten_reads_lists_and_scalars_and_turns_overflow_into_infinity():
    """Whoever looks for non-finite values finds it later, with its name."""
    flat = Layout.of({"s": (), "w": (2,)}).flatten({"s": 1e300, "w": [1, 2.5]})
    assert flat.tolist() == [np.inf, 1, 2.5]


def test_flatten_says_what_it_expected_and_what_came(layout):
    good = layout.views(np.zeros(10, np.float32))
    with pytest.raises(Refused, match=r"tensor 'w': expected float32\[2, 3\], came float64\[3, 2\]") as shape:
        layout.flatten({**good, "w": np.zeros((3, 2))})
    assert shape.value.rejection.extras == {"tensor": "w", "expected": [2, 3], "came": [3, 2]}
    with pytest.raises(Refused, match=r"layout-mismatch: tensor 'w': expected float32\[2, 3\], came nothing"):
        layout.flatten({name: tensor for name, tensor in good.items() if name != "w"})
    with pytest.raises(Refused, match=r"unknown-tensor: expected tensors of the names 'b'.*, came 'v'"):
        layout.flatten({**good, "v": np.zeros(1)})


@pytest.mark.parametrize("wrong", [[[1], [1, 2]], np.array(["a"]), np.array([1j]), np.array([None]), np.array([True])])
def test_flatten_refuses_what_is_not_real_numbers(wrong):
    with refusal("validation-error"):
        Layout.of({"w": (1,)}).flatten({"w": wrong})


def test_a_subset_keeps_the_order(layout):
    part = layout.subset(["w", "b", "w"])
    assert part.names == ("b", "w")
    assert part.offsets == (0, 3)
    assert part is layout.subset(iter(["b", "w"]))
    assert layout.subset(layout.names) is layout
    assert layout.subset([]).parameters == 0
    with refusal("unknown-tensor"):
        layout.subset(["v"])


def test_describe_is_what_json_shows(layout):
    assert layout.describe()[3] == {"name": "w", "shape": [2, 3], "offset": 4}


@pytest.mark.parametrize(
    "shapes",
    [
        {"": (1,)},
        {"__metadata__": (1,)},
        {"x" * 1025: (1,)},
        {"é" * 513: (1,)},
        {"\ud800": (1,)},
        {"w": (-1,)},
        {"w": (1.5,)},
        {"w": 3},
        {"w": ["2"]},
        {"w": [[2]]},
        {"w": (1,) * 33},
        {"w": (2**48 + 1,)},
        {"w": (0, 2**60)},
        {"v": (2**47,), "w": (2**47 + 1,)},
        {1: (1,)},
        {1: (1,), "w": (1,)},
        {f"{i}": () for i in range(10_001)},
        {f"{i:01024}": () for i in range(1_000)},
    ],
    ids=lambda shapes: f"{len(shapes)} {str(shapes)[:24]!a}",
)
def test_names_and_shapes_out_of_bounds_are_refused(shapes):
    """With the limits that a frame has: a run cannot hold what its weights could not be sent in."""
    with refusal("validation-error"):
        Layout.of(shapes)


def test_the_longest_names_and_most_tensors_are_accepted():
    assert Layout.of({f"{i}": () for i in range(10_000)}).parameters == 10_000
    assert Layout.of({"é" * 512: (1,) * 32}).parameters == 1


def test_names_that_checkpoints_need_are_reserved():
    check_user_names(Layout.of({"optimizer": (1,), "my/optimizer/": (1,)}))
    with pytest.raises(Refused, match="validation-error: tensor 'optimizer/m': names that start with"):
        check_user_names(Layout.of({"optimizer/m": (1,)}))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("n", [0, 1, 17, 4096])
def test_allocated_memory_is_aligned(n, dtype):
    vector = allocate(n, dtype)
    assert vector.shape == (n,)
    assert vector.itemsize == (4 if dtype == "float32" else 2)
    assert n == 0 or vector.ctypes.data % 64 == 0
    assert vector.flags.writeable


def test_an_unknown_dtype_is_refused_by_name():
    with pytest.raises(Refused, match="dtype-unsupported: expected one of float32, bfloat16, float16, came 'int8'"):
        allocate(1, "int8")
