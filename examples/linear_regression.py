"""Linear regression by hand, three ways: batch, stochastic and mini-batch gradient descent through a server.

    gradserve serve &
    python examples/linear_regression.py [URL]

The worker computes the line's prediction, the error and its gradient; the server takes the step, w ← w − lr · g. One
push is one update, so the way of training is how many samples a push has seen. With 10 samples and n epochs:

    batch        all samples together        n updates
    stochastic   one sample at a time        10 n updates
    mini-batch   k samples at a time         ⌈10 / k⌉ n updates, the last batch of an epoch smaller
"""

import math
import sys
import uuid

import numpy as np

import gradserve as gs

SAMPLES, EPOCHS, MINI = 10, 30, 4
SLOPES, OFFSET = np.array([2.0, -3.0]), 0.5  # what is to be found out
FORMS = {"batch": (SAMPLES, 0.3), "stochastic": (1, 0.03), "mini-batch": (MINI, 0.1)}  # samples a push, lr


def loss_and_gradients(w, b, x, t):
    """Mean squared error of y = x w + b over the samples given, and its gradient for w and b."""
    n = len(t)
    y = x @ w + b  # forward
    error = y - t
    loss = float(np.mean(error**2))
    dy = 2 * error / n  # backward, from the loss to the parameters
    return loss, {"w": x.T @ dy, "b": dy.sum()}


rng = np.random.default_rng(0)
x = rng.normal(size=(SAMPLES, 2))
t = x @ SLOPES + OFFSET + rng.normal(scale=0.05, size=SAMPLES)

with gs.connect(*sys.argv[1:2]) as client:  # the URL given, else $GRADSERVE_URL, else http://127.0.0.1:8970
    for form, (size, lr) in FORMS.items():
        name = f"line-{form}-{uuid.uuid4().hex[:8]}"  # a run of its own each time
        run = client.run(name, init={"w": np.zeros(2), "b": np.zeros(())}, optimizer=gs.SGD(lr=lr))
        with run.worker("w0") as worker:
            params = worker.pull()
            first, _ = loss_and_gradients(params["w"], params["b"], x, t)
            for _ in range(EPOCHS):
                order = rng.permutation(SAMPLES)
                for start in range(0, SAMPLES, size):
                    rows = order[start : start + size]
                    loss, gradients = loss_and_gradients(params["w"], params["b"], x[rows], t[rows])
                    params = worker.step(gradients, loss=loss, samples=len(rows))
        last, _ = loss_and_gradients(params["w"], params["b"], x, t)
        updates = run.describe()["step"]  # the server's own count
        assert updates == EPOCHS * math.ceil(SAMPLES / size)
        print(
            f"{form:<10}  {EPOCHS} epochs x ceil({SAMPLES} / {size}) = {updates} updates   "
            f"loss {first:.3f} -> {last:.4f}   w = {np.round(params['w'], 2)}  b = {float(params['b']):.2f}"
        )
        run.delete()
