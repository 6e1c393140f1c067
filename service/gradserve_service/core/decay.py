"""Weight decay beside the rule: the same few lines for every optimizer, at the end of a block, where w ← w - u.

    decoupled      w ← (1 - η λ) w - u                          torch's AdamW, Keras, optax
    independent    w ← (1 - η/η0 λ) w - u                       Loshchilov & Hutter 2019, Algorithm 2 (arXiv:1711.05101)
    corrected      w ← (1 - η²/η0 λ) w - u                      Defazio 2025 (arXiv:2506.02285); timm's corrected decay
    cautious       w ← (1 - η λ [sign u = sign w]) w - u        Chen et al. 2025 (arXiv:2510.12402)
    proximal       w ← (w - u) / (1 + η λ)                      Xie et al. 2022 (arXiv:2208.06677)

λ is the group's weight decay, η the rate of this update as the rule has it (`Rule.decay_rate`, mostly lr) and η0 the
optimizer's base rate, before any schedule; at a base rate of 0 nothing decays. `l2` and `in_update` act on the gradient
and inside the rule: they are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from numpy import add, divide, maximum, multiply, sign, subtract

from .blocks import Array

__all__ = ["Decay", "decay_of", "subtract_change"]


class Decay(NamedTuple):
    """What one update does to the weights of a group beside the rule's change."""

    keep: float = 1.0  # what is left of a weight before the change is subtracted
    divisor: float = 1.0  # and what the rest is divided by after it
    cautious: bool = False  # `keep` is for weights that the change makes smaller; the others stay whole

    @property
    def scratch_blocks(self) -> int:
        """Blocks that `subtract_change` writes on."""
        return 2 if self.cautious else 1 if self.keep != 1.0 else 0


NO_DECAY = Decay()

_MODES: Mapping[str, Callable[[float, float, float], Decay]] = {
    "decoupled": lambda rate, share, decay: Decay(1.0 - rate * decay),
    "independent": lambda rate, share, decay: Decay(1.0 - share * decay),
    "corrected": lambda rate, share, decay: Decay(1.0 - rate * share * decay),
    "cautious": lambda rate, share, decay: Decay(1.0 - rate * decay, cautious=True),
    "proximal": lambda rate, share, decay: Decay(divisor=1.0 + rate * decay),
}


def decay_of(mode: str, rate: float, base: float, decay: float) -> Decay | None:
    """The decay of one update. `rate` is η, `base` η0, `decay` λ; None: nothing decays beside the rule."""
    if mode not in _MODES:
        return None
    found = _MODES[mode](rate, rate / base if base else 0.0, decay)
    return None if found.keep == found.divisor == 1.0 else found


def subtract_change(decay: Decay | None, w: Array, u: Array, a: Sequence[Array]) -> None:
    """Turn the change `u` of a block into its next weights, in place. `a` are scratch blocks of the same length."""
    if decay is None:
        subtract(w, u, u)
        return
    if decay.cautious:
        # The factor is 1 + (keep - 1), which is `keep` again to the bit, or 1 + 0.
        x, y = a[0], a[1]
        maximum(multiply(sign(w, x), sign(u, y), x), 0.0, out=x)
        w = multiply(w, add(multiply(x, decay.keep - 1.0, x), 1.0, x), x)
    elif decay.keep != 1.0:
        w = multiply(w, decay.keep, a[0])
    subtract(w, u, u)
    if decay.divisor != 1.0:
        divide(u, decay.divisor, u)
