"""Write the golden files of tests/core: what the optimizers and schedules of other libraries do, and the bits of ours.

    python scripts/make_golden.py torch [FAMILY…]     # these three need the environment of scripts/references.py
    python scripts/make_golden.py others [FAMILY…]
    python scripts/make_golden.py schedules
    python scripts/make_golden.py bits [FAMILY…]      # needs gradserve[service]

`inputs.json` holds gradients and learning rates. One file a family (`scripts/cases`): `torch/` holds specs and torch's
weights after 1, 2, 3 and all updates, in float64 and in float32; `others/` those of other libraries on the same
gradients in float64. `schedules.json` holds the rates of all three from k = 0 on and those of plateaus. They change
when their libraries do. `bits/` holds digests of our own float32 state. They must never change: a run is replayed from
its journal, and the same entries have to give the same bits after an upgrade. If they have to change, the semantics
version of images changes with them.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

from cases import FAMILIES

GOLDEN = Path(__file__).parent.parent / "tests" / "core" / "golden"
SHAPES = {"bias": [5], "kernel": [2, 3]}
UPDATES = 100


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


def torch_golden(family: Any) -> dict[str, Any]:
    """Every case in both precisions."""
    import torch

    given = inputs()
    cases = []
    for case in family.CASES:
        results = {dtype: reference_run("torch", case, given, dtype) for dtype in ("float64", "float32")}
        cases.append({**case, "weights_after": results})
    return {"written_by": f"torch {torch.__version__}", "cases": cases}


def others_golden(family: Any) -> dict[str, Any]:
    """Other libraries, each case with the preset of its library, in float64."""
    import references  # first: it chooses Keras' backend

    given, cases = inputs(), []
    for case in family.OTHERS:
        reference = case.get("reference") or case["optimizer"]["compat"]
        cases.append({**case, "clip": [], "weights_after": reference_run(reference, case, given, "float64")})
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in references.WEIGHTS if name != "torch_float"
    )
    return {"written_by": versions, "cases": cases}


def reference_run(reference: str, case: dict[str, Any], given: dict[str, Any], dtype: str) -> dict[str, list[float]]:
    """Weights after 1, 2, 3 and all updates of one optimizer."""
    import references

    from gradserve.specs import RunSpec

    spec: Any = RunSpec.model_validate({"optimizer": case["optimizer"]}).optimizer
    fields = {**spec.model_dump(), "clip": case.get("clip", ())}
    lrs = [spec.lr * (1.0 if case.get("constant_lr") else factor) for factor in given["lr_factors"]]
    run = references.WEIGHTS[reference](fields, list(SHAPES.values()), given["weights"], given["gradients"], lrs, dtype)
    return {str(t): weights.tolist() for t, weights in enumerate(run, 1) if t in (1, 2, 3, UPDATES)}


def schedules_golden() -> dict[str, Any]:
    """The cases of scripts/parity.py, schedules up to k = 129, plateaus as [report, rate] where the rate changed."""
    import parity
    import reference_rates

    schedules = [
        {"schedule": schedule, "reference": reference, "bound": bound, "rates": rates[:130]}
        for schedule, reference, bound, rates in parity.schedule_cases()
    ]
    plateaus = []
    for fields in parity.plateau_cases():
        rates = reference_rates.PLATEAUS[fields["style"]](parity.reports(fields["mode"]), parity.LR, fields)
        changes = [[i, r] for i, (r, before) in enumerate(zip(rates, [parity.LR, *rates], strict=False)) if r != before]
        plateaus.append({"plateau": fields, "changes": changes})
    reports = {mode: parity.reports(mode) for mode in ("min", "max")}
    return {"lr": parity.LR, "schedules": schedules, "reports": reports, "plateaus": plateaus}


def bits_golden(family: Any) -> list[dict[str, Any]]:
    """SHA-256 of our float32 weights and slots after all updates."""
    sys.path.insert(0, str(GOLDEN.parent.parent))
    from core.running import state_digest

    given = inputs()
    return [{**case, "state_sha256": state_digest(case, given)} for case in family.CASES + family.OURS_ONLY]


def main() -> None:
    made = {"torch": torch_golden, "others": others_golden, "bits": bits_golden}
    which, *families = sys.argv[1:] or [""]
    if which == "schedules" and not families:
        _write(GOLDEN / "schedules.json", schedules_golden())
    elif which in made and set(families) <= set(FAMILIES):
        _write(GOLDEN / "inputs.json", inputs())
        for name in families or FAMILIES:
            _write(GOLDEN / which / f"{name}.json", made[which](FAMILIES[name]))
    else:
        raise SystemExit(__doc__)


def _write(path: Path, value: Any) -> None:
    path.write_text(_lines(value) + "\n")
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
