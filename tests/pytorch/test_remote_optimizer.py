"""A run behind `torch.optim.Optimizer`: the same weights as torch's own, and the same manners."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradserve as gs
from gradserve.torch import RemoteOptimizer
from pytorch.networks import TOLERANCE, batch, difference, loss_of, network, train, twins
from sdk.serving import Server


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        (gs.AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
        (
            gs.AdamW(lr=0.01, weight_decay=0.1, amsgrad=True),
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
        ),
        (gs.Adam(lr=0.01, betas=(0.8, 0.95)), lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95))),
        (gs.SGD(lr=0.05, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
        (
            gs.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
    ],
    ids=["adamw", "amsgrad", "adam", "sgd", "nesterov"],
)
def test_twenty_updates_end_where_torch_ends(name, remote, local):
    """To 1e-5 of the distance moved, and with the same losses on the way."""
    here, there, start = twins()
    expected = train(here, local(here.parameters()))
    with RemoteOptimizer(there.named_parameters(), run=name, optimizer=remote) as optimizer:
        losses = train(there, optimizer)
        assert optimizer.last_push.version == 20
    assert difference(here, there, start) <= TOLERANCE
    assert losses == pytest.approx(expected, rel=1e-4)


def test_scaled_losses_of_parts_of_a_batch_end_where_torch_ends(name):
    """Twenty batches of 32 as parts of 8 and 24, losses times 2^16: the server divides, and averages by samples."""
    here, there, start = twins()
    train(here, torch.optim.AdamW(here.parameters(), lr=0.01))
    settings = {"optimizer": gs.AdamW(lr=0.01), "accumulate": gs.Accumulate(samples=32)}
    with RemoteOptimizer(there.named_parameters(), run=name, **settings) as optimizer:
        for step in range(20):
            x, y = batch(step)
            for part in (slice(0, 8), slice(8, 32)):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(there(x[part]), y[part])
                (loss * 2.0**16).backward()
                optimizer.step(loss=loss, samples=part.stop - part.start, loss_scale=2.0**16)
        assert (optimizer.last_push.outcome, optimizer.last_push.version) == ("applied", 20)
        assert optimizer.last_push.finite
    assert difference(here, there, start) <= TOLERANCE


def test_it_is_an_optimizer_of_torch_with_its_defaults(name):
    """Programs look into `param_groups`."""
    with RemoteOptimizer(network().named_parameters(), run=name, optimizer=gs.AdamW(lr=0.01)) as optimizer:
        assert isinstance(optimizer, torch.optim.Optimizer)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (0.01, (0.9, 0.999), 0.01)
        assert group["param_names"][0] == "0.weight"
    assert optimizer._run.description["tensors"][0]["name"] == "0.bias"


def test_the_second_worker_starts_from_the_weights_of_the_run(name):
    """Its own are overwritten, in place."""
    first, second = network(), network()
    with torch.no_grad():
        second[0].weight.add_(1.0)
    with RemoteOptimizer(first.named_parameters(), run=name, worker="a", optimizer="sgd") as one:
        train(first, one, range(3))
        with RemoteOptimizer(second.named_parameters(), run=name, worker="b", optimizer="sgd"):
            for a, b in zip(first.parameters(), second.parameters(), strict=True):
                assert torch.equal(a, b)


def test_a_closure_is_called_with_gradients_on_and_its_loss_is_kept(name):
    """`optimizer.step(closure)` answers what the closure answers."""
    here, there, start = twins()
    local = torch.optim.AdamW(here.parameters(), lr=0.01)

    def closing(model, optimizer, step):
        def closure():
            optimizer.zero_grad()
            loss = loss_of(model, step)
            loss.backward()
            return loss

        return closure

    with RemoteOptimizer(there.named_parameters(), run=name, optimizer=gs.AdamW(lr=0.01)) as optimizer:
        for step in range(5):
            expected = local.step(closing(here, local, step))
            with torch.no_grad():  # as torch's optimizers, the closure turns gradients on by itself
                loss = optimizer.step(closing(there, optimizer, step))
            assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert difference(here, there, start) <= TOLERANCE


def test_a_parameter_without_a_gradient_is_left_out(name):
    """It keeps its weights, although the run decays weights."""
    model = network()
    with RemoteOptimizer(
        model.named_parameters(), run=name, optimizer=gs.AdamW(lr=0.01, weight_decay=0.5)
    ) as optimizer:
        before = model[3].weight.detach().clone()
        loss_of(model, 0).backward()
        model[3].weight.grad = None
        optimizer.step()
        assert torch.equal(model[3].weight, before)
        assert optimizer.last_push.outcome == "applied"


def test_a_step_without_any_gradient_sends_nothing(name):
    """As in torch, it is no update."""
    with RemoteOptimizer(network().named_parameters(), run=name, optimizer="adamw") as optimizer:
        assert optimizer.step() is None
        assert optimizer.last_push is None


def test_frozen_parameters_are_uploaded_and_pushed_once_they_thaw(name):
    """The run has them from the start, so that thawing needs no new run."""
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.detach().clone()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer=gs.SGD(lr=0.1)) as optimizer:
        train(model, optimizer, range(3))
        assert torch.equal(model[0].weight, before)
        model[0].requires_grad_(True)
        train(model, optimizer, range(3, 6))
        assert not torch.equal(model[0].weight, before)


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Linear(6, 6, bias=False)
        self.last = nn.Linear(6, 6, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))[:, :3]


@pytest.mark.parametrize("remove_duplicate", [True, False])
def test_tied_weights_are_one_tensor_with_one_gradient(name, remove_duplicate):
    """Under its first name, even where both names are given."""
    here, there, start = Tied(), Tied(), Tied()
    train(here, torch.optim.AdamW(here.parameters(), lr=0.01), range(5))
    named = there.named_parameters(remove_duplicate=remove_duplicate)
    with RemoteOptimizer(named, run=name, optimizer=gs.AdamW(lr=0.01)) as optimizer:
        train(there, optimizer, range(5))
        assert list(optimizer.run.pull()) == ["first.weight"]
    assert there.last.weight is there.first.weight
    assert difference(here, there, start) <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_parameters_of_another_dtype_stay_of_it(name, dtype):
    """The run keeps float32, the model gets them in its own dtype."""
    model = network(dtype)
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer=gs.AdamW(lr=0.01)) as optimizer:
        train(model, optimizer, range(5))
        kept = optimizer.run.pull()
        for called, parameter in model.named_parameters():
            assert parameter.dtype == dtype
            assert torch.equal(parameter.detach(), torch.tensor(kept[called]).to(dtype))


def test_small_updates_are_not_lost_to_bfloat16(name):
    """The server's float32 weights move by steps that one bfloat16 does not show."""
    model = network(torch.bfloat16)
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer=gs.SGD(lr=1e-5)) as optimizer:
        before = optimizer.run.pull()["0.weight"].copy()
        train(model, optimizer, range(1))
        assert (optimizer.run.pull()["0.weight"] != before).any()


