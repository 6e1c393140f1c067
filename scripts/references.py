"""torch, Keras and optax behind one call each: optimizers, schedules and plateaus, asked for in this project's words.

Used by `scripts/parity.py` and `scripts/make_golden.py`, in an environment of its own:

    pip install torch==2.13.0                     # on its own first: a build for the CPU will do
    pip install -e ".[parity]"

Keras runs on JAX: its torch backend has update rules of its own.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from cases import FAMILIES

from gradserve.specs import OPTIMIZERS

Fields = Mapping[str, Any]  # a specification of ours, dumped: every field is there
Vectors = Iterator[Any]  # all weights end to end, after each update

TORCH, KERAS, OPTAX, TRANSFORMERS = (
    {name: words for family in FAMILIES.values() for name, words in getattr(family, table, {}).items()}
    for table in ("TORCH", "KERAS", "OPTAX", "TRANSFORMERS")
)
# Packages of optimizers for torch: our name → their constructor, its words, and what it is always called with.
PACKAGES: Mapping[str, Mapping[str, Any]] = {
    package: {
        name: words for family in FAMILIES.values() for name, words in getattr(family, package.upper(), {}).items()
    }
    for package in ("pytorch_optimizer", "schedulefree", "dadaptation", "prodigyopt")
}
OURS = {  # their word → ours
    "beta_1": "beta1", "beta_2": "beta2", "b1": "beta1", "b2": "beta2", "epsilon": "eps", "rho": "alpha",
    "decay": "alpha", "initial_scale": "initial_accumulator_value", "learning_rate": "lr", "b3": "beta3",
    "use_clipping": "clip_updates", "t_alpha_beta3": "alpha_warmup", "max_learning_rate": "max_lr",
    "l1_regularization_strength": "l1", "l2_regularization_strength": "l2",
    "l2_shrinkage_regularization_strength": "l2_shrinkage", "init_estim_sq_dist": "initial_squared_distance",
    "estim_lr0": "d0", "estim_lr_coef": "d_coef", "use_bias_correction": "bias_correction",
    "beta_2_decay": "beta2_decay", "epsilon_1": "eps1",
    "epsilon_2": "eps2", "d": "clip_threshold", "clipping_threshold": "clip_threshold", "decay_rate": "beta2_decay",
    "multiply_by_parameter_scale": "scale_parameter", "weight_decay_rate": "weight_decay",
    "min_dim_size_to_factor": "factor_from", "momentum": "beta1",
    "adam_beta_1": "fallback_beta1", "adam_beta_2": "fallback_beta2", "adam_b1": "fallback_beta1",
    "adam_b2": "fallback_beta2", "adam_lr_ratio": "fallback_lr_scale", "beta": "momentum",
    "preconditioning_compute_steps": "precondition_frequency", "matrix_eps": "eps", "correct_bias": "bias_correction",
}  # fmt: skip


def loss_at(k: int) -> float:
    """The loss of update k, from 0, for the rules that need one."""
    return 2.0 + (k % 7) / 4


def arguments(words: Sequence[str], fields: Fields) -> dict[str, Any]:
    """What the reference's constructor is called with."""
    tuples = {"betas": "beta", "etas": "eta", "step_sizes": "step"}
    if "eps" in words and "eps" not in fields:  # Adafactor's pair
        tuples["eps"] = "eps"
    return {
        word: tuple(fields[name] for name in _members(tuples[word], fields) if name not in words)
        if word in tuples
        else fields[_ours(word, fields)]
        for word in words
    }


def _ours(word: str, fields: Any) -> str:
    return word if word in fields else OURS.get(word, word)


def _members(stem: str, fields: Fields) -> list[str]:
    """The fields that a tuple of theirs holds: beta1, beta2, …; eta_minus, eta_plus; step_min, step_max."""
    ends = ("1", "2", "3", "_minus", "_plus", "_min", "_max")
    return [stem + end for end in ends if stem + end in fields]


# ---------------------------------------------------------------------------------------------------- optimizers


def torch_weights(fields: Fields, shapes: Any, start: Any, gradients: Any, lrs: Any, dtype: str) -> Vectors:
    """The weights of torch's optimizer after each update. `clip` in the fields is carried out as torch does it."""
    import torch

    name, words = TORCH[fields["name"]]
    given = arguments(words, fields)
    if fields["name"] in ("nadam", "radam"):
        given["decoupled_weight_decay"] = fields["weight_decay_mode"] == "decoupled"
    if name == "Muon":
        return _torch_run(functools.partial(_MuonAndAdamW, fields, given), fields, shapes, start, gradients, lrs, dtype)
    make = functools.partial(getattr(torch.optim, name), foreach=False, **given)
    return _torch_run(make, fields, shapes, start, gradients, lrs, dtype)


