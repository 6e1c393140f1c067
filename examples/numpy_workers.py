"""Several workers at once, each a process with a shard of the data: together they train one run.

    gradserve serve &
    python examples/numpy_workers.py [URL] [WORKERS]

No worker knows of another. The first that comes makes the run, the others find it; a gradient that was computed while
others pushed counts 1 / (1 + staleness).
"""

import multiprocessing
import sys
import uuid

import numpy as np

import gradserve as gs
from gradserve.losses import mse

SLOPES, OFFSET = np.array([1.0, -2.0, 3.0]), 0.5  # what the workers are to find out
ROWS, BATCH, EPOCHS = 800, 20, 10
FIRST = {"w": np.zeros(3), "b": np.zeros(())}
SPEC = gs.RunSpec(optimizer=gs.Adam(lr=0.05), staleness=gs.Inverse(max_staleness=100))


def train(url, name, rank, workers):
    """One worker: every `workers`-th row is its own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    t = x @ SLOPES + OFFSET + rng.normal(scale=0.1, size=ROWS)
    x, t = x[rank::workers], t[rank::workers]
    with gs.connect(url) as client:
        run = client.run(name, init=FIRST, spec=SPEC)
        with run.worker(f"worker-{rank}") as worker:
            params = worker.pull()
            for _ in range(EPOCHS):
                for start in range(0, len(x), BATCH):
                    rows = slice(start, start + BATCH)
                    loss, slope = mse(x[rows] @ params["w"] + params["b"], t[rows])
                    gradients = {"w": x[rows].T @ slope, "b": slope.sum()}
                    params = worker.step(gradients, loss=loss, samples=len(t[rows]))
        print(f"worker {rank}  loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else None  # None: $GRADSERVE_URL, else http://127.0.0.1:8970
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    name = f"shards-{uuid.uuid4().hex[:8]}"
    start = multiprocessing.get_context("spawn").Process
    crew = [start(target=train, args=(url, name, rank, workers)) for rank in range(workers)]
    for worker in crew:
        worker.start()
    for worker in crew:
        worker.join()
    if any(worker.exitcode for worker in crew):
        sys.exit("a worker failed: its reason is above")
    with gs.connect(url) as client:
        run = client.run(name)
        params = run.pull()
        print(f"{run.describe()['step']} updates by {workers} workers")
        print("w =", np.round(params["w"], 2), " b =", round(float(params["b"]), 2))
        run.delete()
