"""A classifier with one hidden layer in plain NumPy: softmax, cross-entropy, backpropagation, and a server that learns.

    gradserve serve &
    python examples/mlp.py [URL]

Three spirals, wound into each other, that no straight line can tell apart. The worker has no optimizer: it sends the
gradients of the mean loss and gets the next weights.
"""

import sys
import uuid

import numpy as np

import gradserve as gs
from gradserve.losses import softmax_cross_entropy

CLASSES, HIDDEN, BATCH, EPOCHS = 3, 32, 25, 60


def spirals(rng, points=100):
    """Points in the plane and their spirals, one-hot."""
    radius = np.tile(np.linspace(0.05, 1, points), CLASSES)
    arm = np.repeat(np.arange(CLASSES), points)
    angle = 4 * radius + arm * 2 * np.pi / CLASSES + rng.normal(scale=0.1, size=arm.size)
    x = radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return x.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[arm]


def loss_and_gradients(p, x, t):
    """Mean cross-entropy of softmax(relu(x W1 + b1) W2 + b2), and its gradient for every parameter."""
    n = len(x)
    a = x @ p["W1"] + p["b1"]  # forward
    h = np.maximum(a, 0)
    z = h @ p["W2"] + p["b2"]
    loss, dz = softmax_cross_entropy(z, t)  # sums over the rows: softmax(z) - t is the gradient
    dz /= n  # backward, one line for each line above
    da = (dz @ p["W2"].T) * (a > 0)
    return loss / n, {"W1": x.T @ da, "b1": da.sum(axis=0), "W2": h.T @ dz, "b2": dz.sum(axis=0)}


def accuracy(p, x, t):
    """Share of the points on the right spiral."""
    z = np.maximum(x @ p["W1"] + p["b1"], 0) @ p["W2"] + p["b2"]
    return float(np.mean(z.argmax(axis=1) == t.argmax(axis=1)))


rng = np.random.default_rng(0)
x, t = spirals(rng)
first = {
    "W1": rng.normal(scale=np.sqrt(2 / 2), size=(2, HIDDEN)),  # He: variance 2 / inputs
    "b1": np.zeros(HIDDEN),
    "W2": rng.normal(scale=np.sqrt(2 / HIDDEN), size=(HIDDEN, CLASSES)),
    "b2": np.zeros(CLASSES),
}

with gs.connect(*sys.argv[1:2]) as client:  # the URL given, else $GRADSERVE_URL, else http://127.0.0.1:8970
    run = client.run(f"spirals-{uuid.uuid4().hex[:8]}", init=first, optimizer=gs.Adam(lr=0.02))
    with run.worker("w0") as worker:
        params = worker.pull()
        for epoch in range(EPOCHS):
            order = rng.permutation(len(x))
            for start in range(0, len(x), BATCH):
                rows = order[start : start + BATCH]
                loss, gradients = loss_and_gradients(params, x[rows], t[rows])
                params = worker.step(gradients, loss=loss, samples=len(rows))
            if epoch % 10 == 9:
                loss, _ = loss_and_gradients(params, x, t)
                print(f"epoch {epoch + 1:>2}  loss {loss:.4f}  accuracy {accuracy(params, x, t):.1%}")
    print(f"{run.describe()['step']} updates, {EPOCHS} epochs x ceil({len(x)} / {BATCH})")
    run.delete()
