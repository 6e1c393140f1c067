"""The commands' connection to a server: where it is, with which token, and how long to be patient."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

import gradserve as gs

__all__ = ["PATIENCE_SECONDS", "Token", "Url", "connected"]

PATIENCE_SECONDS = 5.0  # a person waits in front of this: a server that restarts is back by then, another is not there

Url = Annotated[str | None, typer.Option("--url", help="Server (default $GRADSERVE_URL, then http://127.0.0.1:8970).")]
Token = Annotated[
    str | None,
    typer.Option("--token", help="Bearer token (default $GRADSERVE_TOKEN; others see the flags of a command)."),
]


def connected(url: str | None, token: str | None, seconds: float) -> gs.Client:
    """A client that gives up soon: it belongs to a person, not to a training that outlives a restart."""
    logging.getLogger("gradserve").setLevel(logging.ERROR)  # attempts: the last one's error says it all
    return gs.connect(url, token, retry_seconds=seconds)
