"""The tree of errors and the table of problems are one."""

from __future__ import annotations

import json

import pytest

import gradserve as gs
from gradserve.errors import BY_CODE, from_answer, from_refused
from gradserve.problems import PROBLEMS, refuse


def test_every_problem_has_its_class_and_every_class_its_problem():
    """Named as the code, in Python's way; public."""
    assert set(BY_CODE) == set(PROBLEMS)
    for code, kind in BY_CODE.items():
        assert kind.__name__ == "".join(word.capitalize() for word in code.split("-"))
        assert getattr(gs, kind.__name__) is kind


def test_groups_have_one_status_each():
    """`except gs.Conflict` means 409, `except gs.NotFound` 404, and so on."""
    for group, statuses in (
        (gs.NotFound, {404}),
        (gs.Conflict, {409}),
        (gs.Invalid, {422}),
        (gs.Unavailable, {429, 503}),
    ):
        inside = {code for code, kind in BY_CODE.items() if issubclass(kind, group)}
        assert inside == {code for code, problem in PROBLEMS.items() if problem.status in statuses}


@pytest.mark.parametrize("code", PROBLEMS)
def test_a_problem_document_becomes_its_error(code):
    """With status, detail and the typed extras; the document's own members are no extras."""
    document = {
        "type": "t",
        "title": "t",
        "status": 1,
        "instance": "/x",
        "request_id": "r",
        "code": code,
        "detail": "d",
        "limit": 7,
    }
    error = from_answer(PROBLEMS[code].status, json.dumps(document).encode())
    assert type(error) is BY_CODE[code]
    assert (error.status, error.code, error.detail, error.extras) == (PROBLEMS[code].status, code, "d", {"limit": 7})
    assert str(error) == f"{code}: d"


def test_a_code_of_a_newer_server_is_still_a_problem():
    """It can be caught, and says its code."""
    error = from_answer(418, b'{"code": "teapot", "detail": "short and stout"}')
    assert type(error) is gs.ProblemError
    assert (error.status, error.code) == (418, "teapot")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'"x"', b"\xff", b""])
def test_a_foreign_answer_says_so(body):
    """A proxy's page is no problem document."""
    error = from_answer(502, body)
    assert isinstance(error, gs.UnexpectedAnswer)
    assert error.status == 502


def test_a_refusal_before_sending_is_the_same_error():
    """The status is the one that the server would have answered."""
    error = from_refused(refuse("layout-mismatch", "no", tensor="w"))
    assert type(error) is gs.LayoutMismatch
    assert (error.status, error.extras) == (422, {"tensor": "w"})
