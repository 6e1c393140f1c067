"""Write the golden files of tests/core: what torch's optimizers do, and the bits of ours.

    pip install torch==2.13.0 numpy              # in an environment of its own, for instance
    python scripts/make_golden.py torch          # tests/core/golden/torch.json: needs torch and nothing of gradserve
    python scripts/make_golden.py bits           # tests/core/golden/bits.json:  needs gradserve[service]

`torch.json` holds gradients, learning rates, specs and torch's weights after 1, 2, 3 and all updates, in float64 and in
float32. It changes when torch does. `bits.json` holds digests of our own float32 state. It must never change: a run is
replayed from its journal, and the same entries have to give the same bits after an upgrade. If it has to change, the
semantics version of images changes with it.
"""

from __future__ import annotations

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
]
OURS_ONLY: list[dict[str, Any]] = [
    {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "lr_in_momentum": True}, "clip": []},
    {"optimizer": {"name": "adam", "lr": 0.02, "eps_hat": True, "bias_correction": False}, "clip": [VALUE]},
    {
        "optimizer": {"name": "adam", "lr": 0.02, "amsgrad": True, "amsgrad_corrected": True, "eps_root": 1e-6},
        "clip": [NORM, VALUE],
    },
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
        results = {
            str(dtype).split(".")[1]: torch_run(torch, case, given, dtype) for dtype in (torch.float64, torch.float32)
        }
        cases.append({**case, "weights_after": results})
    return {"written_by": f"torch {torch.__version__}", **given, "cases": cases}


def torch_run(torch: Any, case: dict[str, Any], given: dict[str, Any], dtype: Any) -> dict[str, list[float]]:
    """Weights after 1, 2, 3 and all updates of one optimizer."""
    fields = dict(case["optimizer"])
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[fields.pop("name")]
    if "beta1" in fields:
        fields["betas"] = (fields.pop("beta1"), fields.pop("beta2"))
    flat = torch.tensor(given["weights"], dtype=dtype)
    sizes = [math.prod(shape) for shape in SHAPES.values()]
    parameters = [
        torch.nn.Parameter(part.reshape(shape).clone())
        for part, shape in zip(flat.split(sizes), SHAPES.values(), strict=True)
    ]
    optimizer, after = kind(parameters, foreach=False, fused=False, **fields), {}
    for k, (gradient, factor) in enumerate(zip(given["gradients"], given["lr_factors"], strict=True)):
        for parameter, part in zip(parameters, torch.tensor(gradient, dtype=dtype).split(sizes), strict=True):
            parameter.grad = part.reshape(parameter.shape).clone()
        for clip in case["clip"]:
            if clip["name"] == "value":
                torch.nn.utils.clip_grad_value_(parameters, clip["value"])
            else:
                torch.nn.utils.clip_grad_norm_(parameters, clip["max_norm"])
        optimizer.param_groups[0]["lr"] = fields["lr"] * factor
        optimizer.step()
        if k + 1 in (1, 2, 3, UPDATES):
            after[str(k + 1)] = [x for p in parameters for x in p.detach().flatten().tolist()]
    return after


def bits_golden() -> list[dict[str, Any]]:
    """SHA-256 of our float32 weights and slots after all updates, on the gradients of `torch.json`."""
    sys.path.insert(0, str(GOLDEN.parent.parent))
    from core.running import state_digest

    given = json.loads((GOLDEN / "torch.json").read_text())
    return [{**case, "state_sha256": state_digest(case, given)} for case in CASES + OURS_ONLY]


def main() -> None:
    made = {"torch": torch_golden, "bits": bits_golden}
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
