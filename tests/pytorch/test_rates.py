"""One owner of the learning rate: the server's schedule, or torch's scheduler with `schedule="client"`."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, OneCycleLR, StepLR

import gradserve as gs
from gradserve.torch import RemoteOptimizer
from pytorch.networks import STEPS, TOLERANCE, difference, network, train, twins


def test_a_torch_scheduler_drives_a_run_whose_schedule_is_the_client_s(name):
    """Its rate goes with every push."""
    here, there, start = twins()
    local = torch.optim.AdamW(here.parameters(), lr=0.02)
    train(here, local, scheduler=StepLR(local, step_size=4, gamma=0.5))
    remote = RemoteOptimizer(there.named_parameters(), run=name, optimizer=gs.AdamW(lr=0.02), schedule="client")
    with remote:
        train(there, remote, scheduler=StepLR(remote, step_size=4, gamma=0.5))
        assert remote.last_push.lr == pytest.approx(0.02 * 0.5**4)
    assert difference(here, there, start) <= TOLERANCE


def test_the_server_s_warmup_and_cosine_are_a_lambda_of_torch(name):
    """The same walk, and `param_groups` show the rate of the last update."""
    here, there, start = twins()
    warmup, total, peak = 5, STEPS, 0.02
    local = torch.optim.AdamW(here.parameters(), lr=peak)

    def factor(k: int) -> float:
        if k < warmup:
            return k / warmup
        return 0.5 * (1 + math.cos(math.pi * (k - warmup) / (total - warmup)))

    train(here, local, scheduler=LambdaLR(local, factor))
    schedule = gs.WarmupCosine(warmup_steps=warmup, total_steps=total)
    with RemoteOptimizer(there.named_parameters(), run=name, optimizer=gs.AdamW(lr=peak), schedule=schedule) as remote:
        train(there, remote)
        assert remote.param_groups[0]["lr"] == pytest.approx(peak * factor(total - 1))
    assert difference(here, there, start) <= TOLERANCE


def test_a_torch_scheduler_on_the_server_s_schedule_is_refused(name):
    """Before a gradient is sent: two owners would be silent nonsense."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw") as optimizer:
        scheduler = StepLR(optimizer, step_size=1)
        with pytest.raises(gs.LrOwnedByServer, match="schedule='client' and keep the scheduler"):
            train(model, optimizer, scheduler=scheduler)
        assert optimizer.last_push is None


def test_a_rate_that_is_set_by_hand_is_refused_too(name):
    """It would do nothing."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw") as optimizer:
        train(model, optimizer, range(1))
        optimizer.param_groups[0]["lr"] = 0.5
        with pytest.raises(gs.LrOwnedByServer, match=r"expected lr 0\.001, .* came 0\.5"):
            train(model, optimizer, range(1, 2))


def test_a_rate_changed_at_the_server_is_shown_and_is_no_change_of_ours(name):
    """`configure` is the way to set it by hand."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer=gs.SGD(lr=0.1)) as optimizer:
        train(model, optimizer, range(1))
        optimizer.run.configure(lr=0.05)
        train(model, optimizer, range(1, 3))
        assert optimizer.param_groups[0]["lr"] == 0.05


CYCLES = {
    "one_cycle": (
        lambda optimizer, **how: OneCycleLR(optimizer, max_lr=0.1, total_steps=STEPS + 1, **how),
        gs.OneCycle(max_lr=0.1, total_steps=STEPS + 1),
    ),
    "cyclic": (
        lambda optimizer, **how: CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=4, **how),
        gs.Cyclic(base_lr=0.01, max_lr=0.1, step_size_up=4),
    ),
}


@pytest.mark.parametrize("schedule", [None, "client"])
@pytest.mark.parametrize("cycle", CYCLES)
def test_a_scheduler_that_cycles_the_momentum_is_refused_with_the_cure(name, cycle, schedule):
    """Before a gradient is sent, whoever owns the rate."""
    model, (scheduler, _) = network(), CYCLES[cycle]
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw", schedule=schedule) as optimizer:
        chosen = scheduler(optimizer)
        with pytest.raises(gs.ValidationError, match=r"cycle_momentum=False .*schedule=gs\.OneCycle"):
            train(model, optimizer, scheduler=chosen)
        assert optimizer.last_push is None


@pytest.mark.parametrize("cycle", CYCLES)
def test_cycles_of_rates_alone_work_and_the_server_s_cycle_the_momentum_too(name, cycle):
    """Torch's scheduler of either kind is one of the two."""
    scheduler, schedule = CYCLES[cycle]
    for how, given in (({"cycle_momentum": False}, "client"), ({}, schedule)):
        here, there, start = twins()
        local = torch.optim.AdamW(here.parameters(), lr=0.01)
        train(here, local, scheduler=scheduler(local, **how))
        run = {"run": f"{name[:90]}.{len(how)}", "optimizer": gs.AdamW(lr=0.01), "schedule": given}
        with RemoteOptimizer(there.named_parameters(), **run) as remote:
            train(there, remote, scheduler=scheduler(remote, **how) if how else None)
        assert difference(here, there, start) <= TOLERANCE