def package_weights(
    package: str, fields: Fields, shapes: Any, start: Any, gradients: Any, lrs: Any, dtype: str
) -> Vectors:
    """The weights of the optimizer of a package for torch after each update."""
    name, words, fixed = PACKAGES[package][fields["name"]]
    given = {**arguments(words, fields), **fixed}
    if given.get("growth_rate", 1.0) is None:
        given["growth_rate"] = math.inf  # theirs has no other word for it
    make = functools.partial(getattr(importlib.import_module(package), name), **given)
    run = _torch_run(make, fields, shapes, start, gradients, lrs, dtype)
    return run if name != "SOAP" else _patched(run, lambda: _decomposed_in(dtype))


class _MuonAndAdamW:
    """torch's Muon takes matrices alone: its documentation asks for AdamW beside it."""

    def __init__(self, fields: Fields, given: dict[str, Any], parameters: Sequence[Any]) -> None:
        import torch

        matrices = [p for p in parameters if p.ndim == 2]
        betas = (fields["fallback_beta1"], fields["fallback_beta2"])
        words = {"betas": betas, "eps": fields["fallback_eps"], "weight_decay": fields["weight_decay"]}
        others = torch.optim.AdamW([p for p in parameters if p.ndim != 2], foreach=False, **words)
        self.both = (torch.optim.Muon(matrices, **given), others)
        self.param_groups = [group for optimizer in self.both for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.both:
            optimizer.step()


def torch_float_weights(*run: Any) -> Vectors:
    """As `torch_weights`, but what torch's optimizer casts to bfloat16 (the iteration of Muon) it leaves as it is."""
    from unittest import mock

    import torch

    return _patched(torch_weights(*run), lambda: mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone))


def _patched(weights: Vectors, patch: Callable[[], Any]) -> Vectors:
    """The same, each step of it under a patch."""
    while True:
        with patch():
            following = next(weights, None)
        if following is None:
            return
        yield following


def _decomposed_in(dtype: str) -> Any:
    """Their QR is in float32, whatever the weights are: here in the weights' dtype."""
    from unittest import mock

    import pytorch_optimizer.optimizer.soap as module
    import torch

    class Torch:
        float32 = getattr(torch, dtype)

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    return mock.patch.object(module, "torch", Torch())


def transformers_weights(fields: Fields, shapes: Any, start: Any, gradients: Any, lrs: Any, dtype: str) -> Vectors:
    """The weights of transformers' optimizer after each update: Adafactor, the one that it still has."""
    from transformers.optimization import Adafactor

    given = arguments(TRANSFORMERS[fields["name"]][1], fields)
    eps, beta1 = (fields["eps1"], fields["eps2"]), fields["beta1"] or None
    make = functools.partial(Adafactor, eps=eps, beta1=beta1, relative_step=False, **given)
    if fields["relative_step"]:  # there it excludes a rate, and is min(0.01, 1 / sqrt t)
        lrs = [min(lr, 1.0 / math.sqrt(t)) for t, lr in enumerate(lrs, 1)]
    return _torch_run(make, fields, shapes, start, gradients, lrs, dtype)


def _torch_run(
    make: Callable[..., Any], fields: Fields, shapes: Any, start: Any, gradients: Any, lrs: Any, dtype: str
) -> Vectors:
    import torch

    torch.set_default_dtype(getattr(torch, dtype))  # of NAdam's product
    parameters = [torch.nn.Parameter(torch.tensor(part)) for part in _parts(shapes, start, dtype)]
    optimizer = make(parameters)
    getattr(optimizer, "train", lambda: None)()  # of schedulefree: the weights that gradients are taken at
    for gradient, lr in zip(gradients, lrs, strict=True):
        for parameter, part in zip(parameters, _parts(shapes, gradient, dtype), strict=True):
            parameter.grad = torch.tensor(part)
        for clip in fields.get("clip", ()):
            if clip["name"] == "value":
                torch.nn.utils.clip_grad_value_(parameters, clip["value"])
            else:
                torch.nn.utils.clip_grad_norm_(parameters, clip["max_norm"])
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        optimizer.step()
        yield np.concatenate([p.detach().numpy().ravel() for p in parameters])


def keras_weights(fields: Fields, shapes: Any, start: Any, gradients: Any, lrs: Any, dtype: str) -> Vectors:
    """The weights of Keras' optimizer after each update."""
    import keras

    keras.config.set_floatx(dtype)
    name, words = KERAS[fields["name"]]
    decay, given = fields["weight_decay"] or None, arguments(words, fields)
    if name == "Muon":
        given |= {"adam_weight_decay": decay, "epsilon": fields["fallback_eps"]}
    optimizer = getattr(keras.optimizers, name)(learning_rate=float(lrs[0]), weight_decay=decay, **given)
    variables = [keras.Variable(part, dtype=dtype) for part in _parts(shapes, start, dtype)]
    optimizer.build(variables)
    for gradient, lr in zip(gradients, lrs, strict=True):
        optimizer.learning_rate = float(lr)
        optimizer.apply([keras.ops.convert_to_tensor(part) for part in _parts(shapes, gradient, dtype)], variables)
        yield np.concatenate([np.asarray(v.value).ravel() for v in variables])


