"""Write the golden files of tests/core: what the optimizers and schedules of other libraries do, and the bits of ours.

    python scripts/make_golden.py torch          # these three need the environment of scripts/references.py
    python scripts/make_golden.py others
    python scripts/make_golden.py schedules
    python scripts/make_golden.py bits           # needs gradserve[service]

`torch.json` holds gradients, learning rates, specs and torch's weights after 1, 2, 3 and all updates, in float64 and in
float32. `others.json` holds Keras' and optax' on the same gradients in float64, `schedules.json` the rates of all three
from k = 0 on and those of plateaus. They change when their libraries do. `bits.json` holds digests of our own float32
state. It must never change: a run is replayed from its journal, and the same entries have to give the same bits after
an upgrade. If it has to change, the semantics version of images changes with it.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent.parent / "tests" / "core" / "golden"
SHAPES = {"bias": [5], "kernel": [2, 3]}
UPDATES = 100
NORM = {"name": "global_norm", "max_norm": 2.0}
VALUE = {"name": "value", "value": 1.5}

CASES: list[dict[str, Any]] = [
    {"optimizer": {"name": "sgd", "lr": 0.05}, "clip": []},
    {"optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 0.1}, "clip": [NORM]},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "clip": []},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, "clip": []},
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "maximize": True, "weight_decay": 0.1}, "clip": [VALUE]},
    {"optimizer": {"name": "adam", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "adam", "lr": 0.02, "beta1": 0.5, "beta2": 0.9, "eps": 0.01}, "clip": [NORM]},
    {"optimizer": {"name": "adam", "lr": 0.02, "weight_decay": 0.1}, "clip": [VALUE, NORM]},
    {"optimizer": {"name": "adam", "lr": 0.02, "amsgrad": True, "maximize": True, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "adamw", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.3, "maximize": True}, "clip": [NORM]},
    {"optimizer": {"name": "adamw", "lr": 0.02, "amsgrad": True, "eps": 1e-6}, "clip": []},
    {"optimizer": {"name": "adagrad", "lr": 0.1}, "clip": []},
    {"optimizer": {"name": "adagrad", "lr": 0.1, "lr_decay": 0.05, "initial_accumulator_value": 0.5}, "clip": [NORM]},
    {"optimizer": {"name": "rmsprop", "lr": 0.01, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "rmsprop", "lr": 0.01, "alpha": 0.8, "momentum": 0.9}, "clip": [VALUE]},
    {"optimizer": {"name": "rmsprop", "lr": 0.01, "alpha": 0.9, "centered": True, "momentum": 0.5}, "clip": []},
    {"optimizer": {"name": "adamax", "lr": 0.02, "beta2": 0.9, "weight_decay": 0.1}, "clip": []},
    {"optimizer": {"name": "adamax", "lr": 0.02, "maximize": True, "eps": 0.01}, "clip": [NORM]},
    {"optimizer": {"name": "nadam", "lr": 0.02}, "clip": []},
    {"optimizer": {"name": "nadam", "lr": 0.02, "momentum_decay": 0.2, "weight_decay": 0.1}, "clip": [NORM]},
]
OTHERS: list[dict[str, Any]] = [
    {"optimizer": {"name": "sgd", "compat": "keras", "lr": 0.05, "momentum": 0.9, "nesterov": True}},
    {"optimizer": {"name": "adam", "compat": "keras", "lr": 0.02, "weight_decay": 0.1, "amsgrad": True}},
    {"optimizer": {"name": "adagrad", "compat": "keras", "lr": 0.1}},
    {"optimizer": {"name": "rmsprop", "compat": "keras", "lr": 0.01, "momentum": 0.9, "centered": True}},
    {"optimizer": {"name": "adamax", "compat": "keras", "lr": 0.02, "weight_decay": 0.1}},
    {"optimizer": {"name": "nadam", "compat": "keras", "lr": 0.02}},
    {"optimizer": {"name": "sgd", "compat": "optax", "lr": 0.05, "momentum": 0.9}},
    {"optimizer": {"name": "adam", "compat": "optax", "lr": 0.02, "amsgrad": True, "eps_root": 1e-6}},
    {"optimizer": {"name": "adagrad", "compat": "optax", "lr": 0.1}},
    {"optimizer": {"name": "rmsprop", "compat": "optax", "lr": 0.01, "momentum": 0.9, "nesterov": True}},
    {"optimizer": {"name": "rmsprop", "compat": "optax", "lr": 0.01, "bias_correction": True, "eps_in_sqrt": False}},
    {"optimizer": {"name": "adamax", "compat": "optax", "lr": 0.02}},
    {"optimizer": {"name": "nadam", "compat": "optax", "lr": 0.02}},
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "lr_in_momentum": True}, "clip": []},
    {"optimizer": {"name": "adam", "lr": 0.02, "eps_hat": True, "bias_correction": False}, "clip": [VALUE]},
    {
        "optimizer": {"name": "adam", "lr": 0.02, "amsgrad": True, "amsgrad_corrected": True, "eps_root": 1e-6},
        "clip": [NORM, VALUE],
    },
    {"optimizer": {"name": "adagrad", "lr": 0.1, "eps_in_sqrt": True, "eps": 1e-7}, "clip": [VALUE]},
    {
        "optimizer": {
            "name": "rmsprop",
            "lr": 0.01,
            "centered": True,
            "bias_correction": True,
            "momentum": 0.9,
            "nesterov": True,
            "lr_in_momentum": True,
            "eps_in_sqrt": True,
        },
        "clip": [],
    },
    {"optimizer": {"name": "adamax", "lr": 0.02, "eps_in_max": False, "eps": 0.01}, "clip": []},
    {"optimizer": {"name": "nadam", "lr": 0.02, "variant": "constant"}, "clip": [NORM]},
]


def inputs() -> dict[str, Any]:
    """First weights and gradients of very different magnitudes, exact in float32, and an lr that never rests."""
    source = random.Random(20_130)
    size = sum(math.prod(shape) for shape in SHAPES.values())

    def short(x: float) -> float:
        return round(x * 4096) / 4096

    return {
        "shapes": SHAPES,
        "weights": [short(source.gauss(0, 1)) for _ in range(size)],
        "gradients": [
            [short(source.gauss(0, 1) * math.exp(source.gauss(0, 1))) for _ in range(size)] for _ in range(UPDATES)
        ],
        "lr_factors": [round(1 + 0.9 * math.cos(k / 7), 6) for k in range(UPDATES)],
    }


def torch_golden() -> dict[str, Any]:
    """Every case in both precisions."""
    import torch

    given = inputs()
    cases = []
    for case in CASES:
        results = {dtype: reference_run("torch", case, given, dtype) for dtype in ("float64", "float32")}
        cases.append({**case, "weights_after": results})
    return {"written_by": f"torch {torch.__version__}", **given, "cases": cases}


def others_golden() -> dict[str, Any]:
    """Keras and optax, each case with the preset of its library, in float64."""
    import references  # first: it chooses Keras' backend

    given, cases = inputs(), []
    for case in OTHERS:
        reference = case["optimizer"]["compat"]
        cases.append({**case, "clip": [], "weights_after": reference_run(reference, case, given, "float64")})
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in references.WEIGHTS)
    return {"written_by": versions, "cases": cases}


def reference_run(reference: str, case: dict[str, Any], given: dict[str, Any], dtype: str) -> dict[str, list[float]]:
    """Weights after 1, 2, 3 and all updates of one optimizer."""
    import references

    from gradserve.specs import RunSpec

    spec: Any = RunSpec.model_validate({"optimizer": case["optimizer"]}).optimizer
    fields = {**spec.model_dump(), "clip": case.get("clip", ())}
    lrs = [spec.lr * factor for factor in given["lr_factors"]]
    run = references.WEIGHTS[reference](fields, list(SHAPES.values()), given["weights"], given["gradients"], lrs, dtype)
    return {str(t): weights.tolist() for t, weights in enumerate(run, 1) if t in (1, 2, 3, UPDATES)}


def schedules_golden() -> dict[str, Any]:
    """The cases of scripts/parity.py, schedules up to k = 129, plateaus as [report, rate] where the rate changed."""
    import parity
    import references

    schedules = [
        {"schedule": schedule, "reference": reference, "bound": bound, "rates": rates[:130]}
        for schedule, reference, bound, rates in parity.schedule_cases()
    ]
    plateaus = []
    for fields in parity.plateau_cases():
        rates = references.PLATEAUS[fields["style"]](parity.reports(fields["mode"]), parity.LR, fields)
        changes = [[i, r] for i, (r, before) in enumerate(zip(rates, [parity.LR, *rates], strict=False)) if r != before]
        plateaus.append({"plateau": fields, "changes": changes})
    reports = {mode: parity.reports(mode) for mode in ("min", "max")}
    return {"lr": parity.LR, "schedules": schedules, "reports": reports, "plateaus": plateaus}


def bits_golden() -> list[dict[str, Any]]:
    """SHA-256 of our float32 weights and slots after all updates, on the gradients of `torch.json`."""
    sys.path.insert(0, str(GOLDEN.parent.parent))
    from core.running import state_digest

    given = json.loads((GOLDEN / "torch.json").read_text())
    return [{**case, "state_sha256": state_digest(case, given)} for case in CASES + OURS_ONLY]


def main() -> None:
    made = {"torch": torch_golden, "others": others_golden, "schedules": schedules_golden, "bits": bits_golden}
    which = sys.argv[1] if len(sys.argv) == 2 else ""
    if which not in made:
        raise SystemExit(__doc__)
    path = GOLDEN / f"{which}.json"
    path.write_text(_lines(made[which]()) + "\n")
    print(f"wrote {path}")


def _lines(value: Any) -> str:
    """JSON with one list of numbers a line: a change shows where it is."""
    text = json.dumps(value, indent=1)
    lines: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if lines and (bare[:1].isdigit() or bare[:1] == "-" or bare in ("]", "],")) and _open_numbers(lines[-1]):
            lines[-1] += bare if lines[-1].endswith("[") or bare.startswith("]") else " " + bare
        else:
            lines.append(line)
    return "\n".join(lines)


def _open_numbers(line: str) -> bool:
    last = line.rstrip()[-1:]
    return last == "[" or ("[" in line and last.isdigit()) or ("[" in line and last == ",")


if __name__ == "__main__":
    main()
