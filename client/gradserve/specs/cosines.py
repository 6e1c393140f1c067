"""Schedules that rise and fall along lines and cosines. Legend: `schedules.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .base import Count, Flag, Fraction, NotNegative, Positive, Real, folded
from .schedule_fields import ScheduleFields, Steps


class WarmupCosine(ScheduleFields):
    """A linear warmup to the optimizer's lr, then half a cosine down to `end`, then `end`."""

    summary: ClassVar[str] = "Linear warmup, then half a cosine down."
    formula: ClassVar[str] = (
        "k < W: start + (lr - start) (k + warmup_offset) / W; "
        "else end + (lr - end) (1 + cos(pi min(k - W, T - W) / (T - W))) / 2, W = warmup_steps, T = total_steps"
    )
    source: ClassVar[str] = "Loshchilov & Hutter 2017 (arXiv:1608.03983); optax.warmup_cosine_decay_schedule."
    use_when: ClassVar[str] = "Transformers, and any run whose length is known."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "numwarmupsteps": "warmup_steps", "numtrainingsteps": "total_steps", "tmax": "total_steps", "etamin": "end",
        "endvalue": "end", "minlr": "end", "endlearningrate": "end", "initvalue": "start", "firststep": "warmup_offset",
    }  # fmt: skip

    name: Literal["warmup_cosine"] = "warmup_cosine"
    warmup_steps: Annotated[Count, Field(description="W: updates of the warmup; 0 is none.")]
    total_steps: Annotated[Count, Field(description="T: updates of the whole schedule, the warmup included.")]
    start: Annotated[NotNegative, Field(description="Learning rate that the warmup starts from.")] = 0.0
    end: Annotated[NotNegative, Field(description="Learning rate at the end and after it.")] = 0.0
    warmup_offset: Annotated[
        int,
        Field(strict=True, ge=0, le=1, description="1: the first update already takes the first step up from start."),
    ] = 0

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Spec.canonical_fields`; decay_steps is refused, for it means two things."""
        if any(isinstance(key, str) and folded(key) == "decaysteps" for key in given):
            raise ValueError(
                "expected total_steps, came decay_steps, which counts the warmup in one library and not in another: "
                "send total_steps, the warmup included"
            )
        return super().canonical_fields(given)

    @model_validator(mode="after")
    def _something_to_decay(self) -> Self:
        if self.total_steps <= self.warmup_steps:
            raise ValueError(
                f"expected total_steps > warmup_steps (the total includes the warmup), "
                f"came {self.total_steps} and {self.warmup_steps}"
            )
        return self


class Cosine(ScheduleFields):
    """Half a cosine from lr down to end; then it holds the end, or climbs again."""

    summary: ClassVar[str] = "Half a cosine down: slow at both ends."
    formula: ClassVar[str] = (
        "end + (lr - end) ((1 + cos(pi j / N)) / 2)^exponent, N = total_steps, j = min(k, N); after bounce: j = k"
    )
    source: ClassVar[str] = (
        "Loshchilov & Hutter 2017 (arXiv:1608.03983); Keras' CosineDecay and optax.cosine_decay_schedule hold, "
        "torch's CosineAnnealingLR bounces."
    )
    use_when: ClassVar[str] = "Any run whose length is known and that needs no warmup."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "tmax": "total_steps", "decaysteps": "total_steps", "numtrainingsteps": "total_steps", "etamin": "end",
        "endvalue": "end", "minlr": "end", "endlearningrate": "end", "alpha": "end_factor",
    }  # fmt: skip

    name: Literal["cosine"] = "cosine"
    total_steps: Annotated[Steps, Field(description="N: updates from lr to end.")]
    end: Annotated[NotNegative, Field(description="Learning rate at k = N.")] = 0.0
    end_factor: Annotated[
        NotNegative | None, Field(description="The same as a share of lr: Keras' and optax' alpha.")
    ] = None
    exponent: Annotated[Positive, Field(description="Above 1 it falls earlier.")] = 1.0
    after: Annotated[
        Literal["hold", "bounce"], Field(description="After k = N: hold the end, or climb again (torch).")
    ] = "hold"

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.end_factor is not None and self.end != 0:
            raise ValueError("expected end or end_factor, came both: send one")
        return self


class OneCycle(ScheduleFields):
    """Up to max_lr, down again, and down by orders of magnitude; the momentum goes the other way."""

    summary: ClassVar[str] = "One rise to a large rate and one long fall, momentum the other way round."
    formula: ClassVar[str] = (
        "a = max_lr / div_factor, z = a / final_div_factor, N = total_steps, p = pct_start. "
        "torch: a to max_lr until k = p N - 1, to z at k = N - 1; three_phase: to a at k = 2 p N - 2, to z at N - 1; "
        "momentum max, base, max(, max). geron: L = floor(N / 10) + 1, H = floor((N - L) / 2); a to max_lr at k = H, "
        "to a at k = 2 H, to z at k = N, all lines; momentum max, base, max, max. Then z holds."
    )
    source: ClassVar[str] = (
        "Smith 2018 (arXiv:1803.09820); torch.optim.lr_scheduler.OneCycleLR; Géron, Hands-On Machine Learning, ch. 11."
    )
    use_when: ClassVar[str] = "Short trainings at high rates, with SGD and momentum above all."
    field_aliases: ClassVar[Mapping[str, str]] = {
        "anneal": "anneal_strategy", "peakvalue": "max_lr", "transitionsteps": "total_steps",
    }  # fmt: skip

    name: Literal["one_cycle"] = "one_cycle"
    style: Annotated[
        Literal["torch", "geron"],
        Field(description="geron: three lines as in the book; div_factor is then 10, final_div_factor 1000."),
    ] = "torch"
    total_steps: Annotated[Steps, Field(description="N: updates of the whole cycle.")]
    max_lr: Annotated[Positive | None, Field(description="The peak; null: the optimizer's lr.")] = None
    pct_start: Annotated[Real, Field(ge=0, le=1, description="p: share of the updates that rise (torch).")] = 0.3
    anneal_strategy: Annotated[Literal["cos", "linear"], Field(description="Form of the phases (torch).")] = "cos"
    three_phase: Annotated[Flag, Field(description="Fall back to the first rate before the last fall (torch).")] = False
    div_factor: Annotated[Positive, Field(description="The cycle starts at max_lr / div_factor.")] = 25.0
    final_div_factor: Annotated[Positive, Field(description="It ends at that rate / final_div_factor.")] = 1e4
    cycle_momentum: Annotated[Flag, Field(description="Move momentum or beta1 too, where the optimizer has one.")] = (
        True
    )
    base_momentum: Annotated[Fraction, Field(description="Momentum at the peak of lr.")] = 0.85
    max_momentum: Annotated[Fraction, Field(description="Momentum at the start and at the end.")] = 0.95

    @classmethod
    def canonical_fields(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Spec.canonical_fields`, with the book's factors for its style."""
        fields = super().canonical_fields(given)
        if fields.get("style") == "geron":
            return {"div_factor": 10.0, "final_div_factor": 1e3, **fields}
        return fields

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.style == "torch" and self.three_phase and self.pct_start > 0.5:
            raise ValueError(
                f"expected pct_start ≤ 0.5 with three_phase, came {self.pct_start:g}: falling takes as long as rising"
            )
        return self
