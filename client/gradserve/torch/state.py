"""The run's slots ⇄ the `state_dict` of torch's optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..weights import Weights
from .forms import Form

__all__ = ["torch_state"]


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
        if state is not None:
            parameter = parameters[name]
            state[form.slots.get(slot, slot)] = torch.from_numpy(np.array(array)).to(parameter.device, parameter.dtype)
    return {parameter: state for parameter, state in by_parameter.items() if state}
