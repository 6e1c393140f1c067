"""A worker against a real server, over a socket."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gradserve as gs

FIRST = {"w": np.arange(6.0).reshape(2, 3), "b": np.zeros(()), "empty": np.zeros((0, 4))}
ONES = {"w": np.ones((2, 3)), "b": np.ones(()), "empty": np.zeros((0, 4))}


def sgd(client: gs.Client, name: str, **fields) -> gs.Run:
    """A run whose arithmetic can be done in the head: w ← w − g/2."""
    return client.run(name, init=FIRST, optimizer=gs.SGD(lr=0.5), **fields)


def test_a_step_applies_the_gradient_and_brings_the_new_weights(client, name):
    """float64 in, float32 out, shapes kept, scalars and empty tensors included."""
    with sgd(client, name).worker("w0") as worker:
        weights = worker.pull()
        assert (weights["w"] == FIRST["w"]).all()
        weights = worker.step(ONES, loss=0.5, samples=32)
        assert (weights["w"] == FIRST["w"] - 0.5).all()
        assert (weights["b"].shape, weights["b"].dtype) == ((), np.float32)
        assert weights["empty"].shape == (0, 4)
        assert (weights.version, worker.last_push.outcome, worker.last_push.version) == (1, "applied", 1)
        assert (worker.step(ONES)["w"] == FIRST["w"] - 1.0).all()


def test_a_push_tells_all_about_its_update(client, name):
    """And leaves the weights that the worker holds alone."""
    with sgd(client, name).worker("w0") as worker:
        held = worker.pull()
        result = worker.push(ONES, loss=0.5)
        assert (result.outcome, result.sequence, result.version, result.step) == ("applied", 1, 1, 1)
        assert (result.staleness, result.staleness_weight, result.lr, result.clip_scale) == (0, 1.0, 0.5, 1.0)
        assert result.gradient_norm == pytest.approx(np.sqrt(7))
        assert result.weights is None
        assert worker.push(ONES).staleness == 1  # still computed at the first weights
        assert worker.pull() is not held


def test_a_flat_vector_is_a_gradient_in_layout_order(client, name):
    """Names in byte order, end to end."""
    with sgd(client, name).worker("w0") as worker:
        weights = worker.pull()
        assert weights.layout.names == ("b", "empty", "w")
        weights = worker.step(np.arange(7, dtype=np.float32))
        assert (weights.vector == np.array([0, 0, 1, 2, 3, 4, 5]) - np.arange(7) / 2).all()
        with pytest.raises(gs.LayoutMismatch, match="7 elements"):
            worker.step(np.zeros(8, np.float32))


def test_large_tensors_arrive_as_aligned_views(client, name):
    """Over many chunks each way: one buffer, 64-byte aligned, and not a bit lost."""
    rng = np.random.default_rng(0)
    first = {f"t{i}": rng.normal(size=(1000, 300 + i)).astype(np.float32) for i in range(5)}
    gradient = {name: rng.normal(size=tensor.shape).astype(np.float32) for name, tensor in first.items()}
    with client.run(name, init=first, optimizer=gs.SGD(lr=0.5)).worker("w0") as worker:
        assert all((worker.pull()[key] == first[key]).all() for key in first)
        weights = worker.step(gradient)
        assert weights.vector.ctypes.data % 64 == 0
        assert all(np.shares_memory(weights[key], weights.vector) for key in first)
        assert all((weights[key] == first[key] - np.float32(0.5) * gradient[key]).all() for key in first)


def test_a_tensor_left_out_keeps_its_weights(client, name):
    """No gradient is not a gradient of zero."""
    with sgd(client, name).worker("w0") as worker:
        weights = worker.step({"b": np.float32(1.0)})
        assert (float(weights["b"]), weights["w"].tolist()) == (-0.5, FIRST["w"].tolist())


def test_one_of_many_first_workers_wins(client, name):
    """Eight at once, each with other weights: all of them go on from the same."""
    start = threading.Barrier(8)

    def open_and_pull(k: int) -> float:
        start.wait()
        run = client.run(name, init={"w": np.full(3, float(k))}, optimizer="adam")
        with run.worker(f"w{k}") as worker:
            return float(worker.pull()["w"][0])

    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(open_and_pull, range(8)))
    assert len(seen) == 1


def test_other_ranks_wait_for_rank_0(client, name, monkeypatch):
    """Rank 1 came first; its own weights are never the run's."""
    monkeypatch.setenv("RANK", "1")
    late = client.run(name, init={"w": np.ones(3)}, optimizer="sgd")
    monkeypatch.setenv("RANK", "0")
    with ThreadPoolExecutor(1) as pool:
        pulled = pool.submit(late.worker().pull)
        first = client.run(name, init={"w": np.zeros(3)}, optimizer="sgd")
        assert pulled.result(60)["w"].tolist() == [0.0, 0.0, 0.0]
    with first.worker() as worker:
        assert worker.name == "worker-0"


