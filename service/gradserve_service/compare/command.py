"""`gradserve compare`: the options, the progress, the files."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gradserve_service.demo.digits import CLASSES, PIXELS
from gradserve_service.demo.mlp import initial_parameters

from .comparison import RATES, compare, every_optimizer, optimizer_called
from .picture import draw
from .table import legend, print_table, write_tables
from .trial import HIDDEN, Problem, Trial

__all__ = ["compare_command"]


def compare_command(
    optimizers: Annotated[
        str | None, typer.Option(help="Names or aliases, separated by commas (default: every one there is).")
    ] = None,
    updates: Annotated[int, typer.Option(min=10, help="Updates of each training.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one gradient.")] = 32,
    target: Annotated[float, typer.Option(min=1e-9, help="The loss to reach.")] = 0.1,
    lrs: Annotated[
        str | None,
        typer.Option(help="The grid of learning rates, separated by commas (default: half decades, 0.0001 to 10)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the first weights and the batches.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for comparison.png, table.md and table.json.")] = Path(
        "comparison-output"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print table.json; progress goes to stderr.")] = False,
) -> None:
    """Train the same digits under every optimizer, through the server's own rules, and compare with numbers.

    Same network, first weights and batches; every optimizer at a grid of learning rates and at its default.
    """
    missing = [package for package in ("sklearn", "matplotlib", "threadpoolctl") if find_spec(package) is None]
    if missing:
        Console(stderr=True).print(
            f"gradserve: compare needs {' and '.join(missing)}, which is not installed:\n"
            "  pip install 'gradserve[demo]'",
            markup=False,
            highlight=False,
        )
        raise typer.Exit(2)
    try:
        names, rates = names_of(optimizers), rates_of(lrs)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    console = Console(stderr=as_json)
    problem = Problem.of(updates, batch_size, seed)
    parameters = sum(value.size for value in initial_parameters(PIXELS, HIDDEN, CLASSES, seed).values())
    output.mkdir(parents=True, exist_ok=True)
    from threadpoolctl import threadpool_limits

    # One thread of arithmetic: the matrices are small, and what is measured must not depend on who else computes.
    with threadpool_limits(1), Watcher(console, names, len(rates) + 1) as watcher:
        comparison = compare(problem, names, rates, target, parameters, watcher.saw)
    if not comparison.rows:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in comparison.left_out)
        Console(stderr=True).print(f"gradserve: nothing could be compared: {reasons}", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    write_tables(output, comparison)
    draw(output / "comparison.png", comparison)
    print_table(console, comparison)
    console.print(f"\n{legend(comparison)}", highlight=False, markup=False)
    console.print(f"\n{output / 'comparison.png'}  the curves\n{output / 'table.md'}  this table", highlight=False)
    if as_json:
        print(json.dumps(comparison.to_json()))


def names_of(text: str | None) -> list[str]:
    """The optimizers that `--optimizers` names, in its order, each once. Raises `ValueError`."""
    if text is None:
        return every_optimizer()
    names = list(dict.fromkeys(word for word in (part.strip() for part in text.split(",")) if word))
    if not names:
        raise ValueError(f"optimizers: expected one of {', '.join(every_optimizer())}, came nothing")
    for name in names:
        optimizer_called(name)
    return names


def rates_of(text: str | None) -> list[float]:
    """The rates that `--lrs` names, in ascending order. Raises `ValueError`."""
    if text is None:
        return list(RATES)
    try:
        rates = sorted({float(word) for word in text.split(",")})
    except ValueError:
        rates = [0.0]
    if not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"lrs: expected numbers above 0, separated by commas, came {text!r}")
    return rates


class Watcher:
    """A bar on a terminal; a line for each optimizer anywhere else."""

    def __init__(self, console: Console, names: list[str], trials: int) -> None:
        self._console, self._names = console, names
        self._name, self._best = "", float("inf")
        self._progress = Progress(
            TextColumn("  {task.description:<20}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("trainings  {task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=len(names) * trials, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def saw(self, name: str, trial: Trial) -> None:
        """One training has ended."""
        if name != self._name:
            self._name, self._best = name, float("inf")
            if not self._console.is_terminal:
                place = f"{self._names.index(name) + 1} of {len(self._names)}"
                self._console.print(f"  {place:>8}  {name}", highlight=False, soft_wrap=True)
        if trial.loss < self._best:
            self._best = trial.loss
        task = self._progress.tasks[0]
        total = max(task.total or 0, task.completed + 1)
        self._progress.update(
            self._task, advance=1, total=total, description=name, figures=f"best loss {self._best:.2g}"
        )
