"""Step sizes found while training, from the way that was made: no learning rate. Legend: `optimizers.py`; ‖·‖ is over
the whole run, w0 what training began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .base import Positive
from .optimizer_fields import Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields


class Dog(OptimizerFields):
    """The largest distance from the start over the root of all squared gradients. Matches optax.contrib.dog."""

    summary: ClassVar[str] = "SGD without a rate: steps as long as the way made so far, over the gradients so far."
    formula: ClassVar[str] = (
        "R <- max(R, ‖w - w0‖); G += ‖g‖²; w -= lr R / sqrt(G + eps) g. R starts at initial_distance, or at "
        "reps_rel (1 + ‖w0‖)."
    )
    source: ClassVar[str] = "optax.contrib.dog; Ivgi et al. 2023 (arXiv:2302.12022)."
    use_when: ClassVar[str] = "Fine-tuning without a search for the rate; evaluate at an average of the weights."
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["dog"] = "dog"
    lr: Annotated[Lr, Field(description="Factor of the rate that is found; the schedule scales it.")] = 1.0
    reps_rel: Annotated[
        Positive, Field(description="First distance for a run of norm 0; 1e-4 with batch normalisation.")
    ] = 1e-6
    initial_distance: Annotated[Positive | None, Field(description="First distance; null: reps_rel (1 + ‖w0‖).")] = None
    eps: Eps = 1e-8
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class Dowg(OptimizerFields):
    """DoG with gradients weighted by the distance at which they came. Matches optax.contrib.dowg."""

    summary: ClassVar[str] = "DoG that forgets the gradients from near the start: longer steps later on."
    formula: ClassVar[str] = (
        "R <- max(R, ‖w - w0‖²); G += R ‖g‖²; w -= lr R / (sqrt(G) + eps) g. R starts at initial_squared_distance, or "
        "at eps."
    )
    source: ClassVar[str] = "optax.contrib.dowg; Khaled et al. 2023 (arXiv:2305.16284)."
    use_when: ClassVar[str] = "As dog, where its steps become too short; evaluate at an average of the weights."
    field_aliases: ClassVar[Mapping[str, str]] = {
        **OptimizerFields.field_aliases, "initestimsqdist": "initial_squared_distance",
    }  # fmt: skip
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"torch": {}, "optax": {}}

    name: Literal["dowg"] = "dowg"
    lr: Annotated[Lr, Field(description="Factor of the rate that is found; the schedule scales it.")] = 1.0
    initial_squared_distance: Annotated[
        Positive | None, Field(description="First guess of the squared distance to the solution; null: eps.")
    ] = None
    eps: Annotated[Eps, Field(description="Added to the root, and the first squared distance.")] = 1e-4
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (Dog, Dowg)
