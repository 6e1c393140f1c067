"""What the run's optimizer is called in torch: its hyperparameters, its state, its parameter groups."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ValidationError, from_refused
from ..specs import SGD, Adam, AdamW, RunSpec, validation_refusal

__all__ = ["Form", "form_of", "group_names", "run_groups"]

OF_THE_GROUP = ("lr", "weight_decay")  # what may differ between groups of one run


@dataclass(frozen=True)
class Form:
    """The optimizer of a run in torch's words.

    name      torch's class whose state this is; None: torch has none that computes the same
    defaults  what torch puts into every parameter group
    slots     the run's slots and torch's names for them
    steps     does torch keep the number of updates with each parameter?
    """

    name: str | None
    defaults: Mapping[str, Any]
    slots: Mapping[str, str]
    steps: bool


def form_of(optimizer: Any) -> Form:
    """The form of a spec (or of a name or dict that reads as one). Raises `ValidationError`."""
    try:
        spec = RunSpec.model_validate({"optimizer": optimizer}).optimizer
    except ValueError as error:  # pydantic's ValidationError is one
        raise from_refused(validation_refusal(error)) from None
    one = [torch.zeros(())]  # torch's classes say themselves what their groups hold
    decays = not spec.weight_decay or spec.weight_decay_mode in ("l2", "decoupled")  # as torch knows to
    if isinstance(spec, Adam | AdamW) and decays and not (spec.eps_root or spec.eps_hat or not spec.bias_correction):
        kind = torch.optim.AdamW if spec.weight_decay_mode == "decoupled" else torch.optim.Adam
        adam = kind(
            one,
            lr=spec.lr,
            betas=(spec.beta1, spec.beta2),
            eps=spec.eps,
            weight_decay=spec.weight_decay,
            amsgrad=spec.amsgrad,
            maximize=spec.maximize,
        )
        slots = ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if spec.amsgrad else []))
        if not (spec.amsgrad and spec.amsgrad_corrected):
            return Form(kind.__name__, adam.defaults, {slot: slot for slot in slots}, steps=True)
    if isinstance(spec, SGD) and not spec.lr_in_momentum and (spec.weight_decay_mode == "l2" or not spec.weight_decay):
        sgd = torch.optim.SGD(
            one,
            lr=spec.lr,
            momentum=spec.momentum,
            dampening=spec.dampening,
            weight_decay=spec.weight_decay,
            nesterov=spec.nesterov,
            maximize=spec.maximize,
        )
        return Form("SGD", sgd.defaults, {"velocity": "momentum_buffer"} if spec.momentum else {}, steps=False)
    own = spec.model_dump(exclude={"name"})
    return Form(None, own, {}, steps=True)


def group_names(param_groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each parameter group is called in the run: its own `name`, else group0, group1, …"""
    return [str(group.get("name", f"group{place}")) for place, group in enumerate(param_groups)]


def run_groups(
    param_groups: Sequence[Mapping[str, Any]],
    names: Sequence[Sequence[str]],
    defaults: Mapping[str, Any],
    *,
    client_rates: bool,
) -> list[dict[str, Any]]:
    """The run's `groups` that do what torch's groups ask for; none where there is nothing to tell apart.

    names         of the parameters of each group
    client_rates  each push names the rates: no group scales them

    Raises `ValidationError` for a hyperparameter that differs between groups, and is one for a whole run here.
    """
    for group, called in zip(param_groups, group_names(param_groups), strict=True):
        for key, value in defaults.items():
            if key not in OF_THE_GROUP and group[key] != value:
                raise ValidationError(
                    f"parameter group {called!r}: expected {key} {value!r}, as the run's optimizer has it, came "
                    f"{group[key]!r}: groups of one run differ in lr and weight_decay"
                )
    alike = all(group[key] == defaults[key] for group in param_groups for key in OF_THE_GROUP if key in defaults)
    if alike and (len(param_groups) == 1 or not client_rates):
        return []
    base = float(defaults["lr"])
    found = []
    for group, called, own in zip(param_groups, group_names(param_groups), names, strict=True):
        rate = float(group["lr"])
        if not client_rates and base == 0 and rate != 0:
            raise ValidationError(
                f"parameter group {called!r}: expected lr 0, a multiple of the optimizer's 0, came {rate:g}"
            )
        fields: dict[str, Any] = {"name": called, "match": [glob.escape(name) for name in own]}
        if not client_rates and rate != base:
            fields["lr_scale"] = rate / base
        if "weight_decay" in defaults and group["weight_decay"] != defaults["weight_decay"]:
            fields["weight_decay"] = float(group["weight_decay"])
        found.append(fields)
    return found
