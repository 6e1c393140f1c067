"""Compare the optimizers and schedules with torch, Keras and optax; write docs/parity.md.

    python scripts/parity.py [--draws 4] [--output docs/parity.md]
    python scripts/parity.py --only adam lamb       # their rows alone, printed

Needs the environment of `scripts/references.py`. Each row is a number of draws of random hyperparameters; each draw is
100 updates of three tensors of rank 1 to 3 with gradients of very different sizes and a learning rate that changes at
every update. A figure is the largest difference of any weight after any update, over the largest distance that any
weight has moved, the worst of all draws.

Ends with status 1 where a bound is not held, or where a preset differs from what its library's constructor says.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import reference_rates
import references
from cases import FAMILIES
from cases.draws import Draw

from gradserve.specs import OPTIMIZERS, ReduceOnPlateau, RunSpec
from gradserve_service.core.plateau import PlateauState, after_report, rate
from gradserve_service.core.schedules import resolve

ROOT = Path(__file__).parent.parent
UPDATES = 100
SHAPES = [[7], [5, 3], [2, 3, 4]]
OTHER_SHAPES = {name: x for family in FAMILIES.values() for name, x in getattr(family, "SHAPES", {}).items()}
BOUNDS = {"float64": 1e-11, "float32": 1e-5}
RATES = 500  # updates of each schedule; all of them end before

# Where a reference is less exact than it is asked to be: its bound in float64, by optimizer and reference.
OTHER_BOUNDS = {
    ("madgrad", "optax"): 1e-7,  # float32: the root of the count, there
    **{row: bound for family in FAMILIES.values() for row, bound in getattr(family, "BOUNDS", {}).items()},
}
LR_READ_LATE = ("rprop", "asgd", "ftrl")  # by the reference, an update late or for its sums too: at a constant rate
ROWS = [row for family in FAMILIES.values() for row in family.ROWS]

# --------------------------------------------------------------------------------------------------- optimizers


def our_weights(spec: Any, shapes: Any, start: Any, gradients: Any, lrs: Any, dtype: str) -> Iterator[Any]:
    """The weights of the service's arithmetic after each update."""
    sys.path.insert(0, str(ROOT / "tests"))
    from core.running import Updates, tensors_of

    run = Updates(spec, start.astype(dtype), layout=tensors_of(shapes))
    for k, (gradient, lr) in enumerate(zip(gradients, lrs, strict=True)):
        run.step(gradient, float(lr), loss=references.loss_at(k))
        yield run.weights


def compare(name: str, reference: str, draw: Draw, seed: int, dtype: str) -> tuple[float, float, float]:
    """Largest difference over distance moved: ours to theirs; ours and theirs to our own float64."""
    random = np.random.default_rng([seed, len(name)])
    optimizer = {"name": name, **draw(random)}
    if reference in OPTIMIZERS.built[name].presets:
        optimizer["compat"] = reference
    spec: Any = RunSpec.model_validate({"optimizer": optimizer}).optimizer
    shapes = OTHER_SHAPES.get(name, SHAPES)
    size = sum(math.prod(shape) for shape in shapes)
    start = (0.1 * random.standard_normal(size)).astype(np.float32).astype(np.float64)
    gradients = random.standard_normal((UPDATES, size)) * np.exp(random.standard_normal((UPDATES, size)))
    gradients = gradients.astype(np.float32).astype(np.float64)
    lrs = (spec.lr * (1 + 0.9 * np.cos(np.arange(UPDATES) / 7))).astype(np.float32).astype(np.float64)
    if name in LR_READ_LATE:
        lrs[:] = spec.lr
    ours, exact = (
        np.array(list(our_weights(spec, shapes, start, gradients, lrs, kind))) for kind in (dtype, "float64")
    )
    theirs = np.array(list(references.WEIGHTS[reference](spec.model_dump(), shapes, start, gradients, lrs, dtype)))
    assert ours.dtype == theirs.dtype == dtype
    moved = np.abs(exact - start).max()
    return tuple(float(np.abs(a - b).max() / moved) for a, b in ((ours, theirs), (ours, exact), (theirs, exact)))  # type: ignore[return-value]


