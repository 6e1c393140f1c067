"""A state dict of `RemoteOptimizer` brings a run back: a new one goes on from it as the old one does."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import gradserve as gs
from gradserve.specs import AVERAGES as AVERAGES_OF_RUNS
from gradserve.specs import OPTIMIZERS
from gradserve.torch import RemoteOptimizer
from gradserve.torch.state import AVERAGES, NUMBERS_OF_AVERAGES
from gradserve_service.core.averages import AVERAGE_NUMBERS, average_slot

FROZEN = "2.bias"


def table_and_layers() -> nn.Sequential:
    """An embedding, a matrix and biases, one of them frozen."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 5), nn.Linear(5, 3))
    dict(model.named_parameters())[FROZEN].requires_grad_(False)
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Each step has rows and targets of its own; to a run the loss goes along, for the optimizers that read it."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        rows, targets = torch.randint(0, 7, (16,), generator=generator), torch.randn(16, 3, generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(torch.tanh(model(rows)), targets)
        loss.backward()
        if isinstance(optimizer, RemoteOptimizer):
            optimizer.loss, optimizer.samples = loss, 16
        optimizer.step()


def vector(model: nn.Module) -> torch.Tensor:
    """All weights end to end, as they are now."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def saved_and_loaded(state: dict) -> dict:
    """As a program keeps it between two of its lives."""
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def freeze(model: nn.Module, *, frozen: bool = True) -> None:
    """The one bias; what it was trained with before stays with it."""
    dict(model.named_parameters())[FROZEN].requires_grad_(not frozen).grad = None


def gone_on(name: str, run: dict, *, first: int = 0, updates: int = 6, between=lambda optimizer: None):
    """A run, and a new one with its state: the weights of each after four steps more, and what each says of itself.

    first    steps that the bias trains before it is frozen; it thaws when both go on
    between  is done to the old run before its state is taken, and to both when half of the steps are done
    """
    here = table_and_layers()
    with RemoteOptimizer(here.named_parameters(), run=name, **run) as old:
        freeze(here, frozen=False)
        train(here, old, range(first))
        freeze(here)
        train(here, old, range(first, updates))
        between(old)
        there, state = copy.deepcopy(here), saved_and_loaded(old.state_dict())
        with RemoteOptimizer(there.named_parameters(), run=f"{name}.again", **run) as new:
            train(there, new, range(20, 22))  # it has gone its own way, and comes from there
            there.load_state_dict(here.state_dict())
            new.load_state_dict(state)
            before, found = vector(here), []
            for model, optimizer in ((here, old), (there, new)):
                freeze(model, frozen=False)
                train(model, optimizer, range(updates, updates + 2))
                between(optimizer)
                train(model, optimizer, range(updates + 2, updates + 4))
                said, average = optimizer.run.describe(), None
                if "average" in run:
                    average = optimizer.run.pull(weights="average").vector.tobytes()
                told = [said[key] for key in ("step", "updates", "samples_seen", "lr")]
                found.append((vector(model), [*told, optimizer.last_push.lr, average]))
            assert new.run.checkpoints() == old.run.checkpoints() == []
    assert not torch.equal(found[0][0], before)
    return found


@pytest.mark.parametrize("first", [0, 3], ids=["frozen", "trained"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.built)
def test_a_new_run_goes_on_as_the_old_one_would_have(name, optimizer, first):
    """To the bit: slots of every shape, those of a bias that is frozen, the numbers beside them, the counts."""
    (old, said), (new, says) = gone_on(name, {"optimizer": optimizer}, first=first)
    assert torch.equal(old, new)
    assert said == says
    assert said[:3] == [10, 10, 160.0]


@pytest.mark.parametrize("optimizer", ["adamw", "rprop", "schedule_free_adamw", "prodigy"])
def test_a_state_of_before_the_first_update_is_a_beginning(name, optimizer):
    """The new run has gone its own way before, and begins again."""
    (old, said), (new, says) = gone_on(name, {"optimizer": optimizer}, updates=0)
    assert torch.equal(old, new)
    assert said == says


@pytest.mark.parametrize("average", ["ema", "swa", "lookahead"])
@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_an_average_of_the_weights_goes_on(name, optimizer, average):
    """It is no state of torch's, and comes along all the same."""
    (old, said), (new, says) = gone_on(name, {"optimizer": optimizer, "average": average}, first=3)
    assert torch.equal(old, new)
    assert said == says


def test_what_a_plateau_has_come_to_goes_on(name):
    """The rate stays as low as it was, and falls again at the same report."""
    schedule = gs.ReduceOnPlateau(factor=0.5, patience=1)

    def twice(optimizer: RemoteOptimizer) -> None:
        for _ in range(3):
            optimizer.run.report({schedule.monitor: 1.0})

    (old, said), (new, says) = gone_on(name, {"optimizer": gs.SGD(lr=0.1), "schedule": schedule}, between=twice)
    assert torch.equal(old, new)
    assert said == says
    assert said[3] == pytest.approx(0.1 * 0.5**2)


def test_what_a_plateau_has_come_to_means_nothing_to_another_schedule(name):
    """As where a run is restored from a checkpoint of another one."""
    one, other = table_and_layers(), table_and_layers()
    ways = [{"optimizer": gs.SGD(lr=0.1), "schedule": gs.ReduceOnPlateau(patience=0, factor=f)} for f in (0.5, 0.25)]
    with RemoteOptimizer(one.named_parameters(), run=name, **ways[0]) as old:
        for _ in range(3):
            old.run.report({ways[0]["schedule"].monitor: 1.0})
        assert old.run.describe()["lr"] < 0.1
        state = old.state_dict()
    with RemoteOptimizer(other.named_parameters(), run=f"{name}.b", **ways[1]) as new:
        new.load_state_dict(state)
        assert new.run.describe()["lr"] == 0.1


