"""What a push says of its gradient: the same in JSON and in a frame's metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gradserve.problems import Refused
from gradserve.specs import CURSOR_BYTES_MAX, PushFields, validation_refusal


def test_nothing_has_to_be_said():
    fields = PushFields.from_metadata({})
    assert fields == PushFields()
    assert fields.samples == 1.0
    assert fields.base_version is None
    assert fields.to_metadata() == {}


def test_metadata_says_numbers_as_text():
    metadata = {
        "base_version": "12", "base": '"f00-12"', "samples": "32", "loss": "0.7", "generation": "1", "after": "00ff",
        "cursor": "7", "lr": "1e-3",
    }  # fmt: skip
    fields = PushFields.from_metadata(metadata)
    assert fields == PushFields(
        base_version=12, base='"f00-12"', samples=32.0, loss=0.7, generation=1, after="00ff", cursor="7", lr=1e-3
    )
    assert PushFields.from_metadata(fields.to_metadata()) == fields


@given(
    st.builds(
        PushFields,
        base_version=st.none() | st.integers(0, 2**53 - 1),
        base=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        samples=st.floats(min_value=0, max_value=2**53, exclude_min=True),
        loss=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        cursor=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    )
)
def test_what_is_written_is_read(fields):
    """Floats keep every bit."""
    assert PushFields.from_metadata(fields.to_metadata()) == fields


def test_the_framework_that_wrote_the_file_is_no_field():
    assert PushFields.from_metadata({"format": "pt", "codec": "bfloat16"}) == PushFields()


def test_a_codec_that_is_not_read_is_refused():
    """Its tensors are no gradient: never apply them as if they were."""
    with pytest.raises(Refused, match=r"^dtype-unsupported: expected codec .*, came 'int8': send plain tensors"):
        PushFields.from_metadata({"codec": "int8"})


@pytest.mark.parametrize(
    ("metadata", "detail"),
    [
        ({"base_version": "-1"}, "base_version: expected a number ≥ 0, came -1"),
        ({"base_version": "1.0"}, "base_version: expected an integer, came 1.0"),
        ({"base_version": " 1"}, "base_version: expected an integer, came ' 1'"),
        ({"base_version": "1_0"}, "base_version: expected an integer, came '1_0'"),
        ({"base_version": "١"}, "base_version: expected an integer, came '١'"),
        ({"base_version": "9" * 16}, "base_version: expected a number ≤ 9007199254740991, came 9999999999999999"),
        ({"base_version": ""}, "base_version: expected an integer, came ''"),
        ({"samples": "0"}, "samples: expected a number > 0, came 0"),
        ({"samples": "nan"}, "samples: expected a number, came 'nan'"),
        ({"samples": "1e999"}, "samples: expected a finite number, came inf"),
        ({"loss": "Infinity"}, "loss: expected a number, came 'Infinity'"),
        ({"generation": "0"}, "generation: expected a number ≥ 1, came 0"),
        ({"after": "x" * 129}, "after: expected at most 128 characters, came '" + "x" * 78 + "…"),
        ({"cursor": "ä" * 513}, "cursor: expected a cursor of at most 1024 bytes, came 1026"),
        ({"bas": "1"}, "bas: expected no field of that name, came '1'"),
        ({"lr": "-1", "loss": "x"}, "loss: expected a number, came 'x'; lr: expected a number ≥ 0, came -1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_that_does_not_fit_is_refused(metadata, detail):
    """A mistyped name too: ignoring it would change what is learned."""
    with pytest.raises(Refused) as refused:
        PushFields.from_metadata(metadata)
    assert refused.value.rejection.code == "validation-error"
    assert refused.value.rejection.detail == detail


def test_the_longest_cursor_fits():
    assert PushFields.from_metadata({"cursor": "ä" * (CURSOR_BYTES_MAX // 2)}).cursor == "ä" * 512


@pytest.mark.parametrize(
    "fields",
    [
        {"base_version": "1"},
        {"base_version": True},
        {"base_version": 1.0},
        {"samples": "1"},
        {"base": 1},
        {"cursor": 1},
        {"cursor": "\ud800"},
        {"after": None, "gradient": {}},
    ],
    ids=ascii,
)
def test_json_says_numbers_as_numbers(fields):
    with pytest.raises(ValidationError) as caught:
        PushFields.model_validate(fields)
    assert validation_refusal(caught.value).rejection.detail


def test_a_rate_may_be_one_by_group():
    """In a frame's metadata it is the same as JSON text; what is written is read again."""
    fields = PushFields.from_metadata({"lr": '{"bias": 0.5, "default": 1}'})
    assert fields.lr == {"bias": 0.5, "default": 1.0}
    assert fields.to_metadata() == {"lr": '{"bias":0.5,"default":1.0}'}
    assert PushFields.from_metadata(fields.to_metadata()) == fields == PushFields(lr={"bias": 0.5, "default": 1})


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"bias": -1}', "lr: expected a number ≥ 0 for group 'bias', came -1"),
        ('{"bias": true}', "lr: expected a number ≥ 0 for group 'bias', came True"),
        ('{"bias": 1e999}', "lr: expected a number ≥ 0 for group 'bias', came inf"),
        ("{}", "lr: expected a number, or 1 to 65 numbers by group, came 0"),
        ("{", "lr: expected a number ≥ 0, came '{'"),
        ("1e999", "lr: expected a number ≥ 0, came inf"),
    ],
    ids=str,
)
def test_a_rate_by_group_that_cannot_be_is_refused(text, detail):
    """The group is named."""
    with pytest.raises(Refused) as refused:
        PushFields.from_metadata({"lr": text})
    assert refused.value.rejection.detail == detail