def test_a_wait_ends_with_newer_weights(client, name):
    """A long-poll: another worker's update wakes it."""
    run = sgd(client, name)
    with run.worker("w0") as waiting, run.worker("w1") as pushing, ThreadPoolExecutor(1) as pool:
        assert waiting.pull().version == 0
        newer = pool.submit(lambda: waiting.pull(wait_seconds=30))
        pushing.step(ONES)
        assert newer.result(60).version == 1
    assert run.pull().version == 1
    assert run.pull() is run.pull()


def test_submissions_overlap_and_keep_their_order(client, name):
    """Each is computed at the weights before, while the one before it is on its way."""
    with sgd(client, name).worker("w0") as worker:
        weights = worker.pull()
        gradient = {key: tensor.copy() for key, tensor in ONES.items()}
        sent = None
        for _ in range(5):
            base, weights = weights, sent.result() if sent else weights
            sent = worker.submit(gradient, base=base)
            gradient["w"] += 0.0  # the caller's arrays are free again at once
        assert (sent.result()["w"] == FIRST["w"] - 2.5).all()
        assert (sent.push.version, sent.push.staleness) == (5, 1)
        assert not sent.cancel()


def test_a_failed_submission_does_not_pass_unseen(client, name):
    """If nobody asks for its result, the next verb raises, and the gradients after it are not sent."""
    with sgd(client, name).worker("w0") as worker:
        sent = worker.submit({"w": np.full((2, 3), np.nan)})
        with pytest.raises(gs.NonFiniteGradient):
            worker.step(ONES)
        with pytest.raises(gs.NonFiniteGradient):
            sent.result()
        assert worker.step(ONES).version == 1
    with pytest.raises(gs.NonFiniteGradient), sgd(client, name).worker("w0") as worker:
        worker.submit({"w": np.full((2, 3), np.nan)})


def test_a_run_may_skip_what_is_not_finite(client, name):
    """The sequence is used up, the weights stay."""
    with sgd(client, name, non_finite="skip").worker("w0") as worker:
        weights = worker.step({"w": np.full((2, 3), np.nan)}, loss=np.nan)
        assert (worker.last_push.outcome, weights.version) == ("skipped", 0)
        assert worker.push(ONES).sequence == 2


def test_a_contribution_brings_the_unchanged_weights(client, name):
    """The very same object, until the batch is complete; then the mean by samples is applied."""
    run = sgd(client, name, accumulate=gs.Accumulate(samples=4))
    with run.worker("w0") as worker:
        held = worker.pull()
        assert worker.step(ONES, samples=3) is held
        push = worker.last_push
        assert (push.outcome, push.accepted, push.version, push.lr) == ("contributed", True, 0, None)
        assert push.batch == {"pushes": 1, "samples": 3.0, "target": {"samples": 4.0}}
        assert worker.push({"w": np.full((2, 3), 5.0)}).batch["pushes"] == 2
        weights = worker.pull()
        assert (weights["w"] == FIRST["w"] - 1.0).all()  # (3 * 1 + 5) / 4 / 2
        assert weights["b"] == -0.5
    assert run.configure(accumulate=None)["batch"] is None


