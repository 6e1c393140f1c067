"""Adam with another second moment, or one that is trusted in another way. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Flag, NotNegative
from .optimizer_fields import BETA_ALIASES, Beta1, Beta2, Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields

EpsRoot = Annotated[NotNegative, Field(description="Added to the variance at every update, and kept in it.")]


class RAdam(OptimizerFields):
    """Adam whose step is rectified while the second moment has seen too little. Matches torch.optim.RAdam."""

    summary: ClassVar[str] = "Adam that warms up by itself: momentum alone until the second moment can be trusted."
    formula: ClassVar[str] = (
        "m, v as Adam; q = 2 / (1 - beta2) - 1; p = q - 2 t beta2^t / (1 - beta2^t); p > 5: "
        "r = sqrt((p - 4) (p - 2) q / ((q - 4) (q - 2) p)), "
        "w -= lr r m / (1 - beta1^t) sqrt(1 - beta2^t) / (sqrt(v) + eps); else w -= lr m / (1 - beta1^t). "
        "eps_hat false: r m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)."
    )
    source: ClassVar[str] = "torch.optim.RAdam; Liu et al. 2020 (arXiv:1908.03265)."
    use_when: ClassVar[str] = "Where Adam needs a warmup, and nobody wants to tune one."
    field_aliases: ClassVar[Mapping[str, str]] = BETA_ALIASES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {"eps_hat": False}}

    name: Literal["radam"] = "radam"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    eps_hat: Annotated[Flag, Field(description="Add eps before the bias correction (torch); false: after it.")] = True
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class AdaBelief(OptimizerFields):
    """Adam with the variance of the gradient around its mean. Matches optax.adabelief and the authors' code."""

    summary: ClassVar[str] = "Long steps where gradients are as expected, short ones where they surprise."
    formula: ClassVar[str] = (
        "m <- beta1 m + (1 - beta1) g; s <- beta2 s + (1 - beta2) (g - m)² + eps_root; "
        "w -= lr (m / (1 - beta1^t)) / (sqrt(s / (1 - beta2^t)) + eps)."
    )
    source: ClassVar[str] = "optax.adabelief; the authors' code without rectify; Zhuang et al. 2020 (arXiv:2010.07468)."
    use_when: ClassVar[str] = "Convolutional networks and GANs, where Adam is fast and generalises less well than SGD."
    field_aliases: ClassVar[Mapping[str, str]] = {**BETA_ALIASES, "epsilonroot": "eps_root"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["adabelief"] = "adabelief"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Annotated[Beta2, Field(description="Decay of the variance.")] = 0.999
    eps: Eps = 1e-16
    eps_root: EpsRoot = 1e-16
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class Yogi(OptimizerFields):
    """Adam whose second moment grows and falls by steps of g², never faster. Matches optax.yogi."""

    summary: ClassVar[str] = "Adam with a second moment that forgets additively: a burst does not raise the rate later."
    formula: ClassVar[str] = (
        "m <- beta1 m + (1 - beta1) g; v <- v - (1 - beta2) sign(v - g²) g²; "
        "w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps); both moments without their corrections when "
        "bias_correction is false."
    )
    source: ClassVar[str] = (
        "optax.yogi; Zaheer et al. 2018; fedyogi: Reddi et al. 2021 (arXiv:2003.00295), Algorithm 2."
    )
    use_when: ClassVar[str] = "Sparse or bursty gradients; as fedyogi for the mean change that clients send."
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fedyogi": {"lr": 0.1, "beta2": 0.99, "bias_correction": False},
    }
    field_aliases: ClassVar[Mapping[str, str]] = {
        **BETA_ALIASES, "tau": "eps", "initialaccumulator": "initial_accumulator_value", "debias": "bias_correction",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {"initial_moment_value": 1e-6}}

    name: Literal["yogi"] = "yogi"
    lr: Lr = 1e-2
    beta1: Beta1 = 0.9
    beta2: Annotated[Beta2, Field(description="1 - beta2 is the step of the second moment.")] = 0.999
    eps: Eps = 1e-3
    bias_correction: Annotated[Flag, Field(description="Divide the moments by 1 - beta^t.")] = True
    initial_accumulator_value: Annotated[NotNegative, Field(description="What the second moment starts at.")] = 1e-6
    initial_moment_value: Annotated[NotNegative, Field(description="What the first starts at: 1e-6 in optax.")] = 0.0
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class AcProp(OptimizerFields):
    """Gradients over the deviation that was known before they came. Matches optax.contrib.acprop."""

    summary: ClassVar[str] = "AdaBelief's variance, one update late, under the bare gradient: unbiased steps."
    formula: ClassVar[str] = (
        "w -= lr g / (sqrt(s / (1 - beta2^(t-1))) + eps), at a weight's first gradient lr g / (1 + eps); "
        "then s <- beta2 s + (1 - beta2) (g - m)² + eps_root; then m <- beta1 m + (1 - beta1) g."
    )
    source: ClassVar[str] = "optax.contrib.acprop; Zhuang et al. 2021 (arXiv:2110.05454)."
    use_when: ClassVar[str] = "Where AdaBelief works and a convergence proof for stochastic gradients is wanted."
    field_aliases: ClassVar[Mapping[str, str]] = {**BETA_ALIASES, "epsilonroot": "eps_root"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["acprop"] = "acprop"
    lr: Lr = 1e-3
    beta1: Annotated[Beta1, Field(description="Decay of the mean that the variance is around.")] = 0.9
    beta2: Annotated[Beta2, Field(description="Decay of the variance.")] = 0.999
    eps: Eps = 1e-16
    eps_root: EpsRoot = 1e-16
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class Adopt(OptimizerFields):
    """Adam with the second moment of the update before, normalised before the mean. Matches optax.contrib.adopt."""

    summary: ClassVar[str] = "Adam that converges with any beta2: the gradient is not part of what it is divided by."
    formula: ClassVar[str] = (
        "a weight's first gradient: v <- g², no move. Then x = g / max(sqrt(v), eps), kept within ± (t-1)^(1/4) with "
        "clip_updates; m <- beta1 m + (1 - beta1) x; w -= lr m; v <- beta2 v + (1 - beta2) g²."
    )
    source: ClassVar[str] = "optax.contrib.adopt; Taniguchi et al. 2024 (arXiv:2411.02853)."
    use_when: ClassVar[str] = "In the place of Adam where its beta2 is hard to find; usual values fit."
    field_aliases: ClassVar[Mapping[str, str]] = {**BETA_ALIASES, "useclipping": "clip_updates"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["adopt"] = "adopt"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.9999
    eps: Annotated[NotNegative, Field(description="Smallest denominator.")] = 1e-6
    clip_updates: Annotated[Flag, Field(description="Keep normalised gradients within ± (t-1)^(1/4).")] = True
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (RAdam, AdaBelief, Yogi, AcProp, Adopt)
