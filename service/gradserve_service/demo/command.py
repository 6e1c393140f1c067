"""`gradserve demo`: the whole of it, from the plan to the picture."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import numpy as np
import typer
from rich.console import Console

import gradserve as gs

from .baseline import train_alone
from .crew import Crew, DemoFailed, Member
from .digits import load_digits
from .mlp import accuracy
from .picture import draw
from .plan import Plan, batch_size_of, default_epochs, default_lr
from .programs import Programs
from .progress import watcher
from .report import Summary, print_table, summarise
from .server import start_server
from .trace import Trace

__all__ = ["demo"]

WORKERS_MAX = 64  # one process each


def demo(
    workers: Annotated[int, typer.Option(min=1, max=WORKERS_MAX, help="Worker processes.")] = 4,
    batch_size: Annotated[
        str, typer.Option(help="Rows of one gradient: full (a worker's whole shard), 1, or a number.")
    ] = "32",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data (default: by the batch size).")
    ] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="Base learning rate (default: by the batch size).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the first weights and the shuffling.")] = 0,
    store: Annotated[
        str | None,
        typer.Option(help="redis://host:port/0, sqlite:///path or unix:///path (default: a temporary SQLite)."),
    ] = None,
    durability: Annotated[
        str | None, typer.Option(help="What the store has to give: memory, journal or fsync (default: by the store).")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for report.png, summary.json and the logs.")] = Path(
        "demo-output"
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON; progress goes to stderr.")
    ] = False,
) -> None:
    """Train handwritten digits with worker processes over HTTP, beside the same training in one loop.

    Leaves report.png, summary.json and logs in the output folder, and no process behind.
    """
    missing = [package for package in ("sklearn", "matplotlib") if find_spec(package) is None]
    if missing:
        Console(stderr=True).print(
            f"gradserve: demo needs {' and '.join(missing)}, which is not installed:\n  pip install 'gradserve[demo]'",
            markup=False,
            highlight=False,
        )
        raise typer.Exit(2)
    console = Console(stderr=as_json)
    try:
        rows = batch_size_of(batch_size)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    plan = Plan(
        run=f"demo-{secrets.token_hex(4)}",
        workers=workers,
        batch_size=rows,
        epochs=epochs or default_epochs(rows, workers),
        lr=default_lr(rows) if lr is None else lr,
        seed=seed,
    )
    with _signals_as_exceptions():
        try:
            summary = run_demo(console, plan, store, durability, output)
        except DemoFailed as error:
            Console(stderr=True).print(f"[bold red]demo failed:[/] {error}", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            Console(stderr=True).print("demo interrupted: all its processes are ended")
            raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(asdict(summary)))


def run_demo(console: Console, plan: Plan, store: str | None, durability: str | None, output: Path) -> Summary:
    """Train with the workers, train alone, compare. Raises `DemoFailed`."""
    output.mkdir(parents=True, exist_ok=True)
    digits = load_digits(plan.seed)
    batch = "its whole shard" if plan.batch_size is None else f"{plan.batch_size} rows"
    console.print(
        f"[bold]Digits[/], 1,797 images of 8 × 8 pixels, a quarter held out; a network of 64 × {plan.hidden} × 10; "
        f"{plan.epochs} epochs, a gradient sees {batch}.",
        highlight=False,
        soft_wrap=True,
    )
    trace, weights, members, durability = train_together(console, plan, store, durability, output / "logs")
    console.print("\n[bold]One loop[/] of one process, the same number of epochs: the baseline")
    with watcher(console, [plan.alone.total_updates]) as bars:
        weights_alone, baseline = train_alone(plan.alone, digits, bars.alone)
    summary = summarise(
        plan,
        trace,
        accuracy(weights, digits.test_x, digits.test_labels),
        baseline,
        accuracy(weights_alone, digits.test_x, digits.test_labels),
        counters=[member.done or {} for member in members],
        server={"store": (store or "sqlite").split(":")[0], "durability": durability},
        parameters=sum(value.size for value in weights.values()),
    )
    summary.write(output / "summary.json")
    draw(output / "report.png", summary, trace, baseline)
    console.print()
    print_table(console, summary)
    console.print(f"\n{output / 'report.png'}  the curves\n{output / 'summary.json'}  the figures", highlight=False)
    return summary


def train_together(
    console: Console, plan: Plan, store: str | None, durability: str | None, logs: Path
) -> tuple[Trace, dict[str, np.ndarray], list[Member], str]:
    """Server, workers, progress; answers the trace by version, the final weights, the workers and the durability."""
    with tempfile.TemporaryDirectory(prefix="gradserve-demo-") as place, Programs(logs) as programs:
        url = store or f"sqlite:///{place}/gradserve.db"
        # A run that is deleted at the end is not worth refusing a Redis that keeps nothing on disk.
        level = durability or ("journal" if url.startswith("sqlite:") else "memory")
        server = start_server(programs, url, level)
        console.print(
            f"\n[bold]{plan.workers} workers[/] over HTTP at {server.url}, store {url.split(':')[0]}, durability "
            f"{server.durability}",
            highlight=False,
            soft_wrap=True,
        )
        try:
            crew = Crew(programs, server.program, server.url, plan)
            crew.get_ready()
            with watcher(console, [member.updates for member in crew.members]) as bars:
                crew.train(bars.crew)
            with gs.connect(server.url) as client:
                weights = {name: np.array(value) for name, value in client.run(plan.run).pull().items()}
        finally:
            _forget(server.url, plan.run)
        trace = Trace([row for member in crew.members for row in member.trace.rows]).by_version()
        return trace, weights, crew.members, server.durability


def _forget(url: str, run: str) -> None:
    """Delete the run, if there is one and the server still answers: a user's Redis is left as it was."""
    with contextlib.suppress(gs.GradserveError), gs.connect(url, retry_seconds=1) as client:
        client.run(run).delete()


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: through every `with` block, so that no child stays."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