def optax_weights(fields: Fields, shapes: Any, start: Any, gradients: Any, lrs: Any, dtype: str) -> Vectors:
    """The weights of optax' optimizer after each update."""
    import jax
    import jax.numpy as jnp
    import optax

    rates = jnp.asarray(lrs, dtype)
    name, words = OPTAX["amsgrad" if fields.get("amsgrad") else fields["name"]]
    given = arguments(words, fields)
    if given.get("momentum") == 0:
        given["momentum"] = None
    if name == "adafactor":  # their rate has the other sign, their eps is the first of ours, their mean is float32
        given |= {"decay_rate": -fields["beta2_decay"], "eps": fields["eps1"], "dtype_momentum": dtype}
    if name == "muon" and fields["adjust_lr_fn"] == "match_rms_adamw":
        given["consistent_rms"] = fields["rms_rate"]
    optimizer = optax.with_extra_args_support(_optax_constructor(name)(lambda count: rates[count], **given))
    update = optimizer.update
    if name == "muon":  # its loop would be compiled anew at each update
        update = jax.jit(update)
    weights = [jnp.asarray(part) for part in _parts(shapes, start, dtype)]
    state = optimizer.init(weights)
    for k, gradient in enumerate(gradients):
        pushed = [jnp.asarray(part) for part in _parts(shapes, gradient, dtype)]
        changes, state = update(pushed, state, weights, value=jnp.asarray(loss_at(k), dtype))
        weights = optax.apply_updates(weights, changes)
        yield np.concatenate([np.asarray(part).ravel() for part in weights])


def _optax_constructor(name: str) -> Callable[..., Any]:
    """What makes an optimizer of theirs from a schedule and its fields; their own constructor where it can."""
    import optax
    import optax.contrib

    def sm3(rate: Any, momentum: float) -> Any:  # the one of them that takes no schedule
        return optax.chain(optax.scale_by_sm3(momentum), optax.scale_by_learning_rate(rate))

    def polyak_sgd(rate: Any, **fields: Any) -> Any:  # theirs has lr in Polyak's norm, against their own formula
        return optax.chain(optax.scale_by_polyak(**fields), optax.scale_by_learning_rate(rate))

    def dog(rate: Any, reps_rel: float, initial_distance: float | None, **fields: Any) -> Any:
        first = ("heuristic", reps_rel) if initial_distance is None else ("distance", initial_distance)
        return optax.contrib.dog(rate, init_step=first, **fields)

    def with_betas(rate: Any, beta1: float, beta2: float, **fields: Any) -> Any:
        return getattr(optax.contrib, name)(rate, betas=(beta1, beta2), **fields)

    own: dict[str, Callable[..., Any]] = {
        "sm3": sm3,
        "polyak_sgd": polyak_sgd,
        "dog": dog,
        "dadapt_adamw": with_betas,
        "prodigy": with_betas,
    }
    return own.get(name) or getattr(optax, name, None) or getattr(optax.contrib, name)  # type: ignore[no-any-return]


WEIGHTS: Mapping[str, Callable[..., Vectors]] = {
    "torch": torch_weights, "torch_float": torch_float_weights, "keras": keras_weights, "optax": optax_weights,
    "transformers": transformers_weights,
    **{package: functools.partial(package_weights, package) for package in PACKAGES},
}  # fmt: skip


NAMES: Mapping[str, Sequence[str]] = {"torch": list(TORCH), "keras": list(KERAS), "optax": list(OPTAX)}


def _parts(shapes: Sequence[Sequence[int]], vector: Any, dtype: str) -> list[Any]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [
        part.reshape(shape).astype(dtype)
        for part, shape in zip(np.split(np.asarray(vector), ends[:-1]), shapes, strict=True)
    ]


def constructor_defaults(reference: str, name: str) -> dict[str, Any]:
    """The defaults of the reference's constructor, in our words; what has none there is left out."""
    import inspect

    if reference == "torch":
        import torch.optim as module
    elif reference == "keras":
        import keras.optimizers as module
    elif reference == "optax":
        import optax as module
    else:
        return {}  # no preset is named after it
    table = {"torch": TORCH, "keras": KERAS, "optax": OPTAX}[reference]
    if name not in table or name not in OPTIMIZERS.built:
        return {}
    theirs, words = table[name]
    made = getattr(module, theirs, None) or getattr(module.contrib, theirs)
    signature = inspect.signature(made).parameters
    found: dict[str, Any] = {}
    for word in {*words, "lr", "learning_rate", "weight_decay"} & set(signature):
        default = signature[word].default
        if default is inspect.Parameter.empty or (default is None and word in ("learning_rate", "adjust_lr_fn")):
            continue
        if word == "betas":
            found["beta1"], found["beta2"] = default
        elif isinstance(default, tuple):
            continue  # Rprop's pairs
        else:
            ours = OPTIMIZERS.built[name].model_fields
            field = _ours(word, ours)
            none = None if ours[field].default is None else 0.0  # theirs mostly means "without"
            found[field] = none if default is None else default
    return found
