"""Optimizers are read as people write them, and written in one canonical form."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

import gradserve as gs
from gradserve.specs import (
    OPTIMIZERS,
    SGD,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Nadam,
    OptimizerSpec,
    RmsProp,
    RunSpec,
    Sgd,
    Step,
    validation_refusal,
)

BUILT = ", ".join(OPTIMIZERS.built)


def read(optimizer):
    return RunSpec.model_validate({"optimizer": optimizer}).optimizer


def refusal(optimizer):
    with pytest.raises(ValidationError) as caught:
        read(optimizer)
    return validation_refusal(caught.value).rejection


def test_the_defaults_are_those_of_torch():
    assert Sgd().model_dump() == {
        "name": "sgd",
        "lr": 1e-3,
        "momentum": 0.0,
        "dampening": 0.0,
        "nesterov": False,
        "lr_in_momentum": False,
        "weight_decay": 0.0,
        "weight_decay_mode": "l2",
        "maximize": False,
    }
    adam = {
        "lr": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "eps_root": 0.0,
        "eps_hat": False,
        "bias_correction": True,
        "amsgrad": False,
        "amsgrad_corrected": False,
        "maximize": False,
    }
    assert Adam().model_dump() == {**adam, "name": "adam", "weight_decay": 0.0, "weight_decay_mode": "l2"}
    assert AdamW().model_dump() == {**adam, "name": "adamw", "weight_decay": 0.01, "weight_decay_mode": "decoupled"}
    assert Adagrad().model_dump() == {
        "name": "adagrad",
        "lr": 1e-2,
        "lr_decay": 0.0,
        "eps": 1e-10,
        "eps_in_sqrt": False,
        "initial_accumulator_value": 0.0,
        "weight_decay": 0.0,
        "weight_decay_mode": "l2",
        "maximize": False,
    }
    rmsprop = RmsProp()
    assert (rmsprop.lr, rmsprop.alpha, rmsprop.eps, rmsprop.momentum, rmsprop.centered) == (
        1e-2,
        0.99,
        1e-8,
        0.0,
        False,
    )
    adamax = Adamax()
    assert (adamax.lr, adamax.beta1, adamax.beta2, adamax.eps, adamax.eps_in_max) == (2e-3, 0.9, 0.999, 1e-8, True)
    nadam = Nadam()
    assert (nadam.lr, nadam.beta1, nadam.beta2, nadam.eps, nadam.momentum_decay) == (2e-3, 0.9, 0.999, 1e-8, 4e-3)
    assert SGD is Sgd


def test_what_torch_says_of_an_optimizer_is_read_whole():
    """`{"name": "NAdam", **optimizer.defaults}`: how torch computes is no hyperparameter."""
    defaults = {
        "lr": 0.002, "betas": (0.9, 0.999), "eps": 1e-08, "weight_decay": 0, "momentum_decay": 0.004,
        "decoupled_weight_decay": False, "maximize": False, "foreach": None, "capturable": False,
        "differentiable": False,
    }  # fmt: skip
    assert read({"name": "NAdam", **defaults}) == Nadam()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("adam", Adam()),
        ("Adam", Adam()),
        ("ADAMW", AdamW()),
        ("adam_w", AdamW()),
        ("SGD", Sgd()),
        ("gd", Sgd()),
        ("gradient_descent", Sgd()),
        ("GradientDescent", Sgd()),
        ("gradient-descent", Sgd()),
        ("momentum", Sgd(momentum=0.9)),
        ("nag", Sgd(momentum=0.9, nesterov=True)),
        ("Nesterov", Sgd(momentum=0.9, nesterov=True)),
        ("SGDW", Sgd(weight_decay_mode="decoupled")),
        ("AMSGrad", Adam(amsgrad=True)),
        ("Adagrad", Adagrad()),
        ("AdaGrad", Adagrad()),
        ("RMSprop", RmsProp()),
        ("RMSProp", RmsProp()),
        ("rms_prop", RmsProp()),
        ("Adamax", Adamax()),
        ("AdaMax", Adamax()),
        ("NAdam", Nadam()),
        ("Nadam", Nadam()),
        (
            {"name": "adagrad", "initial_accumulator": 0.5, "epsilon": 0},
            Adagrad(initial_accumulator_value=0.5, eps=0.0),
        ),
        ({"name": "rmsprop", "rho": 0.8}, RmsProp(alpha=0.8)),
        ({"name": "rmsprop", "beta": 0.8, "mu": 0.5}, RmsProp(alpha=0.8, momentum=0.5)),
        ({"name": "rmsprop", "decay": 0.8, "initial_scale": 1.0}, RmsProp(alpha=0.8, initial_accumulator_value=1.0)),
        ({"name": "rms_prop", "decay_rate": 0.8}, RmsProp(alpha=0.8)),
        ({"name": "adamax", "betas": [0.5, 0.25]}, Adamax(beta1=0.5, beta2=0.25)),
        ({"name": "NAdam", "b1": 0.5, "psi": 0.1}, Nadam(beta1=0.5, momentum_decay=0.1)),
        ({"name": "nadam", "schedule_decay": 0.1}, Nadam(momentum_decay=0.1)),
        ({"name": "momentum", "momentum": 0.8, "lr": 1}, Sgd(momentum=0.8, lr=1.0)),
        ({"Name": "nag", "mu": 0.5}, Sgd(momentum=0.5, nesterov=True)),
        ({"name": "adam", "learning_rate": 0.1}, Adam(lr=0.1)),
        ({"name": "adam", "LearningRate": 0.1}, Adam(lr=0.1)),
        ({"name": "adam", "learning-rate": 0.1}, Adam(lr=0.1)),
        ({"name": "adam", "beta_1": 0.5, "b2": 0.25}, Adam(beta1=0.5, beta2=0.25)),
        ({"name": "adam", "betas": [0.5, 0.25]}, Adam(beta1=0.5, beta2=0.25)),
        ({"name": "adam", "epsilon": 1e-3, "epsilon_root": 1e-4}, Adam(eps=1e-3, eps_root=1e-4)),
        ({"name": "adam", "epsilon": None}, Adam()),
        ({"name": "adam", "eps": None}, Adam()),
        ({"name": "adam", "debias": False}, Adam(bias_correction=False)),
        ({"name": "adam", "use_bias_correction": False}, Adam(bias_correction=False)),
        ({"name": "adam", "correct_bias": False}, Adam(bias_correction=False)),
        ({"name": "adam", "decoupled_weight_decay": True}, Adam(weight_decay_mode="decoupled")),
        ({"name": "adamw", "weight_decouple": False}, AdamW(weight_decay_mode="l2")),
        ({"name": "adamw", "weight_decay": None}, AdamW(weight_decay=0.0)),
        (Adam(lr=0.5), Adam(lr=0.5)),
    ],
    ids=str,
)
def test_aliases_are_read_and_canonical_names_written(written, meant):
    assert read(written) == meant
    assert type(read(written)) is type(meant)


def test_the_constructors_read_the_same_aliases():
    """What JSON may say, Python may say."""
    assert Adam(learning_rate=0.1, betas=(0.5, 0.25), epsilon=None) == Adam(lr=0.1, beta1=0.5, beta2=0.25)
    assert Adam(compat="keras").eps == 1e-7


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"name": "adam", "compat": "torch"}, Adam()),
        ({"name": "adam", "compat": "keras"}, Adam(eps=1e-7, eps_hat=True, weight_decay_mode="decoupled")),
        ({"name": "adam", "compat": "Keras", "eps": None, "lr": 0.5},
         Adam(lr=0.5, eps=1e-7, eps_hat=True, weight_decay_mode="decoupled")),
        ({"name": "adam", "compat": "keras", "eps": 1.0, "eps_hat": False},
         Adam(eps=1.0, weight_decay_mode="decoupled")),
        ({"name": "adamw", "compat": "keras"}, AdamW(eps=1e-7, eps_hat=True, weight_decay=4e-3)),
        ({"name": "adamw", "compat": "optax"}, AdamW(weight_decay=1e-4, amsgrad_corrected=True)),
        ({"name": "sgd", "compat": "keras"}, Sgd(lr=0.01, lr_in_momentum=True, weight_decay_mode="decoupled")),
        ({"name": "adagrad", "compat": "keras"}, Adagrad(lr=1e-3, eps=1e-7, eps_in_sqrt=True,
         initial_accumulator_value=0.1, weight_decay_mode="decoupled")),
        ({"name": "adagrad", "compat": "optax"}, Adagrad(eps=1e-7, eps_in_sqrt=True, initial_accumulator_value=0.1)),
        ({"name": "rmsprop", "compat": "keras"}, RmsProp(lr=1e-3, alpha=0.9, eps=1e-7, eps_in_sqrt=True,
         lr_in_momentum=True, weight_decay_mode="decoupled")),
        ({"name": "rmsprop", "compat": "optax"}, RmsProp(alpha=0.9, eps_in_sqrt=True, lr_in_momentum=True)),
        ({"name": "adamax", "compat": "keras"},
         Adamax(lr=1e-3, eps=1e-7, eps_in_max=False, weight_decay_mode="decoupled")),
        ({"name": "nadam", "compat": "keras"},
         Nadam(lr=1e-3, eps=1e-7, momentum_decay=1.0, weight_decay_mode="decoupled")),
        ({"name": "nadam", "compat": "optax"}, Nadam(variant="constant")),
    ],
    ids=str,
)  # fmt: skip
def test_compat_changes_defaults_and_nothing_else(written, meant):
    assert read(written) == meant


KERAS_ADAM = {
    "name": "adam", "learning_rate": 0.0005, "weight_decay": None, "clipnorm": None, "global_clipnorm": None,
    "clipvalue": None, "use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None,
    "loss_scale_factor": None, "gradient_accumulation_steps": None, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7,
    "amsgrad": False,
}  # fmt: skip


def test_the_serialised_form_of_keras_is_read_with_its_defaults():
    """As `keras.optimizers.serialize` writes it."""
    whole = {"module": "keras.optimizers", "class_name": "Adam", "config": KERAS_ADAM, "registered_name": None}
    meant = Adam(lr=0.0005, eps=1e-7, eps_hat=True, weight_decay_mode="decoupled")
    assert read(whole) == meant
    assert read({"class_name": "Adam", "config": {"learning_rate": 0.0005}}) == meant
    assert read({"class_name": "SGD"}) == Sgd(lr=0.01, lr_in_momentum=True, weight_decay_mode="decoupled")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_ema": True, "ema_overwrite_frequency": 5}, "expected ema_overwrite_frequency unset"),
        ({"gradient_accumulation_steps": 4}, "expected gradient_accumulation_steps unset, came 4"),
        ({"learning_rate": {"class_name": "CosineDecay", "config": {}}}, "run's own field 'schedule'"),
    ],
)
def test_what_keras_can_and_this_version_cannot_is_refused_with_the_way_out(config, words):
    assert words in refusal({"class_name": "Adam", "config": config}).detail


def test_decay_of_keras_is_no_field_of_an_optimizer():
    """It is the run's schedule; an optimizer alone has no place for it."""
    written = {"class_name": "Adam", "config": {"decay": 0.01}}
    with pytest.raises(ValidationError, match="inverse_time"):
        TypeAdapter(OptimizerSpec).validate_python(written)


