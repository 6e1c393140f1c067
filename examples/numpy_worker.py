"""The smallest worker: linear regression in plain NumPy, trained through a server.

    gradserve serve &
    python examples/numpy_worker.py

Start it in several terminals at once, each with a name of its own (`numpy_worker.py w1`): they train one run together.
"""

import sys

import numpy as np

import gradserve as gs
from gradserve.losses import mse

SLOPES, OFFSET = np.array([1.0, -2.0, 3.0]), 0.5  # what the workers are to find out
BATCH = 32

name = sys.argv[1] if len(sys.argv) > 1 else "w0"
rng = np.random.default_rng(sum(name.encode()))  # each worker has data of its own

with gs.connect() as client:  # $GRADSERVE_URL, else http://127.0.0.1:8970
    run = client.run("line", init={"w": np.zeros(3), "b": np.zeros(())}, optimizer=gs.Adam(lr=0.05))
    with run.worker(name) as worker:
        params = worker.pull()
        for step in range(300):
            x = rng.normal(size=(BATCH, 3))
            truth = x @ SLOPES + OFFSET + rng.normal(scale=0.1, size=BATCH)
            loss, slope = mse(x @ params["w"] + params["b"], truth)
            params = worker.step({"w": x.T @ slope, "b": slope.sum()}, loss=loss, samples=BATCH)
            if step % 50 == 49:
                print(f"step {step + 1}  loss {loss:.4f}")

print("w =", np.round(params["w"], 2), " b =", round(float(params["b"]), 2))
