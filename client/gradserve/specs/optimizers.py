"""The optimizers: one declaration each. The service's rules inherit them and add slots and arithmetic.

Legend of the formulas: w weights, g gradient, lr rate of this update, t number of the update from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .base import Family, Flag, Fraction, NotNegative, Real, Spec, folded

Lr = Annotated[NotNegative, Field(description="Base learning rate; the schedule scales it.")]
Eps = Annotated[NotNegative, Field(description="Added to the denominator.")]
Decay = Annotated[NotNegative, Field(description="Weight decay; 0 is none.")]
DecayMode = Annotated[
    Literal["l2", "decoupled"],
    Field(description="l2: g += wd·w before the rule. decoupled: w *= 1 - lr·wd."),
]
Maximize = Annotated[Flag, Field(description="Climb instead of descending: the gradient's sign is turned.")]


class OptimizerFields(Spec):
    """What every optimizer reads beside its own fields.

    `compat` ("torch", "keras" or "optax") is read and not kept: it changes the defaults of this one declaration.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}}
    field_aliases: ClassVar[Mapping[str, str]] = {"learningrate": "lr", "epsilon": "eps"}

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Spec.canonical_fields`, and the spellings that stand for a value: betas, compat, null, decay flags."""
        rest = {key: value for key, value in given.items() if not folded_is(key, "compat")}
        compat = next((value for key, value in given.items() if folded_is(key, "compat")), "torch")
        preset = cls.presets.get(compat.lower()) if isinstance(compat, str) else None
        if preset is None:
            raise ValueError(f"expected compat to be one of {', '.join(cls.presets)}, came {str(compat)[:80]!r}")
        fields = super().canonical_fields(cls._expand(rest))
        if "eps" in fields and fields["eps"] is None:
            fields["eps"] = preset.get("eps", cls.model_fields["eps"].default)
        if "weight_decay" in fields and fields["weight_decay"] is None:
            fields["weight_decay"] = 0.0  # Keras writes none as null
        return {**preset, **fields}

    @classmethod
    def _expand(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Spellings that stand for a value, or for two fields."""
        rest: dict[str, Any] = {}
        for key, value in given.items():
            word = folded(key) if isinstance(key, str) else ""
            if word in ("decoupledweightdecay", "weightdecouple"):
                if type(value) is not bool:
                    raise ValueError(f"expected {key} to be true or false, came {value!r:.80}")
                _put(rest, "weight_decay_mode", "decoupled" if value else "l2")
            elif word == "betas" and "beta1" in cls.model_fields:
                if not isinstance(value, (list, tuple)) or len(value) != 2:
                    raise ValueError(f"expected betas to be [beta1, beta2], came {value!r:.80}")
                _put(rest, "beta1", value[0])
                _put(rest, "beta2", value[1])
            elif word == "lr" or word == "learningrate":
                if isinstance(value, Mapping):
                    raise ValueError("expected lr to be a number: send a schedule as the run's own field 'schedule'")
                _put(rest, key, value)
            else:
                _put(rest, key, value)
        return rest

    @classmethod
    def merged(cls, current: Spec, changes: Mapping[str, Any]) -> Self:
        """This optimizer with some fields changed (PATCH). Raises `ValueError`; the name cannot change."""
        name = next((value for key, value in changes.items() if folded_is(key, "name")), None)
        own = current.model_dump()
        if name is not None and (not isinstance(name, str) or OPTIMIZERS.name_of(name)[0] != own["name"]):
            raise ValueError(f"expected name {own['name']!r}, came {str(name)[:80]!r}: another rule needs another run")
        if any(folded_is(key, "compat") for key in changes):
            raise ValueError("compat sets defaults when a run is created: send the fields to change")
        fields = cls.canonical_fields({key: value for key, value in changes.items() if not folded_is(key, "name")})
        return cls.model_validate({**own, **fields})


def folded_is(key: object, word: str) -> bool:
    """Whether a field as it was written is this word."""
    return isinstance(key, str) and folded(key) == word


def _put(fields: dict[str, Any], key: str, value: Any) -> None:
    if key in fields:
        raise ValueError(f"expected {key} once, it came under two spellings: send one")
    fields[key] = value


class Sgd(OptimizerFields):
    """Stochastic gradient descent, with momentum, dampening and Nesterov's form."""

    summary: ClassVar[str] = "Gradient descent, with momentum and Nesterov's form if wanted."
    formula: ClassVar[str] = (
        "momentum 0: w -= lr g. Else b <- g (t = 1) or momentum b + (1 - dampening) g; u = b, or g + momentum b "
        "with nesterov; w -= lr u. lr_in_momentum: v <- momentum v - lr g; w += v, or momentum v - lr g with nesterov."
    )
    source: ClassVar[str] = "torch.optim.SGD; Polyak 1964; Sutskever et al. 2013."
    use_when: ClassVar[str] = "Convolutional networks, convex problems; the rule that is easiest to reason about."
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


class AdamFields(OptimizerFields):
    """What Adam and AdamW have in common: everything but the decay's defaults."""

    formula: ClassVar[str] = (
        "m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g²; "
        "w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t) + eps_root) + eps)."
    )
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases,
        "b1": "beta1",
        "b2": "beta2",
        "epsilonroot": "eps_root",
        "usebiascorrection": "bias_correction",
        "correctbias": "bias_correction",
        "debias": "bias_correction",
    }

    lr: Lr = 1e-3
    beta1: Annotated[Fraction, Field(description="Decay of the first moment.")] = 0.9
    beta2: Annotated[Fraction, Field(description="Decay of the second moment.")] = 0.999
    eps: Eps = 1e-8
    eps_root: Annotated[NotNegative, Field(description="Added under the square root (optax).")] = 0.0
    eps_hat: Annotated[Flag, Field(description="Add eps before the bias correction (Keras).")] = False
    bias_correction: Annotated[Flag, Field(description="Divide the moments by 1 - beta^t.")] = True
    amsgrad: Annotated[Flag, Field(description="Use the largest second moment so far.")] = False
    amsgrad_corrected: Annotated[Flag, Field(description="amsgrad: largest of the corrected moments (optax).")] = False


class Adam(AdamFields):
    """Adaptive moments. Matches torch.optim.Adam; weight decay is L2 in the gradient."""

    summary: ClassVar[str] = "Adaptive moments: a step size of its own for each parameter."
    source: ClassVar[str] = "torch.optim.Adam; Kingma & Ba 2015 (arXiv:1412.6980); amsgrad: Reddi et al. 2018."
    use_when: ClassVar[str] = "The first thing to try."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"eps": 1e-7, "eps_hat": True, "weight_decay_mode": "decoupled"},
        "optax": {"amsgrad_corrected": True},
    }

    name: Literal["adam"] = "adam"
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class AdamW(AdamFields):
    """Adam with decoupled weight decay: w *= 1 - lr·weight_decay, then Adam's step. Matches torch.optim.AdamW."""

    summary: ClassVar[str] = "Adam with weight decay beside the step instead of inside the gradient."
    source: ClassVar[str] = "torch.optim.AdamW; Loshchilov & Hutter 2019 (arXiv:1711.05101)."
    use_when: ClassVar[str] = "Transformers, and wherever Adam needs weight decay."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torch": {},
        "keras": {"eps": 1e-7, "eps_hat": True, "weight_decay": 4e-3},
        "optax": {"amsgrad_corrected": True, "weight_decay": 1e-4},
    }

    name: Literal["adamw"] = "adamw"
    weight_decay: Decay = 1e-2
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


SGD = Sgd

_NESTEROV = {"momentum": 0.9, "nesterov": True}

OPTIMIZERS = Family(
    kind="optimizer",
    built={"sgd": Sgd, "adam": Adam, "adamw": AdamW},
    aliases={
        "gradientdescent": ("sgd", {}),
        "gd": ("sgd", {}),
        "momentum": ("sgd", {"momentum": 0.9}),
        "nag": ("sgd", _NESTEROV),
        "nesterov": ("sgd", _NESTEROV),
        "sgdw": ("sgd", {"weight_decay_mode": "decoupled"}),
        "amsgrad": ("adam", {"amsgrad": True}),
    },
    planned=(
        "adagrad", "rmsprop", "adadelta", "adamax", "adamaxw", "nadam", "nadamw", "radam", "lion", "sign_sgd", "signum",
        "adabelief", "yogi", "adan", "ademamix", "simplified_ademamix", "adopt", "acprop", "ftrl", "rprop", "asgd",
        "madgrad", "cocob", "optimistic_gradient_descent", "optimistic_adam", "noisy_sgd", "fromage", "lamb", "lars",
        "novograd", "adafactor", "muon", "sm3", "shampoo", "soap", "schedule_free_sgd", "schedule_free_adamw",
        "schedule_free_radam", "prodigy", "dadapt_adam", "dadapt_sgd", "dog", "dowg", "polyak_sgd", "momo", "momo_adam",
        "mechanic", "lbfgs", "sparse_adam", "rowwise_adagrad", "rowwise_adam", "fedavgm", "fedadagrad", "fedadam",
        "fedyogi", "diloco",
    ),
    planned_aliases={
        "averagedsgd": "asgd", "sgdschedulefree": "schedule_free_sgd", "adamwschedulefree": "schedule_free_adamw",
        "dadaptadamw": "dadapt_adam", "sps": "polyak_sgd", "ogd": "optimistic_gradient_descent",
        "lazyadam": "sparse_adam", "exactrowwiseadagrad": "rowwise_adagrad", "partialrowwiseadam": "rowwise_adam",
    },
)  # fmt: skip

# What a Keras optimizer's config holds besides hyperparameters, and the value that asks for nothing.
_KERAS_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "useema": (False, None), "emaoverwritefrequency": (None,), "lossscalefactor": (None,),
    "gradientaccumulationsteps": (None,), "decay": (0, None), "clipnorm": (None,), "clipvalue": (None,),
    "globalclipnorm": (None,),
}  # fmt: skip
_KERAS_IGNORED = ("name", "emamomentum", "jitcompile", "islegacyoptimizer")


def read_optimizer(given: Any) -> Any:
    """Shorthand, aliases and Keras' serialised form, into what the union reads. Raises `ValueError`."""
    if isinstance(given, Mapping) and "class_name" in given:
        given = _from_keras(given)
    return OPTIMIZERS.read(given)


def _from_keras(given: Mapping[str, Any]) -> dict[str, Any]:
    """`{"class_name": "Adam", "config": {…}}` with Keras' own defaults."""
    config = given.get("config", {})
    name = given["class_name"]
    extra = set(given) - {"class_name", "config", "module", "registered_name", "build_config", "compile_config"}
    if not isinstance(config, Mapping) or not isinstance(name, str) or extra:
        raise ValueError("expected Keras' form {'class_name': …, 'config': {…}}")
    fields: dict[str, Any] = {"name": name.rpartition(">")[2], "compat": "keras"}
    for key, value in config.items():
        word = key.lower().replace("_", "") if isinstance(key, str) else ""
        if word in _KERAS_IGNORED or value in _KERAS_NEUTRAL.get(word, ()):
            continue
        if word == "decay":
            raise ValueError(f"expected no decay, came {value!r:.80}: send the schedule power with s = 1/decay instead")
        if word in ("useema", "emaoverwritefrequency", "lossscalefactor", "gradientaccumulationsteps"):
            raise ValueError(f"expected {key} unset, came {value!r:.80}: this version does not build it yet")
        fields[key] = value
    return fields


OptimizerSpec = Annotated[
    Annotated[Sgd | Adam | AdamW, Field(discriminator="name")],
    BeforeValidator(read_optimizer),
]