def optimizer_rows(count: int, only: Sequence[str] = ()) -> Iterator[tuple[str, bool]]:
    """The table's rows, and whether the bounds hold."""
    for name, form, reference, draw in ROWS:
        if only and name not in only:
            continue
        worst = {
            dtype: np.max([compare(name, reference, draw, seed, dtype) for seed in range(count)], axis=0)
            for dtype in BOUNDS
        }
        double, single = worst["float64"], worst["float32"]
        theirs = single[1] <= BOUNDS["float32"] and 2 * single[1] <= single[2]  # it is they who are less exact
        held = double[0] <= OTHER_BOUNDS.get((name, reference), BOUNDS["float64"]) and (
            single[0] <= BOUNDS["float32"] or theirs
        )
        figures = " | ".join(f"{x:.1e}" for x in (double[0], *single))
        yield f"| `{name}` | {form} | {reference} | {figures} |", held


def preset_differences() -> list[str]:
    """Where a preset is not what the library's constructor says."""
    wrong = []
    for reference in references.NAMES:
        for name in references.NAMES[reference]:
            spec: Any = RunSpec.model_validate({"optimizer": {"name": name, "compat": reference}}).optimizer
            for field, theirs in references.constructor_defaults(reference, name).items():
                if getattr(spec, field) != theirs:
                    wrong.append(f"{reference} {name}.{field}: {theirs} there, {getattr(spec, field)} here")
    return wrong


# ---------------------------------------------------------------------------------------------------- schedules

LR = 0.3
TORCH_CYCLES = [
    {"total_steps": total, "max_lr": LR, "anneal_strategy": anneal, "three_phase": phases}
    for total in (10, 97, 120, 121) for anneal in ("cos", "linear") for phases in (False, True)
]  # fmt: skip


def schedule_cases() -> Iterator[tuple[dict[str, Any], str, float, list[Any]]]:
    """Our schedule, the reference, the bound on the difference over lr, and the reference's rates from k = 0 on."""
    t, k, o = reference_rates.torch_rates, reference_rates.keras_rates, reference_rates.optax_rates
    exact, single = 1e-12, 2e-7
    initial = {"initial_learning_rate": LR}
    yield {"name": "ExponentialLR", "gamma": 0.98}, "torch", exact, t("ExponentialLR", LR, RATES, gamma=0.98)
    for stairs in (False, True):
        given = {"decay_rate": 0.7, "decay_steps": 30, "staircase": stairs}
        yield {"name": "ExponentialDecay", **given}, "keras", single, k("ExponentialDecay", RATES, **initial, **given)
        yield {"name": "InverseTimeDecay", **given}, "keras", single, k("InverseTimeDecay", RATES, **initial, **given)
        given = {"decay_rate": 0.7, "transition_steps": 30, "transition_begin": 20, "end_value": 0.02}
        rates = o("exponential_decay", RATES, init_value=LR, staircase=stairs, **given)
        yield {"name": "exponential", "staircase": stairs, **given}, "optax", exact, rates
    grows = {"decay_rate": 1.5, "transition_steps": 30, "end_value": 9.0}
    yield {"name": "exponential", **grows}, "optax", exact, o("exponential_decay", RATES, init_value=LR, **grows)
    yield (
        {"name": "StepLR", "step_size": 30, "gamma": 0.5},
        "torch",
        exact,
        t("StepLR", LR, RATES, step_size=30, gamma=0.5),
    )
    steps = {"boundaries": [3, 30, 200], "values": [LR, 0.1, 0.2, 0.01]}
    yield {"name": "PiecewiseConstantDecay", **steps}, "keras", single, k("PiecewiseConstantDecay", RATES, **steps)
    rates = o("join_schedules", RATES, schedules=[lambda _, v=v: v for v in steps["values"]], boundaries=[3, 30, 200])
    yield {"name": "piecewise_constant", **steps}, "optax", exact, rates
    yield (
        {"name": "PolynomialLR", "total_iters": 90, "power": 0.9},
        "torch",
        exact,
        t("PolynomialLR", LR, RATES, total_iters=90, power=0.9),
    )
    for cycle in (False, True):
        given = {"decay_steps": 90, "power": 2.0, "cycle": cycle}
        rates = k("PolynomialDecay", RATES, **initial, end_learning_rate=0.01, **given)
        yield {"name": "PolynomialDecay", "end": 0.01, **given}, "keras", single, rates
    rates = o(
        "polynomial_schedule", RATES, init_value=LR, end_value=0.01, power=3, transition_steps=90, transition_begin=9
    )
    yield {"name": "polynomial", "total_steps": 90, "power": 3, "end": 0.01, "begin": 9}, "optax", exact, rates
    line = {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 90}
    yield {"name": "LinearLR", **line}, "torch", exact, t("LinearLR", LR, RATES, **line)
    yield (
        {"name": "CosineAnnealingLR", "T_max": 90, "eta_min": 0.01},
        "torch",
        exact,
        t("CosineAnnealingLR", LR, RATES, T_max=90, eta_min=0.01),
    )
    given = {"decay_steps": 90, "alpha": 0.1}
    yield {"name": "CosineDecay", **given}, "keras", single, k("CosineDecay", RATES, **initial, **given)
    rates = o("cosine_decay_schedule", RATES, init_value=LR, exponent=1.7, **given)
    yield {"name": "cosine", "exponent": 1.7, **given}, "optax", exact, rates
    rates = o("warmup_cosine_decay_schedule", RATES, init_value=0.01, peak_value=LR, warmup_steps=20, decay_steps=120,
              end_value=0.02)  # fmt: skip
    warmup = {"name": "warmup_cosine", "warmup_steps": 20, "total_steps": 120, "start": 0.01, "end": 0.02}
    yield warmup, "optax", exact, rates
    yield from composed_cases()
    for cycle_given in TORCH_CYCLES:
        rates = t("OneCycleLR", LR, int(cycle_given["total_steps"]), momentum=True, **cycle_given)
        yield {"name": "OneCycleLR", **cycle_given}, "torch", exact, rates
    for total in (10, 97, 120, 121):
        rates = reference_rates.geron_rates(LR, total, total)
        yield {"name": "1cycle", "style": "geron", "total_steps": total, "cycle_momentum": False}, "geron", exact, rates