def test_keras_defaults_that_ask_for_nothing_are_dropped():
    assert read({"class_name": "Adam", "config": {"decay": 0.0, "use_ema": None}}) == Adam(compat="keras")


@pytest.mark.parametrize(
    ("written", "detail"),
    [
        ("mechanic",
         f"optimizer: expected one of {BUILT}; this version does not build the optimizer 'mechanic' yet"),
        ("L-BFGS",
         f"optimizer: expected one of {BUILT}; this version does not build the optimizer 'lbfgs' yet"),
        ("adma", f"optimizer: expected one of {BUILT}, came 'adma'"),
        ({"lr": 1}, f"optimizer: expected 'name' to be one of {BUILT}"),
        ({"name": 3}, f"optimizer: expected 'name' to be one of {BUILT}"),
        (None, "optimizer: expected a name or an object with 'name', came NoneType"),
        ([], "optimizer: expected a name or an object with 'name', came list"),
        ({"name": "sgd", "betas": [0.9, 0.99]}, "optimizer: expected only the fields name, lr, momentum, dampening, "
         "nesterov, lr_in_momentum, weight_decay, weight_decay_mode, maximize, came 'betas'"),
        ({"name": "adam", "lr": -1}, "optimizer.lr: expected a number ≥ 0, came -1"),
        ({"name": "adam", "lr": "0.1"}, "optimizer.lr: expected a number, came '0.1'"),
        ({"name": "adam", "lr": True}, "optimizer.lr: expected a number, came True"),
        ({"name": "adam", "lr": None}, "optimizer.lr: expected a number, came None"),
        ({"name": "adam", "lr": float("inf")}, "optimizer.lr: expected a finite number, came inf"),
        ({"name": "adam", "lr": float("nan")}, "optimizer.lr: expected a finite number, came nan"),
        ({"name": "adam", "beta1": 1}, "optimizer.beta1: expected a number < 1, came 1"),
        ({"name": "adam", "b1": -0.1, "b2": 2}, "optimizer.beta1: expected a number ≥ 0, came -0.1; "
                                                "optimizer.beta2: expected a number < 1, came 2"),
        ({"name": "adam", "eps": -1e-9}, "optimizer.eps: expected a number ≥ 0, came -1e-09"),
        ({"name": "adam", "amsgrad": 1}, "optimizer.amsgrad: expected true or false, came 1"),
        ({"name": "adam", "betas": [0.9]}, "optimizer: expected betas to be [beta1, beta2], came [0.9]"),
        ({"name": "adam", "betas": [0.9, 0.9], "b1": 0.9},
         "optimizer: expected beta1 once, it came under two spellings: send one"),
        ({"name": "adam", "lr": 1, "learning_rate": 1},
         "optimizer: expected lr once, it came under two spellings: send one"),
        ({"name": "adam", "weight_decouple": True, "weight_decay_mode": "l2"},
         "optimizer: expected weight_decay_mode once, it came under two spellings: send one"),
        ({"name": "adam", "weight_decouple": "yes"},
         "optimizer: expected weight_decouple to be true or false, came 'yes'"),
        ({"name": "adam", "weight_decay_mode": "in_update"},
         "optimizer.weight_decay_mode: expected 'l2', 'decoupled', 'independent', 'corrected', 'cautious' or "
         "'proximal', came 'in_update'"),
        ({"name": "adam", "compat": "jax"}, "optimizer: expected compat to be one of torch, keras, optax, came 'jax'"),
        ({"name": "sgd", "momentum": 1.0}, "optimizer.momentum: expected a number < 1, came 1.0"),
        ({"name": "sgd", "dampening": 1.5}, "optimizer.dampening: expected a number ≤ 1, came 1.5"),
        ({"name": "sgd", "nesterov": True}, "optimizer: expected momentum > 0 and dampening 0 with nesterov, came "
         "momentum 0 and dampening 0: set momentum (0.9 is usual) or leave nesterov out"),
        ({"name": "sgd", "nesterov": True, "momentum": 0.9, "dampening": 0.5}, "optimizer: expected momentum > 0 and "
         "dampening 0 with nesterov, came momentum 0.9 and dampening 0.5: set momentum (0.9 is usual) or leave "
         "nesterov out"),
        ({"name": "rmsprop", "nesterov": True}, "optimizer: expected momentum > 0 with nesterov, came 0: set momentum "
         "(0.9 is usual) or leave it out"),
        ({"name": "nadam", "variant": "nesterov"},
         "optimizer.variant: expected 'dozat' or 'constant', came 'nesterov'"),
        ({"name": "adam", "decay": -1}, "expected the optimizer's decay once, as a number ≥ 0, came [-1]"),
        ({"name": "adam", "decay": "0.1"}, "expected the optimizer's decay once, as a number ≥ 0, came ['0.1']"),
        ({"name": "sgd", "lr_in_momentum": True, "momentum": 0.9, "dampening": 0.5},
         "optimizer: expected dampening 0 with lr_in_momentum, came 0.5: leave one out"),
    ],
    ids=str,
)  # fmt: skip
def test_a_refusal_says_what_was_expected_and_what_came(written, detail):
    rejection = refusal(written)
    assert rejection.code == "validation-error"
    assert rejection.detail == detail


