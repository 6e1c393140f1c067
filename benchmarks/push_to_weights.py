"""Push a gradient, get the new weights: milliseconds, and the ratio to raw loopback echo + torch's fused Adam.

    python benchmarks/push_to_weights.py [--parameters 25000000] [--rounds 9] [--store redis|sqlite]

Needs the extra `bench`. The floor does the same work with nothing around it: the same bytes through a TCP socket to
another process and back, and torch's fused Adam on the same number of parameters.
"""

from __future__ import annotations

import argparse
import contextlib
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle threads would spin on the server's cores

import numpy as np
import torch
from servers import Echo, folder_store, gradserve_server, interleaved, machine_line, median_ms, redis_server

import gradserve as gs


def fused_adam(parameters: int) -> torch.optim.Adam:
    """An optimizer whose one tensor already has its gradient."""
    weight = torch.zeros(parameters, requires_grad=True)
    weight.grad = torch.full((parameters,), 1e-3)
    return torch.optim.Adam([weight], lr=1e-3, fused=True)


def main() -> None:
    """Measure and print one line."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--parameters", type=int, default=25_000_000)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--store", choices=("redis", "sqlite"), default="redis")
    args = options.parse_args()
    n = args.parameters
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(redis_server() if args.store == "redis" else folder_store())
        server = stack.enter_context(gradserve_server(store, "--durability", "memory"))
        client = stack.enter_context(gs.connect(server.url))
        run = client.run("bench", init={"w": np.zeros(n, np.float32)}, optimizer=gs.Adam(lr=1e-3))
        worker = stack.enter_context(run.worker("w0"))
        worker.pull()
        gradient = np.random.default_rng(0).standard_normal(n, np.float32) * np.float32(1e-3)
        echo, adam = Echo(4 * n), fused_adam(n)
        stack.callback(echo.close)
        seconds = interleaved(
            {"ours": lambda: worker.step(gradient), "echo": echo.once, "torch": adam.step}, rounds=args.rounds
        )
    ours, echoed, fused = (median_ms(seconds[name]) for name in ("ours", "echo", "torch"))
    print(f"{n:,} parameters, Adam, {args.store}, {machine_line()}, torch {torch.get_num_threads()} threads")
    print(f"push → weights {ours:.1f} ms; floor {echoed + fused:.1f} ms (echo {echoed:.1f} + torch fused {fused:.1f})")
    print(f"ratio {ours / (echoed + fused):.2f}× (medians of {args.rounds}, interleaved)")


if __name__ == "__main__":
    main()