@pytest.mark.parametrize("overflow", [False, True], ids=["finite", "found_inf"])
def test_a_step_that_the_grad_scaler_skips_sends_nothing(name, overflow):
    """The scaler unscales the gradients, and calls `step` only when they are finite."""
    here, there, start = twins()
    with RemoteOptimizer(there.named_parameters(), run=name, optimizer=gs.AdamW(lr=0.01)) as optimizer:
        for model, chosen in ((here, torch.optim.AdamW(here.parameters(), lr=0.01)), (there, optimizer)):
            scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
            for step in range(4):
                chosen.zero_grad()
                scaler.scale(loss_of(model, step)).backward()
                if overflow and step == 1:
                    model[0].weight.grad[0, 0] = torch.inf
                scaler.step(chosen)
                scaler.update()
        assert optimizer.run.describe()["version"] == (3 if overflow else 4)
    assert difference(here, there, start) <= TOLERANCE


def test_clipping_by_torch_comes_before_the_push(name):
    """Whatever the program does to `.grad` is what is sent."""
    here, there, start = twins()
    with RemoteOptimizer(there.named_parameters(), run=name, optimizer=gs.SGD(lr=0.5)) as optimizer:
        for model, chosen in ((here, torch.optim.SGD(here.parameters(), lr=0.5)), (there, optimizer)):
            loss_of(model, 0).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            chosen.step()
    assert difference(here, there, start) <= TOLERANCE


