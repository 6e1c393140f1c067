"""A run's state ⇄ the `state_dict` of torch's optimizers.

Torch's form has a place for the slots of the parameters that train, and for the number of updates. What a run needs
besides to go on as if nothing had happened (numbers beside the slots, slots of frozen parameters, an average of the
weights, what its schedule counts) is one more member of the dict, `gradserve`, which torch's own classes leave alone.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ..errors import ValidationError
from ..run import Run
from ..weights import Weights
from ..wire import RESERVED_PREFIX
from .forms import Form
from .tensors import to_array

__all__ = ["BESIDE", "RunState", "checkpoint_of", "read_run", "rest_of", "restore_run", "torch_state"]

BESIDE = "gradserve"  # the member of a state dict
TAKEN_BACK = ("memory", "updates", "samples_seen", "plateau")  # what a checkpoint says beside its step and spec
AVERAGES = frozenset({"ema", "swa", "slow"})  # slots that are averages of the run, and no optimizer's
NUMBERS_OF_AVERAGES = frozenset({"reset_at", "ema_updates", "ema_left", "swa_updates"})

Slots = Mapping[str, NDArray[np.float32]]  # by `<slot>/<tensor>`


@dataclass(frozen=True)
class RunState:
    """What a run holds beside its weights at one moment: its slots, and what its checkpoints say beside them."""

    slots: Slots
    said: Mapping[str, Any]


def read_run(run: Run) -> RunState:
    """The state of one moment, by a checkpoint that is gone when it is read: no other answer has all of it."""
    name = f"export-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="gradserve-") as folder:
        run.checkpoint(name)
        try:
            file = run.download(name, Path(folder) / "state.safetensors")
        finally:
            run.delete_checkpoint(name)
        with safe_open(file, "numpy") as opened:
            said = {key: json.loads(text) for key, text in opened.metadata().items()}
            slots = {
                key.removeprefix(RESERVED_PREFIX): opened.get_tensor(key)
                for key in opened.keys()  # noqa: SIM118 – it is no dict
                if key.startswith(RESERVED_PREFIX)
            }
    return RunState(slots, said)


def restore_run(run: Run, tensors: Slots, metadata: Mapping[str, str]) -> None:
    """Bring weights and slots to the run, by a checkpoint that is gone when it is restored."""
    name = f"import-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="gradserve-") as folder:
        file = Path(folder) / "state.safetensors"
        save_file(dict(tensors), file, metadata=dict(metadata))
        run.upload_checkpoint(name, file)
        try:
            run.restore(name)
        finally:
            run.delete_checkpoint(name)


def torch_state(
    held: RunState, parameters: Mapping[str, Tensor], form: Form
) -> tuple[dict[Tensor, dict[str, Any]], dict[str, Any]]:
    """The state of each parameter as torch keeps it, and the rest: what torch's form has no place for.

    Torch has `step`, and the slots in the parameter's dtype on its device. It makes them at a parameter's first
    gradient: before the run's first update there are none, and none of a frozen parameter.
    """
    step = int(held.said["step"])
    by_parameter: dict[Tensor, dict[str, Any]] = {
        parameter: {"step": torch.tensor(float(step))} if form.steps else {}
        for parameter in parameters.values()
        if parameter.requires_grad and step
    }
    places = {name: place for place, name in enumerate(parameters)}
    others: dict[int, dict[str, Tensor]] = {}
    for at, array in held.slots.items():
        slot, _, name = at.partition("/")
        parameter, tensor = parameters[name], torch.from_numpy(np.array(array))
        state = by_parameter.get(parameter)
        if state is not None and (form.name is None or slot in form.slots):  # else the run's average of the weights
            state[form.slots.get(slot, slot)] = tensor.to(parameter.device, parameter.dtype)
        else:
            others.setdefault(places[name], {})[slot] = tensor
    rest = {
        "optimizer": held.said["spec"]["optimizer"]["name"],
        "schedule": held.said["spec"]["schedule"],
        "step": step,
        **{key: held.said[key] for key in TAKEN_BACK},
        "slots": others,
        "called": {key: slot for slot, key in form.slots.items()},
    }
    return {parameter: state for parameter, state in by_parameter.items() if state}, rest


def rest_of(state_dict: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The rest in a state dict, its slots by `<slot>/<tensor>`; None: a class of torch has saved it."""
    if BESIDE not in state_dict:
        return None
    saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    names = dict(zip(saved, parameters, strict=True))
    slots = state_dict[BESIDE]["slots"]
    found = {f"{slot}/{names[place]}": to_array(kept) for place, one in slots.items() for slot, kept in one.items()}
    return {**state_dict[BESIDE], "slots": found}


