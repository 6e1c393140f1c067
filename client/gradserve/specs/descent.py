"""Gradient descent with one rate for all parameters. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from .base import Flag, Fraction, Real
from .clips import ClipSpec, Noise, NoisePower, NoiseSeed, NoiseVariance
from .optimizer_fields import Decay, DecayMode, Lr, Maximize, OptimizerFields

_NESTEROV = {"momentum": 0.9, "nesterov": True}


class Sgd(OptimizerFields):
    """Stochastic gradient descent, with momentum, dampening and Nesterov's form."""

    summary: ClassVar[str] = "Gradient descent, with momentum and Nesterov's form if wanted."
    formula: ClassVar[str] = (
        "momentum 0: w -= lr g. Else b <- g (t = 1) or momentum b + (1 - dampening) g; u = b, or g + momentum b "
        "with nesterov; w -= lr u. lr_in_momentum: v <- momentum v - lr g; w += v, or momentum v - lr g with nesterov."
    )
    source: ClassVar[str] = "torch.optim.SGD; Polyak 1964; Sutskever et al. 2013."
    use_when: ClassVar[str] = "Convolutional networks, convex problems; the rule that is easiest to reason about."
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "gradientdescent": {}, "gd": {}, "momentum": {"momentum": 0.9}, "nag": _NESTEROV, "nesterov": _NESTEROV,
        "sgdw": {"weight_decay_mode": "decoupled"}, "fedavgm": {"lr": 1.0, "momentum": 0.9},
        "diloco": {"lr": 0.7, **_NESTEROV},
    }  # fmt: skip
    field_aliases: ClassVar[Mapping[str, str]] = {**OptimizerFields.field_aliases, "mu": "momentum"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"lr": 0.01, "lr_in_momentum": True, "weight_decay_mode": "decoupled"},
        "optax": {},
    }

    name: Literal["sgd"] = "sgd"
    lr: Lr = 1e-3
    momentum: Annotated[Fraction, Field(description="Share of the velocity that stays; 0 keeps no velocity.")] = 0.0
    dampening: Annotated[Real, Field(ge=0, le=1, description="Share of the gradient kept out of the velocity.")] = 0.0
    nesterov: Annotated[Flag, Field(description="Look ahead along the velocity.")] = False
    lr_in_momentum: Annotated[Flag, Field(description="Put lr inside the velocity (Keras).")] = False
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False

    @model_validator(mode="after")
    def _forms_fit(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"expected momentum > 0 and dampening 0 with nesterov, came momentum {self.momentum:g} and "
                f"dampening {self.dampening:g}: set momentum (0.9 is usual) or leave nesterov out"
            )
        if self.lr_in_momentum and self.dampening != 0:
            raise ValueError(f"expected dampening 0 with lr_in_momentum, came {self.dampening:g}: leave one out")
        return self


class NoisySgd(OptimizerFields):
    """Gradient descent with noise on the gradient that falls with the updates. Matches optax.noisy_sgd in distribution.

    The noise is that of the stage `noise`: the same for the same seed and update, on every server.
    """

    summary: ClassVar[str] = "Gradient descent shaken by noise, less and less."
    formula: ClassVar[str] = (
        "w -= lr (g + sqrt(eta / t^gamma) n), n of mean 0 and variance 1: 12 uniform numbers added, less 6."
    )
    source: ClassVar[str] = "optax.noisy_sgd, in distribution; Neelakantan et al. 2015 (arXiv:1511.06807)."
    use_when: ClassVar[str] = "Very deep networks that start badly. Other rules get such noise by the stage noise."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["noisy_sgd"] = "noisy_sgd"
    lr: Lr = 1e-3
    eta: NoiseVariance = 0.01
    gamma: NoisePower = 0.55
    seed: NoiseSeed = 0
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False

    @property
    def stages(self) -> tuple[ClipSpec, ...]:
        """The noise."""
        return (Noise(eta=self.eta, gamma=self.gamma, seed=self.seed),)


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Sgd, NoisySgd)
