"""How bytes get on the wire and off it."""

from __future__ import annotations

import ssl

import numpy as np
import pytest

import gradserve as gs
from gradserve.transport import CHUNK_BYTES, _Body, _certificate_fault

SIZES = [(), (0,), (10, 20), (CHUNK_BYTES,), (CHUNK_BYTES + 1,), (100, CHUNK_BYTES, 7, 3 * CHUNK_BYTES + 5, 0, 9)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_body_goes_out_in_pieces_of_a_good_size(sizes):
    """Large ones cut, small ones together, nothing lost; and again for a second try."""
    rng = np.random.default_rng(0)
    pieces = tuple(rng.bytes(size) if k % 2 else memoryview(rng.bytes(size)) for k, size in enumerate(sizes))
    body = _Body(pieces)
    for _ in range(2):
        chunks = list(body)
        assert b"".join(chunks) == b"".join(pieces)
        assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
        assert len(chunks) <= 2 + 2 * body.size // CHUNK_BYTES
    assert body.size == sum(sizes)


def test_a_connection_is_kept(line, name):
    """Many requests, one connection."""
    with gs.connect(line.url) as client:
        for _ in range(5):
            client.server()
    assert len(line.requests) == 1


def test_the_environments_proxy_is_used(server, monkeypatch):
    """As by every HTTP client of the system: here the server itself takes the place of the proxy."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with gs.connect("http://gradserve.invalid:8970") as client:
        assert client.server()["version"] == gs.__version__
    monkeypatch.setenv("no_proxy", "gradserve.invalid")
    with gs.connect("http://gradserve.invalid:8970", retry_seconds=0) as client, pytest.raises(gs.ServerUnreachable):
        client.server()


def test_a_proxy_that_cannot_be_used_is_refused_at_once(server, monkeypatch):
    """Not at the first request, and not as an error of a library."""
    monkeypatch.setenv("http_proxy", "ftp://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(gs.Misuse, match="the proxy that the environment names cannot be used"):
        gs.connect("http://gradserve.invalid:8970")


@pytest.mark.parametrize("token", ["two\nlines", "two words", "schlüssel", "   ", 7])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(server, token):
    """A line break would split the request. The error is a ValueError as well, and keeps the secret."""
    with pytest.raises(gs.Misuse, match="token: expected") as caught:
        gs.connect(server.url, token)
    assert isinstance(caught.value, ValueError)
    assert str(token).strip() == "" or str(token) not in str(caught.value)


def test_the_line_end_of_a_token_file_is_no_part_of_it(server):
    """`token=open(path).read()` is how secrets come."""
    with gs.connect(server.url, "secret\n") as client:
        assert client.server()


def test_a_password_in_the_url_is_refused_and_not_shown():
    """It would not be sent, and it would stand in every log."""
    with pytest.raises(gs.Misuse, match="without a name and a password") as caught:
        gs.connect("http://me:secret@host:8970")
    assert "secret" not in str(caught.value)


def test_a_wrong_certificate_is_no_reason_to_wait():
    """It will be as wrong in ten minutes."""
    error = OSError("connect")
    assert not _certificate_fault(error)
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    assert _certificate_fault(error)
