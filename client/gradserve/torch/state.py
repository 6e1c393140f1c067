"""The run's slots ⇄ the `state_dict` of torch's optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from ..errors import ValidationError
from ..weights import Weights
from ..wire import RESERVED_PREFIX
from .forms import Form
from .tensors import to_array

__all__ = ["torch_state", "write_checkpoint"]


def torch_state(slots: Weights, parameters: Mapping[str, Tensor], form: Form) -> dict[Tensor, dict[str, Any]]:
    """The state of each parameter as torch keeps it: `step`, and the slots in the parameter's shape, dtype, device.

    Torch makes it at a parameter's first gradient: before the run's first update there is none, and none of a frozen
    parameter.
    """
    step = int(slots.metadata["step"])
    if step == 0:
        return {}
    by_parameter: dict[Tensor, dict[str, Any]] = {
        parameter: {"step": torch.tensor(float(step))} if form.steps else {}
        for parameter in parameters.values()
        if parameter.requires_grad
    }
    for place, array in slots.items():
        slot, _, name = place.partition("/")
        state = by_parameter.get(parameters[name])
        of_torch = form.name is None or slot in form.slots  # else the run's average of the weights
        if state is not None and of_torch:
            parameter = parameters[name]
            state[form.slots.get(slot, slot)] = torch.from_numpy(np.array(array)).to(parameter.device, parameter.dtype)
    return {parameter: state for parameter, state in by_parameter.items() if state}


def write_checkpoint(
    path: Path,
    parameters: Mapping[str, Tensor],
    weights: Mapping[str, NDArray[np.float32]],
    state: Mapping[Tensor, Mapping[str, Any]],
    form: Form,
    step: int,
) -> None:
    """Weights and torch's state of the parameters as a checkpoint file, which a run restores. Raises `ValidationError`.

    weights  of every parameter, by name
    step     of the run, for an optimizer that does not count its updates

    A parameter that torch has no state of yet (a frozen one) gets zeros, as it would from torch at its first gradient.
    """
    tensors = dict(weights)
    found = {key for one in state.values() for key in one if key != "step"}
    slots = form.slots if form.name else {key: key for key in found}
    if missing := (set(slots.values()) - found if found else set()):
        raise ValidationError(
            f"expected the state of torch.optim.{form.name}, with {', '.join(sorted(slots.values()))}; "
            f"{', '.join(sorted(missing))} is missing, {', '.join(sorted(found))} came: load the state of that class"
        )
    for slot, key in slots.items():
        for name, parameter in parameters.items():
            kept = state.get(parameter, {}).get(key)
            here = np.zeros(parameter.shape, np.float32) if kept is None else to_array(kept)
            tensors[f"{RESERVED_PREFIX}{slot}/{name}"] = here
    counted = [_count(one["step"]) for one in state.values() if "step" in one]
    if not counted and found:
        counted = [max(step, 1)]  # a velocity that is there is no first one
    save_file(tensors, path, metadata={"step": str(max(counted, default=0))})


def _count(step: Any) -> int:
    number = float(step)
    if not (number >= 0 and number.is_integer()):
        raise ValidationError(f"step in the state: expected a whole number of updates, came {number}")
    return int(number)
