"""`gradserve status`, `watch`, `pull`: runs as a server shows them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from safetensors.numpy import save

import gradserve as gs

from .asking import PATIENCE_SECONDS, Token, Url, connected
from .printing import AsJson, RunName, complaints_as_lines, moment, print_facts, print_json, print_table, screen

__all__ = ["pull", "status", "watch"]

COLUMNS = ("name", "state", "version", "step", "lr", "parameters", "workers", "durability", "created")
FACTS = ("uid", "state", "version", "step", "lr", "position", "head", "parameters", "durability")


def status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Only this run.", show_default=False)] = None,
    watch: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="Show it again every so many seconds.")
    ] = None,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show the runs of a server, or one run with its workers and warnings."""
    with complaints_as_lines(), connected(url, token, PATIENCE_SECONDS) as client:
        look = (lambda: _runs(client)) if run is None else (lambda: _run(client, run))
        show = print_json if as_json else _print_runs if run is None else _print_run
        while True:
            _show(look(), show, again=watch is not None and not as_json)
            if watch is None:
                return
            time.sleep(watch)


def _show(found: Any, show: Callable[[Any], None], *, again: bool) -> None:
    if again:
        screen().clear()  # of a terminal; a pipe gets one table after the other
    show(found)


def _runs(client: gs.Client) -> list[dict[str, Any]]:
    """Every run's description; one that is deleted between the two questions is left out."""
    found = []
    for row in client.runs():
        try:
            found.append(client.run(row["name"]).description)
        except (gs.RunNotFound, gs.RunDeleted):
            continue
    return found


def _run(client: gs.Client, name: str) -> dict[str, Any]:
    run = client.run(name)
    return {**run.description, "workers": run.workers()}


def _print_runs(runs: list[dict[str, Any]]) -> None:
    rows = [[*(row.get(name) for name in COLUMNS[:-1]), moment(row["created_at"])] for row in runs]
    print_table(COLUMNS, rows)
    for row in runs:
        for warning in row["warnings"]:
            print(f"warning: {row['name']}: {_text(warning)}")


def _print_run(run: dict[str, Any]) -> None:
    optimizer, schedule = run["spec"]["optimizer"], run["spec"]["schedule"]
    print_facts(
        {
            **{name: run[name] for name in FACTS},
            "optimizer": json.dumps(optimizer),
            "schedule": json.dumps(schedule),
            "created": moment(run["created_at"]),
        }
    )
    if run["workers"]:
        print()
        columns = [name for name, value in run["workers"][0].items() if not isinstance(value, dict | list)]
        print_table(columns, [[row.get(name) for name in columns] for row in run["workers"]])
    for warning in run["warnings"]:
        print(f"warning: {_text(warning)}")


def _text(warning: Any) -> str:
    """A warning is a text, or an object with one."""
    return str(warning.get("detail", warning)) if isinstance(warning, dict) else str(warning)


def watch(
    run: RunName,
    since: Annotated[
        int | None, typer.Option(min=0, help="Begin after this position of the journal; without it, with what is new.")
    ] = None,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Print what happens to a run while it happens: updates, workers, rejections, changes. Ctrl-C ends it."""
    with complaints_as_lines(), connected(url, token, PATIENCE_SECONDS) as client:
        for event in client.run(run).watch(since):
            if as_json:
                print_json({"id": event.id, "event": event.kind, **event.fields})
            else:
                said = {name: value for name, value in event.fields.items() if name not in ("position", "at")}
                words = "  ".join(f"{name} {_short(value)}" for name, value in said.items())
                print(f"{event.id:>8}  {event.kind:<10}  {words}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def pull(
    run: RunName,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The safetensors file to write. It appears when it is whole.")
    ],
    weights: Annotated[
        str, typer.Option(metavar="WHICH", help="raw, or average (also ema, swa, slow, x, ax) for the run's average.")
    ] = "raw",
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Write the current weights of a run, or their average, into a safetensors file."""
    with complaints_as_lines(), connected(url, token, PATIENCE_SECONDS) as client:
        opened = client.run(run)
        if not opened.description["initialised"]:
            raise gs.WeightsUninitialised(f"run '{run}' has no weights yet")
        pulled = opened.pull(weights=weights)
        metadata = {"run": run, "version": str(pulled.version), "etag": pulled.etag, "weights": weights}
        partial = output.with_name(f".{output.name}.partial")
        partial.write_bytes(save(dict(pulled), metadata=metadata))
        os.replace(partial, output)
    said = {"file": str(output), "run": run, "version": pulled.version, "parameters": pulled.layout.parameters}
    print_json(said) if as_json else print_facts(said)
