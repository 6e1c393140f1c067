"""Torch's parameter groups as groups of the run."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

import gradserve as gs
from gradserve.torch import RemoteOptimizer
from pytorch.networks import TOLERANCE, decay_groups, difference, network, train, twins


def test_matrices_decay_and_the_rest_does_not(name):
    """Each group has its weight decay and its rate, as in torch; `param_groups` show each group's rate."""
    here, there, start = twins()
    train(here, torch.optim.AdamW(decay_groups(here, lr=0.02), lr=0.01))
    with RemoteOptimizer(decay_groups(there, lr=0.02), run=name, optimizer=gs.AdamW(lr=0.01)) as optimizer:
        train(there, optimizer)
        matrices, rest = optimizer.run.describe()["spec"]["groups"]
        assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.01]
    assert (matrices["lr_scale"], matrices["weight_decay"], matrices["match"]) == (2.0, 0.3, ["0.weight", "3.weight"])
    assert (rest["lr_scale"], rest["weight_decay"]) == (1.0, 0.0)
    assert difference(here, there, start) <= TOLERANCE


def test_a_torch_scheduler_drives_each_group(name):
    """With schedule="client" a push brings every group's rate."""
    here, there, start = twins()
    factors = [lambda k: 0.9**k, lambda k: 1 / (1 + k)]
    local = torch.optim.AdamW(decay_groups(here, lr=0.02), lr=0.01)
    train(here, local, scheduler=LambdaLR(local, factors))
    groups = decay_groups(there, lr=0.02)
    with RemoteOptimizer(groups, run=name, optimizer=gs.AdamW(lr=0.01), schedule="client") as remote:
        train(there, remote, scheduler=LambdaLR(remote, factors))
    assert difference(here, there, start) <= TOLERANCE


def test_groups_that_ask_for_nothing_else_are_none(name):
    """The run is the same as without them."""
    model = network()
    groups = [{"params": layer.named_parameters(place)} for place, layer in model.named_children()]
    with pytest.raises(ValueError, match="empty"):
        RemoteOptimizer([], run=name, optimizer="sgd")
    with RemoteOptimizer([groups[0], groups[3]], run=name, optimizer="sgd") as optimizer:
        assert optimizer.run.describe()["spec"]["groups"] == []


def test_a_name_with_wildcards_matches_only_itself(name):
    """Names are quoted on their way into the run's patterns."""
    parameters = {called: torch.nn.Parameter(torch.ones(2)) for called in ("w[0]", "w0")}
    groups = [
        {"params": [(called, w)], "lr": lr} for (called, w), lr in zip(parameters.items(), (0.5, 0.25), strict=True)
    ]
    with RemoteOptimizer(groups, run=name, optimizer=gs.SGD(lr=1.0)) as optimizer:
        for parameter in parameters.values():
            parameter.grad = torch.ones(2)
        optimizer.step()
    assert [parameter[0].item() for parameter in parameters.values()] == [0.5, 0.75]
