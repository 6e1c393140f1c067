"""What a program may do to an optimizer by mistake: it is told at once, and the run stays as it is."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

import gradserve as gs
from gradserve.torch import RemoteOptimizer
from pytorch.networks import loss_of, network, train


def test_pull_takes_the_runs_weights_back_whatever_was_done_to_the_parameters(name):
    """Averaged weights were put in for an evaluation: `pull` brings the run's back, also where it has no newer ones."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="sgd") as optimizer:
        before = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        optimizer.pull()
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_loading_its_own_state_leaves_the_weights_of_a_bfloat16_model_alone(name):
    """The run's float32 weights are not replaced by the parameters' rounded ones."""
    model = network().to(torch.bfloat16)
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer=gs.AdamW(lr=1e-3)) as optimizer:
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.1)
            optimizer.step()
        before = optimizer.run.pull()
        optimizer.load_state_dict(optimizer.state_dict())
        after = optimizer.run.pull()
        assert after.version == before.version + 1
        assert all(after[key].tobytes() == before[key].tobytes() for key in before)


def test_a_hyperparameter_changed_after_the_start_is_refused_with_the_cure(name):
    """It would do nothing: the run has its own."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw") as optimizer:
        train(model, optimizer, range(1))
        optimizer.param_groups[0]["weight_decay"] = 0.5
        with pytest.raises(gs.ValidationError, match=r"weight_decay.*configure"):
            train(model, optimizer, range(1))
        assert optimizer.run.describe()["step"] == 1


def test_a_replaced_parameter_is_refused(name):
    """It would never be trained."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw") as optimizer:
        optimizer.param_groups[0]["params"][0] = torch.nn.Parameter(torch.zeros(3))
        with pytest.raises(gs.ValidationError, match="params"):
            train(model, optimizer, range(1))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_an_optimizer_cannot_be_copied(name, copied):
    """Two objects must not push under one sequence."""
    with (
        RemoteOptimizer(network().named_parameters(), run=name, optimizer="sgd") as optimizer,
        pytest.raises(gs.Misuse, match="state_dict"),
    ):
        copied(optimizer)


def test_a_scheduler_of_torch_is_named_in_the_refusal(name):
    """Also one whose rate is, for now, the server's."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="sgd") as optimizer:
        torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        with pytest.raises(gs.LrOwnedByServer, match="came a torch scheduler"):
            train(model, optimizer, range(1))


def test_a_state_with_a_step_that_is_no_number_is_refused(name):
    """And the run stays as it is."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw") as optimizer:
        train(model, optimizer, range(1))
        state = optimizer.state_dict()
        state["state"][0]["step"] = torch.tensor(float("nan"))
        with pytest.raises(gs.ValidationError, match="whole number of updates"):
            optimizer.load_state_dict(state)
        assert optimizer.run.describe()["step"] == 1


def clamp(model):
    """As a critic of WGAN does."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.01, 0.01)


def other_weights(model):
    """As a program that loads its model too late."""
    model.load_state_dict({key: value + 1 for key, value in network().state_dict().items()})


@pytest.mark.parametrize("change", [clamp, other_weights])
@pytest.mark.parametrize("overlap", [False, True], ids=["", "overlap"])
def test_weights_changed_after_joining_are_told_of_once(name, change, overlap):
    """The run's replace them: the warning names one, says what to do, and points at the caller of `step`."""
    model = network()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="sgd", overlap=overlap) as optimizer:
        train(model, optimizer, range(2))
        change(model)
        loss_of(model, 2).backward()
        with pytest.warns(gs.GradserveWarning, match=r"'0\.weight' and \d more changed here .* Load the model") as told:
            optimizer.step()
        assert [each.filename for each in told] == [__file__]
        change(model)
        train(model, optimizer, range(3, 5))


def test_what_leaves_the_weights_as_they_are_is_not_told_of(name):
    """Averages put in for an evaluation and out again, frozen layers, an embedding that looks at its norms."""
    model = torch.nn.Sequential(torch.nn.Embedding(7, 6, max_norm=100.0), network())
    mine = [{"params": model.named_parameters()}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with RemoteOptimizer(mine, run=name, optimizer=gs.SGD(lr=0.1)) as optimizer:
            for step in range(3):
                kept = copy.deepcopy(model.state_dict())
                clamp(model)
                model.load_state_dict(kept)
                model[1][0].requires_grad_(step == 1)
                optimizer.zero_grad()
                model(torch.arange(7)).square().mean().backward()
                optimizer.step()
                optimizer.pull()


@pytest.mark.parametrize("overlap", [False, True], ids=["", "overlap"])
def test_a_model_loaded_before_the_optimizer_s_state_is_what_the_run_takes(name, overlap):
    """Without a warning, and also where a gradient is on its way."""
    model, saved = network(), network()
    other_weights(saved)
    with (
        warnings.catch_warnings(),
        RemoteOptimizer(model.named_parameters(), run=name, optimizer="adamw", overlap=overlap) as optimizer,
    ):
        warnings.simplefilter("error")
        state = optimizer.state_dict()
        train(model, optimizer, range(2))
        model.load_state_dict(saved.state_dict())
        optimizer.load_state_dict(state)
        kept = optimizer.run.pull()
        for key, parameter in saved.named_parameters():
            assert kept[key].tobytes() == parameter.detach().numpy().tobytes()
        train(model, optimizer, range(2))


def test_a_rank_that_brings_nothing_takes_the_run_s_weights_for_those_it_loaded(name, monkeypatch):
    """Rank 0 brings them; a gradient of this one is computed at weights that the run has."""
    first, model = network(), network()
    with RemoteOptimizer(first.named_parameters(), run=name, optimizer="sgd") as one:
        state = one.state_dict()
        monkeypatch.setenv("RANK", "1")
        with RemoteOptimizer(model.named_parameters(), run=name, optimizer="sgd") as optimizer:
            other_weights(model)
            optimizer.load_state_dict(state)
            assert torch.equal(model[0].weight, first[0].weight)
            train(model, optimizer, range(1))
            assert optimizer.last_push.outcome == "applied"