def test_a_field_close_to_a_real_one_is_suggested():
    assert refusal({"name": "adam", "weight_decey": 1}).detail.endswith(
        "came 'weight_decey' (did you mean weight_decay?)"
    )


def test_numbers_of_numpy_are_numbers():
    """A learning rate often comes out of an array."""
    import numpy as np

    assert type(Adam(lr=np.float32(0.5)).lr) is float


def test_no_built_optimizer_is_announced_as_planned():
    assert not set(OPTIMIZERS.built) & set(OPTIMIZERS.planned)
    for alias, (name, _) in OPTIMIZERS.aliases.items():
        assert name in OPTIMIZERS.built, alias
    for alias, name in OPTIMIZERS.planned_aliases.items():
        assert name in OPTIMIZERS.planned, alias


@pytest.mark.parametrize("name", OPTIMIZERS.built)
def test_every_optimizer_explains_itself(name):
    """The catalogue and the documentation are made of this."""
    entry = OPTIMIZERS.built[name].catalogue_entry()
    assert entry["name"] == name
    assert all(entry[key] for key in ("summary", "formula", "source", "use_when"))
    properties = entry["hyperparameters"]["properties"]
    assert "lr" in properties
    assert "name" not in properties
    assert all("description" in schema and "default" in schema for schema in properties.values())


