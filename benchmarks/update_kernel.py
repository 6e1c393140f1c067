"""One Adam update: nanoseconds a parameter, ours beside torch's and beside textbook NumPy.

    python benchmarks/update_kernel.py [--rounds 9] [--sizes 10000 1000000 25000000] [--threads 1 2]

Needs the extra `service`, and `bench` for the columns of torch. All contestants take turns in every round, and rest
between turns: idle OpenMP threads go on spinning for a while and would be measured with the next one.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gradserve import specs
from gradserve.wire import allocate
from gradserve_service.core.blocks import RunAll, in_turn, sum_of_squares
from gradserve_service.core.gradient import Gradient
from gradserve_service.core.groups import GroupTerms
from gradserve_service.core.optimizers import rule_for
from gradserve_service.core.update import apply_update
from gradserve_service.replica.threads import Threads

REST_SECONDS = 0.005
TURN_PARAMETERS = 1_000_000  # small updates are repeated within a turn until this many parameters are done
INLINE_PARAMETERS = 65_536  # up to here the service updates without threads

Step = Callable[[], object]


def ours(size: int, run_all: RunAll, spec: Any, clip: tuple[Any, ...] = ()) -> Step:
    """The service's update, two weight buffers taking turns."""
    rule = rule_for(spec)
    buffers = [filled(size, 0.5), filled(size, 0.5)]
    slots = {slot.name: filled(size, 1e-3) for slot in rule.slots}
    memory = dict(rule.memory)
    gradient = Gradient.whole(random_vector(size))
    count = 100

    def step() -> None:
        nonlocal count
        count += 1
        buffers.reverse()
        weights, next_weights = buffers
        apply_update(
            rule,
            clip,
            weights=weights,
            next_weights=next_weights,
            slots=slots,
            memory=memory,
            gradient=gradient,
            terms=[GroupTerms(1e-3, rule.weight_decay)],
            momentum=None,
            step=count,
            run_all=run_all if size > INLINE_PARAMETERS else in_turn,
        )

    return step


def textbook(size: int) -> Step:
    """Adam as it stands in tutorials: a fresh array for every operation."""
    w, m, v, g = filled(size, 0.5), filled(size, 1e-3), filled(size, 1e-3), random_vector(size)

    def step() -> None:
        nonlocal w, m, v
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g**2
        w = w - 1e-3 * (m / (1 - 0.9**100)) / (np.sqrt(v / (1 - 0.999**100)) + 1e-8)

    return step


def torch_adam(size: int, **how: bool) -> Step:
    """torch.optim.Adam on one tensor."""
    import torch

    parameter = torch.nn.Parameter(torch.full((size,), 0.5))
    parameter.grad = torch.from_numpy(random_vector(size))
    return torch.optim.Adam([parameter], lr=1e-3, **how).step


def filled(size: int, value: float) -> Any:
    array = allocate(size)
    array.fill(value)
    return array


def random_vector(size: int) -> Any:
    vector = allocate(size)
    np.random.default_rng(0).standard_normal(out=vector, dtype=np.float32)
    return vector


def measure(steps: dict[str, Step], size: int, rounds: int) -> dict[str, float]:
    """Median nanoseconds a parameter of each, over interleaved rounds; the first round warms up."""
    repeats = max(1, TURN_PARAMETERS // size)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            time.sleep(REST_SECONDS)
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            seconds[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(times[1:]) / size * 1e9 for name, times in seconds.items()}


def contestants(size: int, threads: int, run_all: RunAll, with_torch: bool) -> dict[str, Step]:
    """What is measured for one size and number of threads."""
    gradient = random_vector(size)
    steps: dict[str, Step] = {
        "ours": ours(size, run_all, specs.Adam()),
        "ours, clipped": ours(size, run_all, specs.Adam(), (specs.GlobalNorm(max_norm=1.0),)),
        "ours, AdamW": ours(size, run_all, specs.AdamW()),
        "norm pass": lambda: sum_of_squares(gradient, run_all if size > INLINE_PARAMETERS else in_turn),
    }
    if threads == 1:
        steps["textbook"] = textbook(size)
    if with_torch:
        import torch

        torch.set_num_threads(threads)
        steps["torch fused"] = torch_adam(size, fused=True)
        steps["torch foreach"] = torch_adam(size, foreach=True)
    return steps


def main() -> None:
    """Measure and print one table a number of threads, and the ratios that performance.md sets goals for."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000, 25_000_000])
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = options.parse_args()
    with_torch = importlib.util.find_spec("torch") is not None
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, NumPy {np.__version__}, medians of {args.rounds}, ns a parameter"
    )
    for threads in args.threads:
        pool = Threads(threads)
        run_all = pool.run_all if threads > 1 else in_turn
        print(f"\n{threads} thread{'s' * (threads > 1)}")
        for size in args.sizes:
            found = measure(contestants(size, threads, run_all, with_torch), size, args.rounds)
            print(f"  {size:>11,}  " + " · ".join(f"{name} {ns:.2f}" for name, ns in found.items()))
            rivals = [name for name in ("torch fused", "torch foreach", "textbook") if name in found]
            ratios = [f"{found['ours'] / found[name]:.2f}× {name}" for name in rivals]
            print(f"  {'':>11}  ours takes " + " · ".join(ratios)) if ratios else None
        pool.close()


if __name__ == "__main__":
    main()