def composed_cases() -> Iterator[tuple[dict[str, Any], str, float, list[Any]]]:
    """As `schedule_cases`: milestones, restarts, triangles, trapezoids, and schedules made of schedules."""
    t, k, o = reference_rates.torch_rates, reference_rates.keras_rates, reference_rates.optax_rates
    exact, single = 1e-12, 2e-7
    for name, given in (
        ("MultiStepLR", {"milestones": [30, 9, 30, 200], "gamma": 0.5}),
        ("ConstantLR", {"factor": 0.25, "total_iters": 20}),
        ("CosineAnnealingWarmRestarts", {"T_0": 20, "T_mult": 1, "eta_min": 0.01}),
        ("CosineAnnealingWarmRestarts", {"T_0": 20, "T_mult": 2, "eta_min": 0.01}),
    ):
        yield {"name": name, **given}, "torch", exact, t(name, LR, RATES, **given)
    for t_mul, m_mul in ((2.0, 1.0), (1.5, 0.7), (1.0, 0.9)):
        given = {"first_decay_steps": 20, "t_mul": t_mul, "m_mul": m_mul, "alpha": 0.1}
        rates = k("CosineDecayRestarts", RATES, initial_learning_rate=LR, **given)
        yield {"name": "CosineDecayRestarts", **given}, "keras", single, rates
    for mode in ("triangular", "triangular2", "exp_range"):
        given = {"base_lr": 0.01, "max_lr": LR, "step_size_up": 30, "step_size_down": 47, "mode": mode, "gamma": 0.99}
        yield {"name": "CyclicLR", **given}, "torch", exact, t("CyclicLR", LR, RATES, momentum=True, **given)
    scales = {30: 0.5, 200: 0.1}
    rates = o("piecewise_constant_schedule", RATES, init_value=LR, boundaries_and_scales=scales)
    values = {"boundaries": [30, 200], "values": [LR, LR * 0.5, LR * 0.5 * 0.1]}
    yield {"name": "piecewise_constant", **values}, "optax", exact, rates
    for kind in ("linear", "cosine"):
        rates = o("piecewise_interpolate_schedule", RATES, interpolate_type=kind, init_value=LR,
                  boundaries_and_scales=scales)  # fmt: skip
        points = [[0, 1.0], [30, 0.5], [200, 0.05]]
        yield {"name": "table", "points": points, "interpolate": kind, "relative": True}, "optax", exact, rates
    for form in ("linear", "cosine", "1-sqrt"):
        given = {"num_warmup_steps": 20, "num_stable_steps": 50, "num_decay_steps": 70, "min_lr_ratio": 0.1}
        rates = reference_rates.transformers_rates(
            "get_wsd_schedule", LR, RATES, warmup_type=form, decay_type=form, **given
        )
        yield {"name": "wsd", "warmup_type": form, "decay_type": form, **given}, "transformers", exact, rates
    for timescale in (None, 300):
        given = {"num_warmup_steps": 20, "timescale": timescale}
        rates = reference_rates.transformers_rates("get_inverse_sqrt_schedule", LR, RATES, **given)
        yield {"name": "inverse_sqrt", **given}, "transformers", exact, rates
    paper = [512**-0.5 * min((i + 1) ** -0.5, (i + 1) * 40**-1.5) for i in range(RATES)]
    yield {"name": "noam", "d_model": 512, "warmup_steps": 40}, "paper", exact, paper
    for strategy in ("cos", "linear"):
        rates = reference_rates.swa_rates(LR, RATES, swa_lr=0.05, anneal_epochs=20, anneal_strategy=strategy)
        yield {"name": "SWALR", "swa_lr": 0.05, "anneal_epochs": 20, "anneal_strategy": strategy}, "torch", exact, rates
    line = {"init_value": 0.01, "end_value": LR, "transition_steps": 20}
    rates = reference_rates.joined_rates(
        RATES, [("linear_schedule", line), ("cosine_decay_schedule", {"init_value": LR, "decay_steps": 90})], [20]
    )
    then = {"name": "cosine", "decay_steps": 90}
    yield {"name": "warmup", "warmup_steps": 20, "start": 0.01, "then": then}, "optax", exact, rates
    parts: list[dict[str, Any]] = [
        {"name": "LinearLR", "start_factor": 0.1, "total_iters": 20},
        {"name": "ExponentialLR", "gamma": 0.97},
        {"name": "CosineAnnealingLR", "T_max": 50},
    ]
    milestones = [20, 150]
    rates = reference_rates.composed_torch_rates("SequentialLR", LR, RATES, parts, milestones=milestones)
    yield {"name": "SequentialLR", "schedulers": parts, "milestones": milestones}, "torch", exact, rates
    rates = reference_rates.composed_torch_rates("ChainedScheduler", LR, RATES, parts[:2])
    yield {"name": "ChainedScheduler", "schedulers": parts[:2]}, "torch", exact, rates


