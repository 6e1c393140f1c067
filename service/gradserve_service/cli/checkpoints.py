"""`gradserve checkpoint` and `restore`: named states of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .asking import PATIENCE_SECONDS, Token, Url, connected
from .printing import (
    AsJson,
    RunName,
    amount,
    complaints_as_lines,
    fail,
    moment,
    print_facts,
    print_json,
    print_table,
)

__all__ = ["checkpoint", "restore"]


def checkpoint(
    run: RunName,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Name of the checkpoint.", show_default=False)
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the checkpoints of the run.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the checkpoint NAME.")] = False,
    download: Annotated[Path | None, typer.Option(help="Write the checkpoint NAME into this safetensors file.")] = None,
    upload: Annotated[Path | None, typer.Option(help="Make the checkpoint NAME of this safetensors file.")] = None,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Keep a run's present state under a name; or list, delete, download, upload checkpoints.

    A checkpoint is never changed: a name that is taken is answered with what it stands for.
    """
    if sum((listed, delete, download is not None, upload is not None)) > 1:
        fail("--list, --delete, --download and --upload exclude each other")
    if name is None and not listed:
        fail("the name of a checkpoint is missing: gradserve checkpoint RUN NAME, or --list")
    with complaints_as_lines(), connected(url, token, PATIENCE_SECONDS) as client:
        opened = client.run(run)
        if name is None or listed:
            _print_checkpoints(opened.checkpoints(), as_json)
        elif delete:
            opened.delete_checkpoint(name)
            _print({"deleted": name}, as_json)
        elif download is not None:
            opened.download(name, download)
            _print({"file": str(download), "bytes": download.stat().st_size}, as_json)
        elif upload is not None:
            _print(opened.upload_checkpoint(name, upload), as_json)
        else:
            _print(opened.checkpoint(name), as_json)


def restore(
    run: RunName,
    checkpoint: Annotated[str | None, typer.Option(help="Go back to this checkpoint.")] = None,
    version: Annotated[int | None, typer.Option(min=0, help="Go back to this version, if it is still kept.")] = None,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Go back to a checkpoint or a version: weights, optimizer state and step; the version goes on rising.

    Workers need not be told: gradients computed before it are refused as stale.
    """
    if (checkpoint is None) == (version is None):
        fail("expected one of --checkpoint NAME and --version N")
    with complaints_as_lines(), connected(url, token, PATIENCE_SECONDS) as client:
        _print(client.run(run).restore(checkpoint, version=version), as_json)


def _print(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    created = {"created_at": moment(facts["created_at"])} if "created_at" in facts else {}
    print_facts(facts | created)


def _print_checkpoints(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        (row["name"], row["version"], row["step"], amount(row["bytes"]), moment(row["created_at"])) for row in found
    ]
    print_table(("name", "version", "step", "size", "created"), rows)
