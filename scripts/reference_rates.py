"""The rates of schedules and plateaus of torch, Keras, optax and transformers, one call each.

Used as `scripts/references.py` is, in the same environment.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from references import Fields


def torch_rates(name: str, lr: float, count: int, momentum: bool = False, **given: Any) -> list[Any]:
    """lr, or [lr, momentum], of the first `count` updates under a torch scheduler."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **given)
    return _torch_walk(optimizer, scheduler, count, momentum)


def _torch_walk(optimizer: Any, scheduler: Any, count: int, momentum: bool = False) -> list[Any]:
    rates: list[Any] = []
    for k in range(count):
        group = optimizer.param_groups[0]
        rates.append([group["lr"], group["momentum"]] if momentum else group["lr"])
        optimizer.step()
        if k + 1 < count:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some schedulers call each other in their old way
                scheduler.step()
    return rates


def composed_torch_rates(name: str, lr: float, count: int, parts: Sequence[Fields], **given: Any) -> list[float]:
    """The rates under torch's SequentialLR or ChainedScheduler of the parts, which are in its words."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr)
    module = torch.optim.lr_scheduler
    schedulers = [
        getattr(module, part["name"])(optimizer, **{word: x for word, x in part.items() if word != "name"})
        for part in parts
    ]
    whole = getattr(module, name)
    composed = whole(optimizer, schedulers, **given) if name == "SequentialLR" else whole(schedulers, **given)
    return _torch_walk(optimizer, composed, count)


def swa_rates(lr: float, count: int, **given: Any) -> list[float]:
    """The rates of the first `count` updates under torch's SWALR."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr)
    return _torch_walk(optimizer, torch.optim.swa_utils.SWALR(optimizer, **given), count)


def transformers_rates(name: str, lr: float, count: int, **given: Any) -> list[float]:
    """The rates of the first `count` updates under a scheduler of transformers."""
    import torch
    import transformers

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr)
    return _torch_walk(optimizer, getattr(transformers, name)(optimizer, **given), count)


def joined_rates(count: int, parts: Sequence[tuple[str, Fields]], boundaries: Sequence[int]) -> list[float]:
    """The rates of optax' schedules, joined, in float64."""
    import optax

    schedules = [getattr(optax, name)(**given) for name, given in parts]
    return optax_rates("join_schedules", count, schedules=schedules, boundaries=list(boundaries))


def keras_rates(name: str, count: int, **given: Any) -> list[float]:
    """The float32 rates of the first `count` updates under a Keras schedule."""
    import keras

    keras.config.set_floatx("float32")
    schedule = getattr(keras.optimizers.schedules, name)(**given)
    return [float(schedule(k)) for k in range(count)]


def optax_rates(name: str, count: int, **given: Any) -> list[float]:
    """The rates of the first `count` updates under an optax schedule, in float64."""
    import jax.numpy as jnp
    import optax

    schedule = getattr(optax, name)(**given)
    return [float(schedule(jnp.asarray(k, "float64"))) for k in range(count)]


def geron_rates(lr: float, count: int, total: int, max_lr: float | None = None) -> list[float]:
    """The OneCycleScheduler of Géron's notebook of chapter 11, its callback taken out of Keras."""
    peak = lr if max_lr is None else max_lr
    start_rate, last_iterations = peak / 10, total // 10 + 1
    half, last_rate = (total - last_iterations) // 2, peak / 10 / 1000

    def interpolate(k: int, iter1: int, iter2: int, rate1: float, rate2: float) -> float:
        return (rate2 - rate1) * (k - iter1) / (iter2 - iter1) + rate1

    rates = []
    for k in range(count):
        if k < half:
            rates.append(interpolate(k, 0, half, start_rate, peak))
        elif k < 2 * half:
            rates.append(interpolate(k, half, 2 * half, peak, start_rate))
        else:
            rates.append(interpolate(k, 2 * half, total, start_rate, last_rate))
    return rates


# ------------------------------------------------------------------------------------------------------- plateau


def torch_plateau(values: Sequence[float], lr: float, fields: Fields) -> list[float]:
    """The rate after each report."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    words = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps")
    given = {word: fields[word] for word in words}
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **given)
    rates = []
    for value in values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def keras_plateau(values: Sequence[float], lr: float, fields: Fields) -> list[float]:
    """The rate after each report, in float64."""
    import types

    import keras

    keras.config.set_floatx("float64")
    words = ("mode", "factor", "patience", "cooldown", "min_lr")
    given = {word: fields[word] for word in words}
    callback = keras.callbacks.ReduceLROnPlateau(monitor="loss", min_delta=fields["threshold"], **given)
    callback.set_model(types.SimpleNamespace(optimizer=keras.optimizers.SGD(learning_rate=lr)))
    callback.on_train_begin()
    rates = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"loss": value})
        rates.append(float(callback.model.optimizer.learning_rate.value))
    return rates


def optax_plateau(values: Sequence[float], lr: float, fields: Fields) -> list[float]:
    """The rate after each report, in float64."""
    import jax.numpy as jnp
    from optax import contrib

    given = {word: fields[word] for word in ("factor", "patience", "cooldown")}
    reduce = contrib.reduce_on_plateau(
        rtol=fields["threshold"], atol=fields["threshold_abs"], accumulation_size=fields["every"],
        min_scale=fields["min_lr"] / lr, **given,
    )  # fmt: skip
    weights = jnp.zeros(1, "float64")
    state, rates = reduce.init(weights), []
    for value in values:
        _, state = reduce.update(weights, state, value=jnp.asarray(value, "float64"))
        rates.append(lr * float(state.scale))
    return rates


PLATEAUS: Mapping[str, Callable[..., list[float]]] = {
    "torch": torch_plateau, "keras": keras_plateau, "optax": optax_plateau,
}  # fmt: skip
