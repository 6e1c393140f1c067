"""Rules that start from an anchor, sum up all gradients, or average all weights. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field

from .base import Flag, Fraction, NotNegative, Positive, Real
from .optimizer_fields import Decay, DecayMode, Lr, Maximize, OptimizerFields


def _a_root(power: float) -> float:
    if power not in (0.0, -0.5, -1.0):
        raise ValueError(f"expected learning_rate_power to be 0, -0.5 or -1, came {power:g}: -0.5 is usual")
    return power


class Ftrl(OptimizerFields):
    """Follow the regularised leader: weights that a strong l1 sets to exactly 0. Matches keras.optimizers.Ftrl at a
    constant lr; under a schedule Keras reads its old sums with the new lr, and all weights are scaled by the ratio.

    With keep_initial the weights that a run begins with are where it starts from; Keras forgets them at the first
    update.
    """

    summary: ClassVar[str] = "Adagrad's rates with l1 and l2 on the sum of all gradients: sparse weights."
    formula: ClassVar[str] = (
        "q(n) = n^(-learning_rate_power); n' = n + g²; z += lr (g + 2 l2_shrinkage w) - (q(n') - q(n)) w; n <- n'; "
        "w <- (min(max(z, -base l1), base l1) - z) / (q(n) + beta + 2 base l2), base: the optimizer's lr, before any "
        "schedule. keep_initial: z starts at -w (q(n) + beta + 2 base l2), at 0 without it."
    )
    source: ClassVar[str] = "keras.optimizers.Ftrl, at a constant lr; McMahan et al. 2013."
    use_when: ClassVar[str] = "Wide linear models with sparse features, where most weights shall be 0."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, "l1regularizationstrength": "l1", "l2regularizationstrength": "l2",
        "l2shrinkageregularizationstrength": "l2_shrinkage", "initialaccumulator": "initial_accumulator_value",
        "lrpower": "learning_rate_power",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "keras": {"keep_initial": False}}

    name: Literal["ftrl"] = "ftrl"
    lr: Lr = 1e-3
    learning_rate_power: Annotated[
        Real, AfterValidator(_a_root), Field(description="0, -0.5 (a root, as in Adagrad) or -1.")
    ] = -0.5
    initial_accumulator_value: Annotated[NotNegative, Field(description="What n starts at.")] = 0.1
    l1: Annotated[NotNegative, Field(description="Pulls to 0, and holds there.")] = 0.0
    l2: Annotated[NotNegative, Field(description="Shrinks.")] = 0.0
    l2_shrinkage: Annotated[NotNegative, Field(description="L2 in the gradient, but not in n.")] = 0.0
    beta: Annotated[NotNegative, Field(description="Added to the root of n.")] = 0.0
    keep_initial: Annotated[Flag, Field(description="Start from the run's weights; false: from 0 (Keras).")] = True
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class Madgrad(OptimizerFields):
    """Dual averaging with the cube root of the sum of squares. Matches optax.contrib.madgrad."""

    summary: ClassVar[str] = "Each step from the first weights, along all gradients so far; an average follows."
    formula: ClassVar[str] = (
        "k = (lr + eps) sqrt(t); G += k g²; S += k g; z = w0 - S / (cbrt(G) + eps); "
        "w <- momentum w + (1 - momentum) z. w0 is what w was at its first gradient."
    )
    source: ClassVar[str] = "optax.contrib.madgrad; Defazio & Jelassi 2022 (arXiv:2101.11075)."
    use_when: ClassVar[str] = "Sparse gradients and vision; with less weight decay than SGD and another lr than Adam's."
    field_aliases: ClassVar[Mapping[str, str]] = {**OptimizerFields.field_aliases, "mu": "momentum"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["madgrad"] = "madgrad"
    lr: Lr = 1e-2
    momentum: Annotated[Fraction, Field(description="Share of the weights that stays.")] = 0.9
    eps: Annotated[NotNegative, Field(description="Added to the cube root, and to lr.")] = 1e-6
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class Cocob(OptimizerFields):
    """Bets on each weight with the coins won so far: no learning rate. Matches optax.contrib.cocob."""

    summary: ClassVar[str] = "Coin betting: each weight stakes a share of what its gradients have won."
    formula: ClassVar[str] = (
        "g = lr gradient; L <- max(L, |g|); G += |g|; R <- max(R - g (w - w0), 0); C -= g; "
        "w <- w0 + C (L + R) / (L max(G + L, alpha L)). w0 is what w was at its first gradient; L starts at eps."
    )
    source: ClassVar[str] = "optax.contrib.cocob; Orabona & Tommasi 2017 (arXiv:1705.07795)."
    use_when: ClassVar[str] = "Where no rate shall be tuned; it keeps five vectors."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["cocob"] = "cocob"
    lr: Annotated[NotNegative, Field(description="Factor of the gradient: 1 is the paper's.")] = 1.0
    alpha: Annotated[Positive, Field(description="How carefully the first bets are made.")] = 100.0
    eps: Annotated[Positive, Field(description="What the largest gradient starts at.")] = 1e-8
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class Asgd(OptimizerFields):
    """Gradient descent with a falling rate, and the average of its weights. Matches torch.optim.ASGD at a constant lr.

    The average is the slot `ax` of the optimizer's state.
    """

    summary: ClassVar[str] = "Gradient descent whose average converges as fast as any method can."
    formula: ClassVar[str] = (
        "e = lr / (1 + lambd lr (t - 1))^alpha; w <- w - lambd e w - e g; "
        "ax += (w - ax) / max(1, t - 1 - t0): ax is w until t0."
    )
    source: ClassVar[str] = "torch.optim.ASGD; Polyak & Juditsky 1992; the rate: Bottou, Xu 2011 (arXiv:1107.2490)."
    use_when: ClassVar[str] = "Convex problems, with t0 where the weights begin to hover around the optimum."
    field_aliases: ClassVar[Mapping[str, str]] = {**OptimizerFields.field_aliases, "lambda": "lambd"}
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"averagedsgd": {}}

    name: Literal["asgd"] = "asgd"
    lr: Lr = 1e-2
    lambd: Annotated[NotNegative, Field(description="Decay of the weights, and of the rate.")] = 1e-4
    alpha: Annotated[NotNegative, Field(description="Power of the rate's fall.")] = 0.75
    t0: Annotated[NotNegative, Field(description="Update after which averaging begins.")] = 1e6
    weight_decay: Decay = 0.0
    weight_decay_mode: Annotated[Literal["l2"], Field(description="l2: g += wd·w before the rule.")] = "l2"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Ftrl, Madgrad, Cocob, Asgd)