def test_hooks_are_called_around_the_step(name):
    """Before the gradients are read, after the weights have come."""
    model, seen = network(), []
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="sgd") as optimizer:
        optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.last_push))
        optimizer.register_step_post_hook(lambda optimizer, *_: seen.append(optimizer.last_push.version))
        train(model, optimizer, range(1))
    assert seen == [None, 1]


def test_with_overlap_the_weights_are_one_update_old(name):
    """The gradient of step k is sent while step k + 1 is computed; the end waits for the last."""
    model = network()
    before = loss_of(model, 1_000).item()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer=gs.SGD(lr=0.05), overlap=True) as optimizer:
        train(model, optimizer, range(6))
        optimizer.pull()
        assert optimizer.last_push.staleness == 1
        kept = optimizer.run.pull()
    assert kept.version == 6
    assert loss_of(model, 1_000).item() < before
    for called, parameter in model.named_parameters():
        assert torch.equal(parameter.detach(), torch.tensor(kept[called]))


def test_close_takes_the_weights_of_a_push_that_was_on_its_way(name):
    """No gradient is left behind."""
    model = network()
    optimizer = RemoteOptimizer(model.named_parameters(), run=name, optimizer="sgd", overlap=True)
    train(model, optimizer, range(1))
    before = network()
    optimizer.close()
    assert not torch.equal(model[0].weight, before[0].weight)
    with pytest.raises(gs.ValidationError, match="is closed"):
        optimizer.step()


def test_who_leaves_with_an_error_does_not_wait_for_a_server_that_is_away(name, tmp_path):
    """Ctrl-C with a gradient on its way is Ctrl-C, at once, and not that gradient's error."""
    own, model = Server(tmp_path).start(), network()

    def leave_by_ctrl_c(optimizer):
        with optimizer:
            own.kill()
            train(model, optimizer, range(1))
            raise KeyboardInterrupt

    with gs.connect(own.url, retry_seconds=15) as client:
        optimizer = RemoteOptimizer(model.named_parameters(), run=name, optimizer="sgd", client=client, overlap=True)
        with pytest.raises(KeyboardInterrupt):
            leave_by_ctrl_c(optimizer)


def test_the_loss_is_told_by_argument_or_attribute(name):
    """For the run's history; the attribute holds for one step, the number of samples until it is changed."""
    model, said = network(), []
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="sgd") as optimizer:
        worker, step = optimizer._worker, optimizer._worker.step
        worker.step = lambda gradients, **fields: (
            said.append((fields["loss"], fields.get("samples"))),
            step(gradients, **fields),
        )[1]
        loss_of(model, 0).backward()
        optimizer.step(loss=torch.tensor(2.0))
        optimizer.loss, optimizer.samples = 3.0, 32
        optimizer.step()
        optimizer.step()
    assert said == [(2.0, None), (3.0, 32.0), (None, 32.0)]


def test_parameters_without_names_are_called_by_their_place(name):
    """And the program is told how to name them."""
    model = network()
    with pytest.warns(gs.GradserveWarning, match=r"give model\.named_parameters\(\)"):
        optimizer = RemoteOptimizer(model.parameters(), run=name, optimizer="sgd")
    with optimizer:
        assert list(optimizer.run.pull()) == [f"parameter.{place}" for place in range(6)]