def test_a_state_dict_can_be_copied_and_hooks_see_the_whole_of_it(name):
    """One hook takes the member away, another brings it back."""
    model = table_and_layers()
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer="prodigy") as optimizer:
        train(model, optimizer, range(2))
        kept = []
        optimizer.register_state_dict_post_hook(lambda _, state: kept.append(state.pop("gradserve")))
        bare = copy.deepcopy(optimizer.state_dict())
        assert sorted(bare) == ["param_groups", "state"]
        with pytest.raises(gs.ValidationError, match=r"whose member 'gradserve' has d, d_max, d_numerator"):
            optimizer.load_state_dict(bare)
        assert optimizer.run.describe()["version"] == 2
        optimizer.register_load_state_dict_pre_hook(lambda _, state: {**state, "gradserve": copy.deepcopy(kept[0])})
        optimizer.load_state_dict(bare)
        assert optimizer.run.describe()["version"] == 3


def test_the_state_of_another_run_s_optimizer_is_refused(name):
    """Slots of the same name may mean something else there."""
    one, other = table_and_layers(), table_and_layers()
    with RemoteOptimizer(one.named_parameters(), run=name, optimizer="signum") as old:
        train(one, old, range(2))
        state = old.state_dict()
    with RemoteOptimizer(other.named_parameters(), run=f"{name}.b", optimizer="lion") as new:
        with pytest.raises(
            gs.ValidationError, match="expected the state of the optimizer 'lion', came that of 'signum'"
        ):
            new.load_state_dict(state)
        assert new.run.describe()["version"] == 0


def test_slots_that_torch_calls_otherwise_are_found_by_a_form_that_torch_has_not(name):
    """The same rule with the rate in its momentum: its velocity is what was torch's `momentum_buffer`."""
    one, other = table_and_layers(), table_and_layers()
    with RemoteOptimizer(one.named_parameters(), run=name, optimizer=gs.SGD(lr=0.1, momentum=0.9)) as old:
        train(one, old, range(2))
        state, held = old.state_dict(), old.run.optimizer_state()
    rule = gs.SGD(lr=0.1, momentum=0.9, lr_in_momentum=True)
    with RemoteOptimizer(other.named_parameters(), run=f"{name}.b", optimizer=rule) as new:
        new.load_state_dict(state)
        came = new.run.optimizer_state()
        assert held.vector.any()
        assert {at: array.tobytes() for at, array in came.items()} == {at: a.tobytes() for at, a in held.items()}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda p: torch.optim.Adagrad(p, lr=0.05), gs.Adagrad(lr=0.05)),
        (lambda p: torch.optim.Rprop(p, lr=0.01), "rprop"),
    ],
    ids=["adagrad", "rprop"],
)
def test_a_run_goes_on_from_a_class_of_torch_with_the_same_slots(name, theirs, ours):
    """A frozen parameter without a state there has what the run's slots began with; an average begins anew."""
    here, there = table_and_layers(), table_and_layers()
    local = theirs(here.parameters())
    train(here, local, range(6))
    with RemoteOptimizer(there.named_parameters(), run=name, optimizer=ours, average="ema") as optimizer:
        train(there, optimizer, range(20, 22))
        there.load_state_dict(here.state_dict())
        optimizer.load_state_dict(local.state_dict())
        assert torch.equal(vector(here), vector(there))
        assert optimizer.run.pull(weights="average").vector.tobytes() == optimizer.run.pull().vector.tobytes()
        start = vector(here)
        for model in (here, there):
            freeze(model, frozen=False)
        train(here, local, range(6, 10))
        train(there, optimizer, range(6, 10))
        assert optimizer.last_push.step == 10
    assert (vector(here) - vector(there)).abs().max() <= 1e-5 * (vector(here) - start).abs().max()


@pytest.mark.parametrize(
    ("theirs", "ours", "detail"),
    [
        (torch.optim.NAdam, "nadam", r"a state dict of RemoteOptimizer, whose member 'gradserve' has mu_product"),
        (torch.optim.RMSprop, "radam", r"expected a state with exp_avg, exp_avg_sq; exp_avg, exp_avg_sq is missing"),
    ],
    ids=["nadam", "radam"],
)
def test_a_state_of_torch_that_lacks_something_is_refused(name, theirs, ours, detail):
    """The run would go on, and wrongly."""
    model = table_and_layers()
    local = theirs(model.parameters())
    train(model, local, range(2))
    with RemoteOptimizer(model.named_parameters(), run=name, optimizer=ours, average="ema") as optimizer:
        with pytest.raises(gs.ValidationError, match=detail):
            optimizer.load_state_dict(local.state_dict())
        assert optimizer.run.describe()["version"] == 0


def test_what_is_known_of_averages_is_what_the_server_keeps_for_them():
    """Their slots and numbers are missing in a state of torch's, and that is no fault of it."""
    assert {average_slot(read.model_validate({})).name for read in AVERAGES_OF_RUNS.built.values()} == AVERAGES
    assert AVERAGE_NUMBERS == NUMBERS_OF_AVERAGES
