"""Steps mixed from several means, or from this direction and the one before. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Count, Flag, Fraction, NotNegative
from .optimizer_fields import BETA_ALIASES, Beta1, Beta2, Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields

EpsRoot = Annotated[NotNegative, Field(description="Added under the square root (optax).")]
Ahead = Annotated[NotNegative, Field(description="Weight of this direction.")]
Back = Annotated[NotNegative, Field(description="Weight of its difference to the direction before.")]


class Adan(OptimizerFields):
    """Adam with Nesterov's look-ahead taken from differences of gradients. Matches the authors' code, not optax."""

    summary: ClassVar[str] = "Adaptive Nesterov momentum: means of gradients and of their differences."
    formula: ClassVar[str] = (
        "d = g - g_prev, 0 at a weight's first gradient; m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) d; "
        "n <- beta3 n + (1 - beta3) (g + beta2 d)²; w -= lr (m / (1 - beta1^t) + beta2 v / (1 - beta2^t)) / "
        "(sqrt(n / (1 - beta3^t)) + eps)."
    )
    source: ClassVar[str] = "The authors' code; Xie et al. 2022 (arXiv:2208.06677)."
    use_when: ClassVar[str] = "Large vision and language models, with rates five to ten times those of AdamW."
    field_aliases: ClassVar[Mapping[str, str]] = {**BETA_ALIASES, "b3": "beta3"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}}

    name: Literal["adan"] = "adan"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.98
    beta2: Annotated[Fraction, Field(description="Decay of the mean difference.")] = 0.92
    beta3: Annotated[Fraction, Field(description="Decay of the second moment.")] = 0.99
    eps: Eps = 1e-8
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class AdEMAMix(OptimizerFields):
    """AdamW with a second, much slower first moment. Matches optax.contrib.ademamix and the authors' warmups."""

    summary: ClassVar[str] = "Adam with two means of gradients, of the last ten and of the last ten thousand."
    formula: ClassVar[str] = (
        "m1 <- beta1 m1 + (1 - beta1) g; m2 <- beta3(t) m2 + (1 - beta3(t)) g; v as Adam; "
        "w -= lr (m1 / (1 - beta1^t) + alpha(t) m2) / (sqrt(v / (1 - beta2^t) + eps_root) + eps). alpha(t) = alpha "
        "min(1, t / alpha_warmup); beta3(t) has a half-life that grows linearly from beta1's to beta3's in "
        "beta3_warmup updates. A warmup of 0 is none."
    )
    source: ClassVar[str] = "optax.contrib.ademamix; Pagliardini et al. 2024 (arXiv:2409.03137), with its warmups."
    use_when: ClassVar[str] = "Long runs of large models: tens of thousands of updates, warmups as long as the run."
    field_aliases: ClassVar[Mapping[str, str]] = {**BETA_ALIASES, "b3": "beta3", "epsilonroot": "eps_root"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["ademamix"] = "ademamix"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    beta3: Annotated[Fraction, Field(description="Decay of the slow first moment.")] = 0.9999
    alpha: Annotated[NotNegative, Field(description="Weight of the slow first moment.")] = 5.0
    alpha_warmup: Annotated[Count, Field(description="Updates in which alpha rises from 0; 0: none.")] = 0
    beta3_warmup: Annotated[Count, Field(description="Updates in which beta3 rises from beta1; 0: none.")] = 0
    eps: Eps = 1e-8
    eps_root: EpsRoot = 0.0
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class SimplifiedAdEMAMix(OptimizerFields):
    """AdEMAMix with one heavy momentum and the gradient itself. Matches optax.contrib.simplified_ademamix."""

    summary: ClassVar[str] = "Heavy-ball momentum and the bare gradient, both over Adam's second moment."
    formula: ClassVar[str] = (
        "m <- beta1 m + g; v <- beta2 v + (1 - beta2) g²; "
        "w -= lr (m + alpha g) / (sqrt(v / (1 - beta2^t) + eps_root) + eps)."
    )
    source: ClassVar[str] = "optax.contrib.simplified_ademamix; Morwani et al. 2025 (arXiv:2502.02431)."
    use_when: ClassVar[str] = "In the place of AdEMAMix with one slot less; lr is that of Adam times 1 - beta1."
    field_aliases: ClassVar[Mapping[str, str]] = {**BETA_ALIASES, "epsilonroot": "eps_root"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["simplified_ademamix"] = "simplified_ademamix"
    lr: Lr = 1e-4
    beta1: Annotated[Fraction, Field(description="Share of the velocity that stays.")] = 0.99
    beta2: Beta2 = 0.95
    alpha: Annotated[NotNegative, Field(description="Weight of the gradient beside the velocity.")] = 0.0
    eps: Eps = 1e-8
    eps_root: EpsRoot = 0.0
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class OptimisticGradientDescent(OptimizerFields):
    """Descent that expects the next gradient to differ as this one did. Matches optax' of the same name."""

    summary: ClassVar[str] = "Gradient descent for games: the last difference of gradients counts once more."
    formula: ClassVar[str] = "w -= lr ((alpha + beta) g - beta g_prev); at the first update g_prev = g."
    source: ClassVar[str] = "optax.optimistic_gradient_descent; Mokhtari et al. 2020 (arXiv:1901.08511)."
    use_when: ClassVar[str] = "Saddle points and adversarial training, where plain descent circles."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}
    other_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ogd": {}}

    name: Literal["optimistic_gradient_descent"] = "optimistic_gradient_descent"
    lr: Lr = 1e-3
    alpha: Ahead = 1.0
    beta: Back = 1.0
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


class OptimisticAdam(OptimizerFields):
    """Adam's direction, taken optimistically. Matches optax.optimistic_adam_v2."""

    summary: ClassVar[str] = "Adam for games: the last difference of its directions counts once more."
    formula: ClassVar[str] = (
        "m, v as Adam; r = n / (sqrt(v / (1 - beta2^t) + eps_root) + eps) with n = m / (1 - beta1^t), or "
        "beta1 m / (1 - beta1^(t+1)) + (1 - beta1) g / (1 - beta1^t) with nesterov; "
        "w -= lr ((alpha + beta) r - beta r_prev); at the first update r_prev = r."
    )
    source: ClassVar[str] = "optax.optimistic_adam_v2; Daskalakis et al. 2018 (arXiv:1711.00141)."
    use_when: ClassVar[str] = "Generative adversarial networks that circle under Adam."
    field_aliases: ClassVar[Mapping[str, str]] = {**BETA_ALIASES, "epsilonroot": "eps_root"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["optimistic_adam"] = "optimistic_adam"
    lr: Lr = 1e-3
    alpha: Ahead = 1.0
    beta: Back = 1.0
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    eps_root: EpsRoot = 0.0
    nesterov: Annotated[Flag, Field(description="Look ahead along the first moment, as optax does.")] = True
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "decoupled"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (
    Adan, AdEMAMix, SimplifiedAdEMAMix, OptimisticGradientDescent, OptimisticAdam,
)  # fmt: skip