def schedule_difference(schedule: dict[str, Any], rates: list[Any]) -> float:
    """The largest difference of any rate, over lr, and of any momentum."""
    spec = RunSpec.model_validate({"optimizer": "sgd", "schedule": schedule}).schedule
    worst = 0.0
    for k, theirs in enumerate(rates):
        ours = resolve(spec, LR, k)
        both = zip(ours, theirs, strict=True) if isinstance(theirs, list) else [(ours[0], theirs)]
        worst = max(worst, *(abs(a - b) / scale for (a, b), scale in zip(both, (LR, 1.0), strict=False)))  # type: ignore[operator]
    return worst


def plateau_cases() -> Iterator[dict[str, Any]]:
    """Plateaus of every style, both modes and thresholds, with cooldown and a floor."""
    every = itertools.product(reference_rates.PLATEAUS, ("min", "max"), ("rel", "abs"), (0, 2), (0.0, 0.02))
    for style, mode, kind, cooldown, floor in every:
        impossible = {"keras": kind == "rel", "optax": mode == "max" or kind == "abs"}
        if impossible.get(style, False):
            continue
        yield ReduceOnPlateau.model_validate(
            {"style": style, "mode": mode, "factor": 0.5, "patience": 3, "threshold": 0.05, "threshold_mode": kind,
             "cooldown": cooldown, "min_lr": floor, "threshold_abs": 0.01 if style == "optax" else 0.0,
             "every": 2 if style == "optax" and cooldown else 1}
        ).model_dump()  # fmt: skip


def reports(mode: str) -> list[float]:
    """200 reports that get better for a while and then only wander."""
    random = np.random.default_rng(7)
    falling = 1.0 + 2.0 * np.exp(-np.arange(200) / 25) + 0.1 * random.standard_normal(200)
    return [float(x) for x in (falling if mode == "min" else -falling + 10.0)]