def test_a_loss_scale_that_was_too_large_is_told(client, name):
    """The SDK's half of a GradScaler: divide on the server, learn whether all was finite."""
    with sgd(client, name, non_finite="skip").worker("w0") as worker:
        assert worker.push({"w": np.full((2, 3), np.inf)}, loss_scale=2.0**16).finite is False
        weights = worker.step({"w": np.full((2, 3), 2.0**16)}, loss_scale=np.float32(2.0**16))
        assert worker.last_push.finite is True
        assert (weights["w"] == FIRST["w"] - 0.5).all()
        with pytest.raises(gs.ValidationError, match="loss_scale"):
            worker.push(ONES, loss_scale=0.0)


@pytest.mark.parametrize("on_stale", ["refresh", "resubmit", "raise"])
def test_a_stale_gradient(client, name, on_stale):
    """The run takes none that is older than the current version; the worker does as it was told."""
    run = sgd(client, name, staleness=gs.Inverse(max_staleness=0))
    with run.worker("slow", on_stale=on_stale) as slow, run.worker("fast") as fast:
        slow.pull()
        fast.step(ONES)
        if on_stale == "raise":
            with pytest.raises(gs.StaleGradient):
                slow.step(ONES)
            return
        weights = slow.step(ONES)
        expected = {"refresh": ("refreshed", 1), "resubmit": ("applied", 2)}
        assert (slow.last_push.outcome, weights.version) == expected[on_stale]


def test_a_replaced_worker_is_fenced(client, name):
    """The newer instance owns the name; the older one stops, and does not take the newer one with it when it leaves."""
    run = sgd(client, name)
    with run.worker("w0") as zombie:
        zombie.step(ONES)
        with run.worker("w0") as living:
            assert living.generation == 2
            with pytest.raises(gs.Fenced):
                zombie.step(ONES)
            with pytest.raises(gs.Fenced):
                zombie.pull()
            zombie.leave()
            assert living.step(ONES).version == 2


def test_workers_of_one_process_have_names_of_their_own(client, server, name):
    """Through whichever client they were made; what the first one's was is free when it has left."""
    run = sgd(client, name)
    with gs.connect(server.url) as other, run.worker() as first, other.run(name).worker() as second:
        assert second.name == f"{first.name}-2"
        first.step(ONES)
        assert second.step(ONES).version == 2
    with run.worker() as third:
        assert third.name == first.name


def test_names_are_given_once_however_many_ask_at_once(server, name):
    """Each in a thread with a client of its own."""
    start, given = threading.Barrier(16), []

    def join():
        with gs.connect(server.url) as own:
            run = own.run(name)
            start.wait(60)
            given.append(run.worker())

    with gs.connect(server.url) as client:
        sgd(client, name)
    threads = [threading.Thread(target=join) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({worker.name for worker in given}) == 16


def test_a_heartbeat_finds_out_while_the_gradient_is_computed(client, name):
    """A worker that says nothing for a while shows that it lives, and learns that it was replaced."""
    run = sgd(client, name)
    with run.worker("sleeper", heartbeat_seconds=0.02) as zombie:
        (heartbeats,) = [thread for thread in threading.enumerate() if thread.name == "gradserve-sleeper"]
        with run.worker("sleeper"):
            heartbeats.join(60)
            assert not heartbeats.is_alive()
            with pytest.raises(gs.Fenced):
                zombie.pull()


def test_a_restarted_worker_goes_on_at_its_cursor(client, name):
    """The place in the data is kept with the gradient that ended there; the sequence goes on."""
    run = sgd(client, name)
    with run.worker("w0") as worker:
        assert worker.cursor is None
        worker.step(ONES, cursor="epoch 0 batch 1")
        worker.step(ONES, cursor="epoch 0 batch 2")
        assert worker.cursor == "epoch 0 batch 2"
    with run.worker("w0") as worker:
        assert (worker.cursor, worker.generation) == ("epoch 0 batch 2", 2)
        assert worker.push(ONES).sequence == 3


def test_leaving_is_told(client, name):
    """The run's roster knows who is there."""
    run = sgd(client, name)
    with run.worker("w0"):
        assert run.describe()["workers"] == 1
    assert run.describe()["workers"] == 0