def test_parameter_groups_are_added_before_the_run_is_joined(name):
    """Its tensors are fixed then."""
    model = network()
    optimizer = RemoteOptimizer(model[0].named_parameters("first"), run=name, optimizer="sgd", start=False)
    optimizer.add_param_group({"params": model[3].named_parameters("last")})
    with optimizer:
        assert sorted(optimizer.run.pull()) == ["first.bias", "first.weight", "last.bias", "last.weight"]
        with pytest.raises(gs.ValidationError, match="its tensors are fixed"):
            optimizer.add_param_group({"params": [("more", nn.Parameter(torch.zeros(2)))]})


def test_an_optimizer_that_is_not_started_says_so(name):
    """Instead of training alone."""
    optimizer = RemoteOptimizer(network().named_parameters(), run=name, optimizer="sgd", start=False)
    with pytest.raises(gs.ValidationError, match=r"call start\(\)"):
        optimizer.step()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (torch.optim.SGD, gs.SGD(lr=0.1)),
        (torch.optim.Adagrad, gs.Adagrad(lr=0.1)),
        (torch.optim.SparseAdam, gs.SparseAdam(lr=0.1)),
    ],
    ids=["sgd", "adagrad", "sparse_adam"],
)
def test_an_embedding_with_sparse_gradients_trains_as_in_torch(name, theirs, ours):
    """A batch touches some rows, some of them twice."""
    local, remote = nn.Embedding(9, 3, sparse=True), nn.Embedding(9, 3, sparse=True)
    remote.load_state_dict(local.state_dict())
    alone = theirs(local.parameters(), lr=0.1)
    with RemoteOptimizer(remote.named_parameters(), run=name, optimizer=ours) as optimizer:
        for batch in ([1, 2, 1], [8, 2], [5], [1, 1, 1]):
            for table, each in ((local, alone), (remote, optimizer)):
                each.zero_grad()
                with torch.sparse.check_sparse_tensor_invariants():  # else torch's Adagrad warns of itself
                    (table(torch.tensor(batch)) ** 2).sum().backward()
                    each.step()
    assert torch.allclose(local.weight, remote.weight, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_is_not_sparse_by_rows_is_refused_with_the_cure(name):
    """Single elements are no rows."""
    table = nn.Parameter(torch.zeros(4, 2))
    with RemoteOptimizer([("table", table)], run=name, optimizer="sgd") as optimizer:
        table.grad = torch.ones(4, 2).to_sparse()
        with pytest.raises(gs.ValidationError, match=r"gradient of 'table': expected a dense tensor or.*to_dense"):
            optimizer.step()


@pytest.mark.parametrize(
    ("params", "detail"),
    [
        ([("w", nn.Parameter(torch.zeros(2))), ("w", nn.Parameter(torch.zeros(2)))], "two are called 'w'"),
        ([("c", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))], "expected real numbers, came torch.complex64"),
        (
            [{"params": [("w", nn.Parameter(torch.zeros(2)))], "betas": (0.5, 0.6)}],
            "groups of one run differ in lr and weight_decay",
        ),
    ],
)
def test_what_a_run_cannot_hold_is_refused(name, params, detail):
    """Before anything is sent."""
    with pytest.raises(gs.ValidationError, match=detail):
        RemoteOptimizer(params, run=name, optimizer="adamw")


def test_the_program_s_end_leaves_the_run(name, server):
    """A worker that is collected, or whose program ends, is not waited for."""
    optimizer = RemoteOptimizer(network().named_parameters(), run=name, optimizer="sgd", worker="w")
    with gs.connect(server.url) as client:
        assert client.run(name).describe()["workers"]
        del optimizer
        assert not client.run(name).describe()["workers"]


def test_a_batch_is_the_same_for_both():
    """Otherwise the comparisons above compare nothing."""
    assert torch.equal(batch(3)[0], batch(3)[0])
    assert not torch.equal(batch(3)[0], batch(4)[0])
