"""The run's optimizer state in torch's form."""

from __future__ import annotations

import pytest
import torch

import gradserve as gs
from gradserve.torch import RemoteOptimizer
from gradserve.torch.forms import form_of
from pytorch.networks import TOLERANCE, difference, loss_of, network, train, twins

FORMS = [
    (gs.AdamW(lr=0.01, amsgrad=True), lambda p: torch.optim.AdamW(p, lr=0.5, amsgrad=True)),
    (gs.Adam(lr=0.01), lambda p: torch.optim.Adam(p, lr=0.5)),
    (gs.SGD(lr=0.05, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.5)),
]


@pytest.mark.parametrize(("remote", "local"), FORMS, ids=["adamw", "adam", "sgd"])
def test_torch_goes_on_from_the_state_of_a_run(name, remote, local):
    """Ten updates there and ten here are twenty here: moments, step and hyperparameters come along."""
    whole, halves, start = twins()
    alone = local(whole.parameters())
    alone.param_groups[0].update(form_fields(remote))
    train(whole, alone)
    with RemoteOptimizer(halves.named_parameters(), run=name, optimizer=remote) as optimizer:
        train(halves, optimizer, range(10))
        state = optimizer.state_dict()
    here = local(halves.parameters())
    here.load_state_dict(state)
    train(halves, here, range(10, 20))
    assert difference(whole, halves, start) <= TOLERANCE


@pytest.mark.parametrize(("remote", "local"), FORMS, ids=["adamw", "adam", "sgd"])
def test_a_run_goes_on_from_the_state_of_torch(name, remote, local):
    """Ten updates here and ten there: the run takes the model's weights, the moments and the number of updates."""
    whole, halves, start = twins()
    alone = local(whole.parameters())
    alone.param_groups[0].update(form_fields(remote))
    train(whole, alone)
    here = local(halves.parameters())
    here.param_groups[0].update(form_fields(remote))
    train(halves, here, range(10))
    moved = network()  # the run starts elsewhere, and has gone its own way
    with RemoteOptimizer(moved.named_parameters(), run=name, optimizer=remote) as optimizer:
        train(moved, optimizer, range(3))
        moved.load_state_dict(halves.state_dict())
        optimizer.load_state_dict(here.state_dict())
        train(moved, optimizer, range(10, 20))
        assert optimizer.last_push.outcome == "applied"
        assert optimizer.run.checkpoints() == []
    assert difference(whole, moved, start) <= TOLERANCE


def test_an_average_of_the_run_is_no_state_of_torchs(name):
    """Torch's optimizer would not know what to do with it."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw", average="ema") as optimizer:
        train(model, optimizer, range(2))
        state = optimizer.state_dict()["state"]
        assert {key for one in state.values() for key in one} == {"step", "exp_avg", "exp_avg_sq"}
        assert "ema/0.weight" in optimizer.run.optimizer_state()


def test_decay_that_torch_has_not_is_no_form_of_torchs():
    """Independent of the rate, for instance: to go on in torch would be another training."""
    assert form_of(gs.AdamW(weight_decay_mode="independent")).name is None
    assert form_of(gs.AdamW(weight_decay_mode="independent", weight_decay=0.0)).name == "Adam"
    assert form_of(gs.AdamW()).name == "AdamW"


def test_the_state_of_another_optimizer_is_refused(name):
    """And the run stays as it is."""
    model = network()
    other = torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9)
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw") as optimizer:
        loss_of(model, 0).backward()
        for mine, its in zip(other.param_groups[0]["params"], model.parameters(), strict=True):
            mine.grad = its.grad
        other.step()
        with pytest.raises(
            gs.ValidationError, match=r"expected the state of torch\.optim\.AdamW, .*momentum_buffer came"
        ):
            optimizer.load_state_dict(other.state_dict())
        assert optimizer.run.describe()["version"] == 0


def form_fields(spec):
    """The hyperparameters as torch's groups hold them."""
    fields = spec.model_dump()
    named = {key: fields[key] for key in ("lr", "weight_decay", "momentum") if key in fields}
    return named | ({"betas": (spec.beta1, spec.beta2)} if "beta1" in fields else {})


def test_the_state_has_torch_s_keys(name):
    """By the place of a parameter, with the tensors' own shapes."""
    model = network()
    local = torch.optim.AdamW(network().named_parameters(), lr=0.01)
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer=gs.AdamW(lr=0.01)) as optimizer:
        train(model, optimizer, range(2))
        state = optimizer.state_dict()
        assert not optimizer.state  # it is the run's, and fetched each time
    assert state["param_groups"] == local.state_dict()["param_groups"]
    assert sorted(state["state"]) == list(range(6))
    first = state["state"][0]
    assert sorted(first) == ["exp_avg", "exp_avg_sq", "step"]
    assert (first["step"].item(), first["exp_avg"].shape) == (2.0, model[0].weight.shape)


def test_before_the_first_update_there_is_no_state(name):
    """As in torch, which makes it at the first step."""
    with RemoteOptimizer(network().named_parameters(), run=name, optimizer="adamw") as optimizer:
        assert optimizer.state_dict()["state"] == {}


def test_an_optimizer_that_torch_has_not_gives_its_own_slots(name):
    """Nothing is hidden: they are what a checkpoint holds."""
    model = network()
    with RemoteOptimizer(
        model.named_parameters(), run=name, optimizer={"name": "adamax", "compat": "keras"}
    ) as optimizer:
        train(model, optimizer, range(1))
        assert sorted(optimizer.state_dict()["state"][0]) == ["exp_avg", "exp_inf", "step"]
