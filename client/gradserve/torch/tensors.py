"""Torch's tensors ⇄ the run's float32 arrays, and the names that tell them apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import GradserveWarning, ValidationError
from ..gradients import Rows

__all__ = [
    "changed_here",
    "copy_into",
    "fixed",
    "gradients_of",
    "named",
    "rounds_to",
    "to_array",
    "without_ties",
    "writes",
]

RATES = frozenset({"lr", "initial_lr", "max_lr", "min_lr", "swa_lr"})  # a scheduler's own, in a parameter group


def named(groups: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Every parameter by its name in the run; without names, by its place. Raises `ValidationError`.

    Names come with `model.named_parameters()` (torch keeps them since 2.6). They are what a checkpoint, a group and
    the other workers know a tensor by: a place changes when the model does.
    """
    found: dict[str, Tensor] = {}
    unnamed = 0
    for group in groups:
        names = group.get("param_names") or [None] * len(group["params"])
        for given, parameter in zip(names, group["params"], strict=True):
            name = f"parameter.{len(found)}" if given is None else given
            unnamed += given is None
            if name in found:
                raise ValidationError(f"expected a name for one parameter, two are called {name!r}: rename one")
            if not parameter.is_floating_point():
                raise ValidationError(f"parameter {name!r}: expected real numbers, came {parameter.dtype}")
            found[name] = parameter
    if unnamed:
        warnings.warn(
            f"{unnamed} parameters came without names and are called parameter.0 … parameter.{len(found) - 1}: "
            "give model.named_parameters(), so that the run has the model's own names",
            GradserveWarning,
            stacklevel=5,
        )
    return found


def without_ties(parameters: Any) -> Any:
    """Parameters or (name, parameter) pairs, each tensor once, under its first name: a tied weight has one gradient."""
    if isinstance(parameters, Tensor | set):
        return parameters  # torch's own constructor takes the one and refuses the other
    seen: set[Tensor] = set()
    kept = []
    for given in parameters:
        tensor = given[1] if isinstance(given, tuple) else given
        if not isinstance(tensor, Tensor) or tensor not in seen:
            kept.append(given)
        if isinstance(tensor, Tensor):
            seen.add(tensor)
    return kept


def to_array(tensor: Tensor) -> NDArray[np.float32]:
    """The tensor as float32 in the host's memory: its own memory where it is that already, else a copy."""
    array: NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return array


def rounds_to(array: NDArray[np.float32], tensor: Tensor) -> bool:
    """Whether the tensor is the array in a dtype of less precision: unchanged since it was copied from it."""
    if tensor.dtype == torch.float32:
        return False
    rounded = torch.from_numpy(np.array(array)).to(tensor.dtype)
    return torch.equal(rounded, tensor.detach().cpu())


def fixed(groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a parameter group may not change any more: its parameters, and its hyperparameters but for the rates."""
    return [
        {key: tuple(map(id, value)) if key == "params" else value for key, value in group.items() if key not in RATES}
        for group in groups
    ]


def gradients_of(parameters: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32] | Rows]:
    """What `backward` left, by name. Parameters without a gradient are left out, as torch's optimizers leave them.

    A gradient that is sparse by rows, as `nn.Embedding(…, sparse=True)` has it, is pushed as these rows. Raises
    `ValidationError` for one that is sparse otherwise.
    """
    found: dict[str, NDArray[np.float32] | Rows] = {}
    for name, parameter in parameters.items():
        gradient = parameter.grad
        if gradient is None or not parameter.requires_grad:
            continue
        if gradient.layout is torch.sparse_coo and gradient.sparse_dim() == 1:
            found[name] = Rows(gradient._indices()[0].cpu().numpy(), to_array(gradient._values()))
            continue
        if gradient.layout is not torch.strided:
            raise ValidationError(
                f"gradient of {name!r}: expected a dense tensor or one that is sparse by rows, came {gradient.layout}: "
                "call .to_dense() on the gradient before step()"
            )
        found[name] = to_array(gradient)
    return found


def copy_into(parameters: Mapping[str, Tensor], weights: Mapping[str, NDArray[np.float32]]) -> None:
    """The run's weights into the parameters, in place, in the parameters' own dtype and on their own device."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            # The array is a read-only view of what came over the wire: torch takes only memory that it may write.
            parameter.copy_(torch.from_numpy(np.array(weights[name])))


def writes(parameters: Mapping[str, Tensor]) -> dict[str, int]:
    """How often each parameter was written to in place, as autograd counts. Writes through `.data` are not counted."""
    return {name: parameter._version for name, parameter in parameters.items()}


def changed_here(
    parameters: Mapping[str, Tensor], seen: dict[str, int], weights: Mapping[str, NDArray[np.float32]]
) -> list[str]:
    """Names of the parameters that are not the run's weights any more.

    seen  their `writes` when they were; brought up to date. Only a parameter that was written to is compared: an
          `nn.Embedding` with max_norm writes at each look, mostly what is there
    """
    found = []
    for name, count in writes(parameters).items():
        if count != seen[name]:
            seen[name], parameter = count, parameters[name].detach()
            held = torch.from_numpy(np.array(weights[name])).to(parameter.device, parameter.dtype)
            if not torch.equal(held, parameter):
                found.append(name)
    return found
