"""Trains the transformer both ways with as many gradients, and draws the picture of docs/images.

python examples/torch_transformer/measure.py --steps 800 --picture docs/images/torch_transformer.png
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import gradserve as gs

HERE = Path(__file__).resolve().parent
LOCAL, REMOTE = "#ea7317", "#2563eb"
WORKERS = 2


def start(program, steps, every, **environment):
    """One training process; its output is a line of JSON for each look at the held-out text."""
    words = [sys.executable, HERE / program, "--steps", str(steps), "--every", str(every)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})


def finish(process):
    """Its lines, when it has ended."""
    lines, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a training process ended with {process.returncode}")
    return [json.loads(line) for line in lines.splitlines()]


def measure(steps, every):
    """`steps` gradients in one loop, then the same number by two processes together."""
    local = finish(start("train_local.py", steps, every))
    with tempfile.TemporaryDirectory() as place:
        words = [sys.executable, "-m", "gradserve_service", "serve", "--json", "--port", "0"]
        words += ["--store", f"sqlite:///{place}/store.db"]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            url = json.loads(server.stdout.readline())["url"]
            share = [
                start("train_remote.py", steps // WORKERS, every // WORKERS, GRADSERVE_URL=url, RANK=str(rank))
                for rank in range(WORKERS)
            ]
            remote = [finish(process) for process in share]
            with gs.connect(url) as client:
                history = client.run("topics").history(["staleness", "loss"])
        finally:
            server.terminate()
            server.communicate()
    return local, remote, history


def show(local, remote, staleness):
    """Both losses side by side, by the number of gradients that all processes have computed."""
    print(f"{'gradients':>9}  {'one loop':>8}  " + "  ".join(f"worker {rank}" for rank in range(WORKERS)))
    for alone, *together in zip(local, *remote, strict=True):
        print(
            f"{alone['step']:9}  {alone['held_out']:8.3f}  " + "  ".join(f"{row['held_out']:8.3f}" for row in together)
        )
    seconds = max(rows[-1]["seconds"] for rows in remote)
    print(f"seconds: one loop {local[-1]['seconds']:.1f}, {WORKERS} processes {seconds:.1f}")
    counts = np.bincount(staleness)
    shares = ", ".join(f"{age}: {count / counts.sum():.1%}" for age, count in enumerate(counts) if count)
    print(f"staleness: mean {staleness.mean():.2f}, most {staleness.max()}; {shares}")


def draw(path, local, remote, history):
    """The losses against gradients and against time."""
    import matplotlib

    matplotlib.use("agg")  # no screen is needed
    from matplotlib import pyplot

    figure, (by_gradients, by_time) = pyplot.subplots(1, 2, figsize=(12, 4.6), sharey=True, layout="constrained")
    means = np.convolve(history["loss"], np.ones(20) / 20, "valid")
    by_gradients.plot(
        np.arange(len(means)) + 20, means, color=REMOTE, alpha=0.35, label="two processes, batches (mean of 20)"
    )
    for panel, column in ((by_gradients, "step"), (by_time, "seconds")):
        panel.plot(
            [row[column] for row in local],
            [row["held_out"] for row in local],
            "o-",
            color=LOCAL,
            label="one loop, held out",
        )
        for rows, style in zip(remote, ("s-", "^--"), strict=True):
            x = [row[column] * (WORKERS if column == "step" else 1) for row in rows]
            label = f"process {rows[0]['rank']} of two, held out"
            panel.plot(x, [row["held_out"] for row in rows], style, color=REMOTE, label=label)
        panel.grid(color="#e4e7eb")
        panel.spines[["top", "right"]].set_visible(False)
    by_gradients.set(xlabel="gradients computed, all processes together", ylabel="cross-entropy of the next character")
    by_time.set(xlabel="seconds")
    by_gradients.legend(frameon=False)
    figure.suptitle("A small transformer in PyTorch: torch.optim.AdamW in one loop, RemoteOptimizer in two processes")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=800, help="gradients, by one loop and by two processes together")
    parser.add_argument("--every", type=int, default=100, help="gradients between two looks; even")
    parser.add_argument("--picture", help="where the PNG goes")
    given = parser.parse_args()
    local, remote, history = measure(given.steps, given.every)
    show(local, remote, history["staleness"].astype(int))
    if given.picture:
        draw(given.picture, local, remote, history)


if __name__ == "__main__":
    main()
