"""Steps of one length in every direction: only the sign of a gradient counts. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from .base import Fraction, Positive, Real
from .optimizer_fields import BETA_ALIASES, Decay, DecayMode, Lr, Maximize, OptimizerFields


class SignSgd(OptimizerFields):
    """Every weight moves by lr, against the sign of its gradient. Matches optax.sign_sgd."""

    summary: ClassVar[str] = "Each weight moves by lr, whatever the size of its gradient."
    formula: ClassVar[str] = "w -= lr sign(g)."
    source: ClassVar[str] = "optax.sign_sgd; Bernstein et al. 2018 (arXiv:1802.04434)."
    use_when: ClassVar[str] = "Gradients that come as signs alone, and a baseline for what momentum and scale add."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["sign_sgd"] = "sign_sgd"
    lr: Lr = 1e-3
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class Signum(OptimizerFields):
    """Every weight moves by lr, against the sign of its mean gradient. Matches optax.signum."""

    summary: ClassVar[str] = "The sign of the first moment: sign_sgd that does not follow every noise."
    formula: ClassVar[str] = "m <- beta m + (1 - beta) g; w -= lr sign(m)."
    source: ClassVar[str] = "optax.signum; Bernstein et al. 2018 (arXiv:1802.04434)."
    use_when: ClassVar[str] = "Where sign_sgd is too noisy: half of Adam's memory, its typical step."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, "beta1": "beta", "momentum": "beta", "mu": "beta",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["signum"] = "signum"
    lr: Lr = 1e-3
    beta: Annotated[Fraction, Field(description="Decay of the first moment.")] = 0.9
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class Lion(OptimizerFields):
    """The sign of a mean of gradients, with two memories of different length. Matches optax.lion, keras Lion."""

    summary: ClassVar[str] = "Evolved sign momentum: steps of lr, one slot, decoupled decay."
    formula: ClassVar[str] = "w -= lr sign(beta1 m + (1 - beta1) g); m <- beta2 m + (1 - beta2) g, after the step."
    source: ClassVar[str] = "optax.lion; keras.optimizers.Lion; Chen et al. 2023 (arXiv:2302.06675)."
    use_when: ClassVar[str] = "Large batches; with a third of AdamW's lr and three times its decay, half its memory."
    field_aliases: ClassVar[Mapping[str, str]] = BETA_ALIASES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"lr": 1e-3},
        "optax": {"weight_decay": 1e-3},
    }

    name: Literal["lion"] = "lion"
    lr: Lr = 1e-4
    beta1: Annotated[Fraction, Field(description="Share of the memory in a step.")] = 0.9
    beta2: Annotated[Fraction, Field(description="Decay of the memory.")] = 0.99
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class Rprop(OptimizerFields):
    """A step length for each weight that grows while the sign stays and shrinks when it turns. Matches torch's Rprop.

    The length begins at `lr`; afterwards lr only scales the steps by what a schedule or staleness makes of it.
    """

    summary: ClassVar[str] = "Resilient backpropagation: the gradient's size is never used, its change of sign is."
    formula: ClassVar[str] = (
        "s = sign(g g_prev); step <- clip(step (eta_plus where s > 0, eta_minus where s < 0, else 1), step_min, "
        "step_max); g <- 0 where s < 0; w -= step sign(g) lr / lr_0; g_prev <- g. step starts at lr_0, the optimizer's "
        "lr; lr / lr_0 is what the schedule makes of it, 1 without one."
    )
    source: ClassVar[str] = "torch.optim.Rprop; Riedmiller & Braun 1993."
    use_when: ClassVar[str] = "Full batches only: noise turns signs, and each turn halves a step."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, "etaminus": "eta_minus", "etaplus": "eta_plus", "minstepsize": "step_min",
        "maxstepsize": "step_max",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["rprop"] = "rprop"
    lr: Lr = 1e-2
    eta_minus: Annotated[Real, Field(gt=0, lt=1, description="Factor of a step whose gradient turned.")] = 0.5
    eta_plus: Annotated[Real, Field(gt=1, description="Factor of a step whose gradient kept its sign.")] = 1.2
    step_min: Annotated[Positive, Field(description="Shortest step.")] = 1e-6
    step_max: Annotated[Positive, Field(description="Longest step.")] = 50.0
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False

    @classmethod
    def _expand(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """torch's pairs besides: etas and step_sizes."""
        rest = dict(given)
        for pair, (low, high) in {"etas": ("eta_minus", "eta_plus"), "step_sizes": ("step_min", "step_max")}.items():
            if pair in rest:
                values = rest.pop(pair)
                if not isinstance(values, (list, tuple)) or len(values) != 2:
                    raise ValueError(f"expected {pair} to be [{low}, {high}], came {values!r:.80}")
                rest |= {low: values[0], high: values[1]}
        return super()._expand(rest)

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.step_min > self.step_max:
            raise ValueError(f"expected step_min ≤ step_max, came {self.step_min:g} and {self.step_max:g}: swap them")
        return self


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (SignSgd, Signum, Lion, Rprop)
