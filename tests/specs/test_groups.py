"""Parameter groups as people write them, and which tensor falls where."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gradserve.specs import ParameterGroup, RunChanges, RunSpec, groups_of, idle_patterns, validation_refusal


def read(groups):
    return RunSpec.model_validate({"optimizer": "sgd", "groups": groups}).groups


def detail_of(groups):
    with pytest.raises(ValidationError) as caught:
        read(groups)
    return validation_refusal(caught.value).rejection.detail


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (None, ()),
        ([], ()),
        ({"name": "bias", "match": "*.bias"}, (ParameterGroup(name="bias", match=("*.bias",)),)),
        (
            [{"match": ["a", "b"], "weight_decay": 0}, {"match": "c", "lrScale": 0.1}],
            (
                ParameterGroup(name="group1", match=("a", "b"), weight_decay=0.0),
                ParameterGroup(name="group2", match=("c",), lr_scale=0.1),
            ),
        ),
        ([{"name": "off", "match": "a", "trainable": False}], (ParameterGroup(name="off", match="a", frozen=True),)),
        ([ParameterGroup(name="off", match="a")], (ParameterGroup(name="off", match=("a",), lr_scale=1.0),)),
    ],
    ids=str,
)
def test_groups_are_read(written, meant):
    """One group needs no list and one pattern neither; `trainable` is the opposite of `frozen`."""
    assert read(written) == meant


@pytest.mark.parametrize(
    ("written", "detail"),
    [
        ([{"name": "a", "match": []}], "groups[0].match: expected at least 1 items, came a list"),
        ([{"name": "a", "match": ["x", ""]}], "groups[0].match[1]: expected at least 1 characters, came ''"),
        ([{"name": "a b", "match": "x"}], "groups[0].name: expected text of the form "
         "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$, came 'a b'"),
        ([{"name": "a"}], "groups[0].match: expected a value, came nothing"),
        ([{"name": "a", "match": "x", "lr_scale": -1}], "groups[0].lr_scale: expected a number ≥ 0, came -1"),
        ([{"name": "a", "match": "x", "lr": 1}], "groups[0]: expected only the fields name, match, lr_scale, "
         "weight_decay, frozen, came 'lr'"),
        ([{"name": "a", "match": "x"}] * 2, "groups: expected groups of different names, 'a' came twice"),
        ([{"name": "default", "match": "x"}], "groups: 'default' is the group of all tensors that no other matches: "
         "choose another name"),
        ([{"match": "x", "frozen": True, "trainable": True}], "groups[0]: expected frozen or trainable once, "
         "as true or false"),
        ([{"match": [f"{n}*" for n in range(65)]}], "groups: expected at most 64 patterns with wildcards, came 65: "
         "name tensors"),
        ("bias", "groups: expected a list, came 'bias'"),
    ],
    ids=str,
)  # fmt: skip
def test_groups_that_cannot_be_are_refused(written, detail):
    """By place and field."""
    assert detail_of(written) == detail


def test_the_first_group_that_matches_a_tensor_has_it():
    """Patterns are case-sensitive; a name without wildcards is that tensor alone; the rest is the default group."""
    groups = read([{"match": ["head.weight", "norm*"]}, {"match": "*.[bw]*"}, {"match": "*"}])
    names = ("body.bias", "head.weight", "head.weight2", "Norm", "norm.bias")
    assert groups_of(groups, names) == (2, 1, 2, 3, 1)
    assert groups_of(groups[:1], names) == (0, 1, 0, 0, 1)
    assert groups_of((), names) == (0,) * 5


def test_a_pattern_that_matches_no_tensor_is_found():
    """A tensor that an earlier group has taken still counts as matched."""
    groups = read([{"match": ["a*", "z"]}, {"name": "late", "match": ["ab", "y*"]}])
    assert idle_patterns(groups, ("ab", "b")) == (("group1", "z"), ("late", "y*"))


def test_groups_are_replaced_whole():
    """And null is none."""
    spec = RunSpec.model_validate({"optimizer": "sgd", "groups": {"match": "a"}})
    changed = RunChanges.model_validate({"groups": [{"name": "b", "match": "b"}]}).apply(spec)
    assert changed.groups == (ParameterGroup(name="b", match=("b",)),)
    assert RunChanges.model_validate({"groups": None}).apply(changed).groups == ()
    assert RunChanges.model_validate({"clip": None}).apply(changed).groups == changed.groups
    assert RunSpec.model_validate(changed.canonical()) == changed.model_copy(
        update={"schedule": RunSpec.model_validate(changed.canonical()).schedule}
    )
