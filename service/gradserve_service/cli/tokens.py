"""`gradserve token`: a bearer token that nobody guesses."""

from __future__ import annotations

import hashlib
import secrets

from .printing import AsJson, print_json

__all__ = ["token"]

TOKEN_BYTES = 32


def token(as_json: AsJson = False) -> None:
    """Make a random token of 256 bit. Workers get the token; a server can do with its SHA-256."""
    made = secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(made.encode()).hexdigest()
    if as_json:
        print_json({"token": made, "sha256": digest})
        return
    print(f"# for workers and the SDK\nGRADSERVE_TOKEN={made}")
    print(f"# for servers: enough to check the token, not to use it\nGRADSERVE_TOKEN_SHA256={digest}")