@pytest.mark.parametrize("name", OPTIMIZERS.built)
def test_the_json_schemas_defaults_are_the_declarations(name):
    """What the catalogue shows makes the optimizer that the name alone makes."""
    properties = OPTIMIZERS.built[name].catalogue_entry()["hyperparameters"]["properties"]
    assert read({"name": name, **{field: schema["default"] for field, schema in properties.items()}}) == read(name)


def test_the_rate_may_come_without_its_name():
    """As torch and Keras take it; everything else is named, and a mistake is told in one sentence."""
    assert Adam(0.1) == Adam(lr=0.1)
    assert AdamW(0.1, eps=0.5) == AdamW(lr=0.1, eps=0.5)
    for wrong in (lambda: Sgd(0.1, 0.9), lambda: Sgd(0.1, lr=0.1), lambda: Sgd(0.1, learning_rate=0.1)):
        with pytest.raises(TypeError, match=r"Sgd.*lr"):
            wrong()
    with pytest.raises(TypeError, match=r"by name: Step\(step_size=…\)"):
        Step(10)


def test_numpy_scalars_are_numbers():
    """Converted exactly: float32(0.001) is a little more than 0.001, and stays so."""
    spec = Adam(np.float32(1e-3), betas=(np.float64(0.5), np.float16(0.25)), amsgrad=np.bool_(True))
    assert (spec.lr, spec.beta1, spec.beta2, spec.amsgrad) == (float(np.float32(1e-3)), 0.5, 0.25, True)
    assert all(type(value) in (float, bool, str) for value in spec.model_dump().values())
    assert gs.MultiStep(milestones=np.array([3, 6])).milestones == (3, 6)
    run = RunSpec(optimizer=spec, schedule=Step(step_size=np.int64(10)), dataset_size=np.uint8(200))
    assert (run.schedule.step_size, run.dataset_size) == (10, 200)
    assert type(run.schedule.step_size) is int
    with pytest.raises(gs.ValidationError, match=r"Step\.step_size: expected an integer, came 10\.0"):
        Step(step_size=np.float64(10))


def test_a_spec_made_by_hand_is_refused_in_our_words():
    """As one of the package's errors and as the ValueError that Python's own code raises; the class leads the field."""
    with pytest.raises(gs.ValidationError, match=r"Adam\.lr: expected a number ≥ 0, came -1") as caught:
        gs.Adam(lr=-1)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(gs.ValidationError, match=r"RunSpec\.optimizer\.lr: expected a number ≥ 0, came -1"):
        RunSpec(optimizer={"name": "sgd", "lr": -1})
