"""What the commands print: tables for people, JSON for scripts, one clear line for what went wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from gradserve_service.settings import SettingsError, read_settings

__all__ = [
    "FAILED", "AsJson", "RunName", "StoreUrl", "amount", "complaints_as_lines", "fail", "moment", "print_facts",
    "print_json", "print_table",
    "store_url",
]  # fmt: skip

FAILED = 1
USAGE_ERROR = 2
PIPE_COLUMNS = 10_000  # a pipe has no edge: lines for scripts and files are never broken

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run.", show_default=False)]
StoreUrl = Annotated[
    str | None, typer.Option("--store", help="URL of the store (default $GRADSERVE_STORE, then serve's).")
]


def store_url(given: str | None) -> str:
    """The URL of `--store`, or what a server here would use. Raises `SettingsError`."""
    return read_settings(store=given, insecure=True).store


def print_json(value: Any) -> None:
    """One JSON document on a line of its own."""
    print(json.dumps(value), flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns; numbers to the right. Nothing is cut off in a pipe."""
    console = screen()
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for place, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:  # a column is as wide as its widest cell, also behind the last one: no blanks
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_facts(facts: Mapping[str, Any]) -> None:
    """`name  value`, a line each."""
    print_table(("", ""), [(name, value) for name, value in facts.items()])


def screen() -> Console:
    """Standard output."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    return console


def amount(size: int) -> str:
    """Bytes for people: 1.5 MiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def moment(milliseconds: int) -> str:
    """A time of the store, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@contextmanager
def complaints_as_lines() -> Iterator[None]:
    """Whatever is refused or out of reach inside ends the command with one line and exit code 1; wrong settings: 2."""
    from gradserve import GradserveError
    from gradserve.problems import Refused
    from gradserve_service.core.entries import ChainBroken
    from gradserve_service.replica.recovery import Damaged
    from gradserve_service.store import RunAbsent, StoreDamaged, StoreFull, StoreUnavailable, StoreUnfit

    try:
        yield
    except SettingsError as error:
        fail(str(error))
    except GradserveError as error:
        fail(str(error), FAILED)
    except Refused as refused:
        fail(refused.rejection.detail, FAILED)
    except (StoreUnfit, StoreUnavailable, StoreFull, StoreDamaged, RunAbsent, ChainBroken, Damaged) as error:
        fail(str(error), FAILED)
    except (OSError, ValueError) as error:  # a file that cannot be written, a URL that is none
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(reason: str, code: int = USAGE_ERROR) -> NoReturn:
    """Say why on standard error and end."""
    print(f"gradserve: {reason}", file=sys.stderr)
    raise typer.Exit(code)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