def our_plateau(values: list[float], fields: dict[str, Any]) -> list[float]:
    """The rate after each report."""
    spec, state, rates = ReduceOnPlateau.model_validate(fields), PlateauState(), []
    for value in values:
        state = after_report(spec, state, value, LR)
        rates.append(rate(spec, state, LR))
    return rates


def schedule_rows() -> Iterator[tuple[str, bool]]:
    """The table's rows, and whether the bounds hold."""
    worst: dict[tuple[str, str, float], float] = {}
    for schedule, reference, bound, rates in schedule_cases():
        name = RunSpec.model_validate({"optimizer": "sgd", "schedule": schedule}).schedule.name  # type: ignore[union-attr]
        key = (name, reference, bound)
        worst[key] = max(worst.get(key, 0.0), schedule_difference(schedule, rates))
    for fields in plateau_cases():
        values, key = reports(fields["mode"]), ("reduce_on_plateau", fields["style"], 1e-12)
        theirs = reference_rates.PLATEAUS[fields["style"]](values, LR, fields)
        assert len(set(theirs)) > 2, "a plateau that never fell proves nothing"
        difference = max(abs(a - b) / LR for a, b in zip(our_plateau(values, fields), theirs, strict=True))
        worst[key] = max(worst.get(key, 0.0), difference)
    for (name, reference, bound), difference in worst.items():
        yield f"| `{name}` | {reference} | {difference:.1e} | {bound:.0e} |", difference <= bound


# --------------------------------------------------------------------------------------------------------- page

PAGE = """# Parity with torch, Keras and optax

Written by `scripts/parity.py` with {versions}; {draws} draws of hyperparameters a row.

## Optimizers

Each draw: random hyperparameters on the preset of the reference (`compat`), 100 updates of three tensors of rank 1, 2
and 3, weights from N(0, 0.1²), gradients N(0, 1) · exp(N(0, 1)), a learning rate that changes at every update. A figure
is the largest difference of any weight after any update over the largest distance that any weight moved, the worst of
all draws. *exact* is our own arithmetic in float64. Bounds: 1e-11 in float64, 1e-5 in float32 (of *ours, exact* where
theirs is further from it).

What is left in float32 is mostly the rounding of the weights, half a unit in the last place at each update, for us and
for them. It grows with the weights and not with the way: weights of size 1 that move by 0.01 in 100 updates end a few
1e-5 of that way from *exact* in every library, and as far from each other where decay is written in another order.

| optimizer | form | reference | float64: ours, theirs | float32: ours, theirs | ours, exact | theirs, exact |
|---|---|---|---|---|---|---|
{optimizers}

Defaults: {defaults}

## Schedules

The largest difference of any rate over lr (and of any momentum), k = 0 … {last}, past the end of each schedule. For
`one_cycle` up to its end: past it torch bounces back, here the last rate holds. Keras' cosine is in float32 even here.
`geron` is the OneCycleScheduler of the book's notebook, `paper` the formula as printed. `reduce_on_plateau`: 200
reports, every mode, threshold, cooldown and floor that the reference has.

| schedule | reference | difference | bound |
|---|---|---|---|
{schedules}
"""


def main() -> None:
    """Make the page; say what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "parity.md")
    parser.add_argument("--only", nargs="+", default=[], metavar="OPTIMIZER")
    options = parser.parse_args()
    if options.only:
        missed = []
        for row, held in optimizer_rows(options.draws, options.only):
            print(row, flush=True)
            missed += [] if held else [row]
        sys.exit("\n".join(["not held:", *missed]) if missed else 0)
    optimizers, schedules = list(optimizer_rows(options.draws)), list(schedule_rows())
    wrong = preset_differences()
    names = ("torch", "keras", "jax", "optax", "transformers", "numpy")
    page = PAGE.format(
        versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in names),
        draws=options.draws,
        optimizers="\n".join(row for row, _ in optimizers),
        schedules="\n".join(row for row, _ in schedules),
        defaults="; ".join(wrong) if wrong else "every preset is what the constructor of its library says.",
        last=RATES - 1,
    )
    options.output.write_text(page)
    print(page)
    broken = [row for row, held in optimizers + schedules if not held] + wrong
    sys.exit("\n".join(["not held:", *broken]) if broken else 0)


if __name__ == "__main__":
    main()