def checkpoint_of(
    run: Run,
    parameters: Mapping[str, Tensor],
    state: Mapping[Tensor, Mapping[str, Any]],
    rest: Mapping[str, Any] | None,
    form: Form,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """The state as a checkpoint of the run has it, without weights: slots by their names there, and metadata.

    Raises `ValidationError` where it is the state of another optimizer, or lacks what this one keeps. A parameter that
    a class of torch has no state of yet (a frozen one) gets zeros, as it would from torch at its first gradient.
    """
    described = run.describe()
    found = {key for one in state.values() for key in one if key != "step"}
    if form.name:
        slots = _of_torch(parameters, state, found, form)
    elif rest is not None:
        slots = _own(parameters, state, rest, described["spec"]["optimizer"]["name"])
    else:
        slots = _foreign(run.optimizer_state(), parameters, state, found) if found else {}
    counted = [_count(one["step"]) for one in state.values() if "step" in one]
    if not counted and rest is not None:
        counted = [_count(rest["step"])]
    elif not counted and found:
        counted = [max(int(described["step"]), 1)]  # a velocity that is there is no first one
    said: dict[str, Any] = {"step": max(counted, default=0)}
    if rest is not None:
        slots |= rest["slots"]
        said |= {key: rest[key] for key in TAKEN_BACK if key in rest}
        if rest.get("schedule") != described["spec"]["schedule"]:
            said.pop("plateau", None)  # what was seen means nothing to another schedule
    tensors = {f"{RESERVED_PREFIX}{at}": array for at, array in slots.items()}
    return tensors, {key: json.dumps(value) for key, value in said.items()}


def _of_torch(
    parameters: Mapping[str, Tensor], state: Mapping[Tensor, Mapping[str, Any]], found: set[str], form: Form
) -> dict[str, NDArray[np.float32]]:
    """The slots of an optimizer that torch has, all of which begin as zeros in the parameter's shape."""
    if missing := (set(form.slots.values()) - found if found else set()):
        raise ValidationError(
            f"expected the state of torch.optim.{form.name}, with {', '.join(sorted(form.slots.values()))}; "
            f"{', '.join(sorted(missing))} is missing, {', '.join(sorted(found))} came: load the state of that class"
        )
    slots = {}
    for slot, key in form.slots.items():
        for name, parameter in parameters.items():
            kept = state.get(parameter, {}).get(key)
            slots[f"{slot}/{name}"] = np.zeros(parameter.shape, np.float32) if kept is None else to_array(kept)
    return slots


def _own(
    parameters: Mapping[str, Tensor], state: Mapping[Tensor, Mapping[str, Any]], rest: Mapping[str, Any], name: str
) -> dict[str, NDArray[np.float32]]:
    """The slots of a run's own state dict: with the rest they are whole."""
    if rest["optimizer"] != name:
        raise ValidationError(f"expected the state of the optimizer {name!r}, came that of {rest['optimizer']!r}")
    called = rest.get("called", {})
    return {
        f"{called.get(key, key)}/{name}": to_array(kept)
        for name, parameter in parameters.items()
        for key, kept in state.get(parameter, {}).items()
        if key != "step"
    }


def _foreign(
    held: Weights, parameters: Mapping[str, Tensor], state: Mapping[Tensor, Mapping[str, Any]], found: set[str]
) -> dict[str, NDArray[np.float32]]:
    """The slots of a state that came without the rest; where it has none of a tensor, the run's own stay."""
    place = {"version", "step", "head", "etag"}
    numbers = held.metadata.keys() - place - NUMBERS_OF_AVERAGES
    if numbers:
        raise ValidationError(
            f"expected a state dict of RemoteOptimizer, whose member {BESIDE!r} has {', '.join(sorted(numbers))}: "
            "this optimizer keeps numbers beside its slots, and would go on wrongly without them"
        )
    slots = {at.partition("/")[0] for at in held}
    if missing := slots - found - AVERAGES:
        raise ValidationError(
            f"expected a state with {', '.join(sorted(slots - AVERAGES))}; {', '.join(sorted(missing))} is missing, "
            f"{', '.join(sorted(found))} came: load the state of the same optimizer"
        )
    taken = {}
    for at, array in held.items():
        slot, _, name = at.partition("/")
        if slot in found:  # else it begins anew, at the weights that come
            kept = state.get(parameters[name], {}).get(slot)
            taken[at] = array if kept is None else to_array(kept)
    return taken


def _count(step: Any) -> int:
    number = float(step)
    if not (number >= 0 and number.is_integer()):
        raise ValidationError(f"step in the state: expected a whole number of updates, came {number}")
    return int(number)
