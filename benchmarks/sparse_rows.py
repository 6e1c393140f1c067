"""Push the gradient of some rows of a table, against the whole gradient: milliseconds and bytes, and their ratios.

    python benchmarks/sparse_rows.py [--rows 1000000] [--width 64] [--touched 1000] [--optimizer adagrad] [--pushes 30]

A worker pulls the rows that its batch touches and pushes their gradient, as training with an embedding table does;
now and then the same worker pushes a whole gradient and pulls the whole table. Both in the same run, in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
from servers import folder_store, gradserve_server, machine_line, redis_server

import gradserve as gs


def milliseconds(work: Callable[[], object]) -> float:
    """How long the work takes."""
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Measure and print a few lines."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--width", type=int, default=64)
    options.add_argument("--touched", type=int, default=1_000)
    options.add_argument("--optimizer", default="adagrad")
    options.add_argument("--pushes", type=int, default=30, help="of rows, after each whole push")
    options.add_argument("--whole", type=int, default=3, help="whole pushes")
    options.add_argument("--store", choices=("redis", "sqlite"), default="sqlite")
    args = options.parse_args()
    random = np.random.default_rng(0)
    table = np.zeros((args.rows, args.width), np.float32)
    gradient = np.full_like(table, 1e-3)
    took: dict[str, list[float]] = {"push of rows": [], "pull of rows": [], "whole push": [], "whole pull": []}
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(redis_server() if args.store == "redis" else folder_store())
        server = stack.enter_context(gradserve_server(store, "--durability", "memory"))
        client = stack.enter_context(gs.connect(server.url))
        run = client.run("bench", init={"table": table}, optimizer=args.optimizer)
        worker = stack.enter_context(run.worker("w0"))
        worker.pull()
        for _ in range(args.whole):
            took["whole push"].append(milliseconds(partial(worker.push, {"table": gradient})))
            took["whole pull"].append(milliseconds(worker.pull))
            for _ in range(args.pushes):
                ids = random.integers(0, args.rows, args.touched)
                values = random.standard_normal((args.touched, args.width), np.float32)
                took["pull of rows"].append(milliseconds(partial(worker.pull_part, ["table"], ids)))
                took["push of rows"].append(milliseconds(partial(worker.push, {"table": gs.Rows(ids, values)})))
            worker.pull()  # a whole gradient is computed at the whole table
    whole_bytes, row_bytes = table.nbytes, 4 * args.touched * args.width
    print(f"{args.rows:,} x {args.width}, {args.touched:,} rows, {args.optimizer}, {args.store}, {machine_line()}")
    for name, each in took.items():
        print(f"{name:>13}  {median(each):8.2f} ms  best {min(each):8.2f}  worst {max(each):8.2f}  of {len(each)}")
    push, pull = (median(took[f"whole {verb}"]) / median(took[f"{verb} of rows"]) for verb in ("push", "pull"))
    up, down = whole_bytes / (row_bytes + 8 * args.touched), whole_bytes / row_bytes
    print(f"whole over rows: push {push:.0f}x, pull {pull:.0f}x; bytes up {up:.0f}x, bytes down {down:.0f}x")


if __name__ == "__main__":
    main()
