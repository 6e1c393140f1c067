"""Accumulation and gradients that are no numbers: how many pushes make an update, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .base import Flag, Positive, Spec

# No sum of a batch leaves float32: 1,025 pushes x 2^53 samples x 1.8e19, the largest element that is taken, is 1.7e38.
PUSHES_MAX: Final = 1_024
SAMPLES_MAX: Final = 2**53
SAMPLES_MIN: Final = 2.0**-20  # of a push in a batch: n g must not vanish in float32
CONSECUTIVE_MAX: Final = 1_000_000

NON_FINITE: Final = ("reject", "skip", "zero")


class Accumulate(Spec):
    """Several pushes make one update, with the mean of their gradients weighted by their samples."""

    summary: ClassVar[str] = "Large batches out of small ones, of one worker or of many."
    formula: ClassVar[str] = "g = sum(n_i g_i) / sum(n_i), by tensor, over the pushes that brought it"
    source: ClassVar[str] = "Nguyen et al. 2022 (FedBuff, arXiv:2106.06639); optax.MultiSteps; Keras' accumulation."
    use_when: ClassVar[str] = "The batch that is wanted does not fit into one worker's memory."

    samples: Annotated[
        Positive | None, Field(le=SAMPLES_MAX, description="The push with which the batch has so many, completes it.")
    ] = None
    pushes: Annotated[
        int | None,
        Field(strict=True, ge=1, le=PUSHES_MAX, description="The push with which the batch has so many, completes it."),
    ] = None
    clip_each: Annotated[Flag, Field(description="Clip each push instead of their mean.")] = False

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.samples is None) == (self.pushes is None):
            came = "neither" if self.samples is None else "both"
            raise ValueError(f"expected a target, samples or pushes, came {came}: send one of them")
        return self

    @property
    def target(self) -> dict[str, float]:
        """What completes a batch, in the words of the spec."""
        if self.pushes is not None:
            return {"pushes": self.pushes}
        assert self.samples is not None
        return {"samples": self.samples}


class NonFinite(Spec):
    """What becomes of a gradient with NaN, infinity, or a number whose square float32 cannot hold.

    `reject` refuses it; `skip` uses up its sequence without an update; `zero` puts 0 in the place of what is no number.
    With `max_consecutive` so many of them in a row pause the run. The name of a policy alone stands for it.
    """

    policy: Literal["reject", "skip", "zero"] = "reject"
    max_consecutive: Annotated[
        int | None,
        Field(strict=True, ge=1, le=CONSECUTIVE_MAX, description="So many in a row pause the run; null: never."),
    ] = None

    @model_validator(mode="after")
    def _counted_are_journaled(self) -> Self:
        if self.policy == "reject" and self.max_consecutive is not None:
            raise ValueError("expected max_consecutive with skip or zero, came with reject: a refusal leaves no trace")
        return self

    @model_serializer(mode="wrap")
    def _by_name(self, dump: SerializerFunctionWrapHandler) -> Any:
        return dump(self) if self.max_consecutive is not None else self.policy


def _policy(given: Any) -> Any:
    """A policy by its name, or whole."""
    if isinstance(given, NonFinite | Mapping):
        return given
    if given not in NON_FINITE:
        raise ValueError(f"expected one of {', '.join(NON_FINITE)}, or an object with policy, came {given!r:.80}")
    return NonFinite(policy=given)


NonFinitePolicy = Annotated[
    NonFinite,
    BeforeValidator(_policy, json_schema_input_type=NonFinite | Literal["reject", "skip", "zero"]),
    Field(description="A gradient with NaN or Infinity: refuse it, leave it out, or put zeros there."),
]
