"""What every optimizer's declaration has in common: fields, presets, and spellings that stand for a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from .base import Flag, Fraction, NotNegative, Spec, folded
from .clips import ClipSpec

Lr = Annotated[NotNegative, Field(description="Base learning rate; the schedule scales it.")]
Eps = Annotated[NotNegative, Field(description="Added to the denominator.")]
Decay = Annotated[NotNegative, Field(description="Weight decay; 0 is none.")]
Beta1 = Annotated[Fraction, Field(description="Decay of the first moment.")]
Beta2 = Annotated[Fraction, Field(description="Decay of the second moment.")]
Beside = Literal["decoupled", "independent", "corrected", "cautious", "proximal"]
BESIDE = (
    "decoupled: w *= 1 - lr·wd. independent: w *= 1 - lr/base·wd, base being the optimizer's lr before any schedule. "
    "corrected: w *= 1 - lr²/base·wd. cautious: decoupled, but only of weights that the change makes smaller. "
    "proximal: w /= 1 + lr·wd after the change."
)
DecayMode = Annotated[Literal["l2", Beside], Field(description=f"l2: g += wd·w before the rule. {BESIDE}")]
Maximize = Annotated[Flag, Field(description="Climb instead of descending: the gradient's sign is turned.")]


# How torch computes, not what: `optimizer.defaults` holds them beside the hyperparameters.
_TORCH_SWITCHES = ("foreach", "fused", "capturable", "differentiable")


class OptimizerFields(Spec):
    """What every optimizer reads beside its own fields.

    `compat` ("torch", "keras" or "optax") is read and not kept: it changes the defaults of this one declaration.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}}
    needs_loss: ClassVar[bool] = False  # each push has to name its loss
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # folded → the fields that the name stands for
    field_aliases: ClassVar[Mapping[str, str]] = {"learningrate": "lr", "epsilon": "eps"}

    if TYPE_CHECKING:  # each declares its own, with its defaults
        name: Any = ""
        lr: float = 0.0
        weight_decay: float = 0.0
        weight_decay_mode: Any = "l2"
        maximize: bool = False

    def __init__(self, *lr: Any, **fields: Any) -> None:
        if len(lr) > 1:
            raise TypeError(f"{type(self).__name__} takes lr alone without its name, then fields by name: …, eps=1e-8")
        if lr and any(self.field_aliases.get(folded(name), name) == "lr" for name in fields):
            raise TypeError(f"{type(self).__name__}: expected lr once, it came by place and by name")
        super().__init__(**({"lr": lr[0]} if lr else {}), **fields)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @property
    def stages(self) -> tuple[ClipSpec, ...]:
        """Stages of `clip` that belong to the rule: they follow the run's own."""
        return ()

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
            if word in _TORCH_SWITCHES:
                continue
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


BETA_ALIASES: Mapping[str, str] = {**OptimizerFields.field_aliases, "b1": "beta1", "b2": "beta2"}


def folded_is(key: object, word: str) -> bool:
    """Whether a field as it was written is this word."""
    return isinstance(key, str) and folded(key) == word


def _put(fields: dict[str, Any], key: str, value: Any) -> None:
    if key in fields:
        raise ValueError(f"expected {key} once, it came under two spellings: send one")
    fields[key] = value
