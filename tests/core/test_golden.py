"""Frozen results: torch's, to agree with, and our own bits, to keep. Written by scripts/make_golden.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.running import golden_run, state_digest

GOLDEN = Path(__file__).parent / "golden"
TORCH = json.loads((GOLDEN / "torch.json").read_text())
BITS = json.loads((GOLDEN / "bits.json").read_text())


def name(case: dict[str, Any]) -> str:
    return "-".join(map(str, [*case["optimizer"], *(clip["name"] for clip in case["clip"])])).replace(
        "name", case["optimizer"]["name"]
    )


@pytest.mark.parametrize("case", TORCH["cases"], ids=name)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-5)])
def test_torch_walks_the_same_way(case: dict[str, Any], dtype: str, tolerance: float) -> None:
    """100 updates, an lr that changes at each, decay and clipping: within 1e-11 of the way walked in float64."""
    last = np.array(TORCH["weights"])
    path = np.zeros_like(last)
    for run in golden_run(case, TORCH, dtype):
        path, last = path + np.abs(run.weights - last), run.weights
        expected = case["weights_after"][dtype].get(str(run.updates))
        if expected is not None:
            assert np.all(np.abs(run.weights - expected) <= tolerance * path + np.spacing(np.abs(run.weights)))
    assert run.updates == 100


@pytest.mark.parametrize("case", BITS, ids=name)
def test_our_own_bits_stay_what_they_are(case: dict[str, Any]) -> None:
    """A journal written before an upgrade is replayed after it. If this has to change, so has the semantics version."""
    assert state_digest(case, TORCH) == case["state_sha256"]


def test_every_golden_bit_pattern_is_another() -> None:
    """A field that did nothing would show here."""
    assert len({case["state_sha256"] for case in BITS}) == len(BITS)
