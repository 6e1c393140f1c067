"""Frozen results: torch's, to agree with, and our own bits, to keep. Written by scripts/make_golden.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.running import golden_run, state_digest
from gradserve.specs import ReduceOnPlateau, RunSpec
from gradserve_service.core.plateau import PlateauState, after_report, rate
from gradserve_service.core.schedules import resolve

GOLDEN = Path(__file__).parent / "golden"
GIVEN = json.loads((GOLDEN / "inputs.json").read_text())
SCHEDULES = json.loads((GOLDEN / "schedules.json").read_text())


def cases(folder: str) -> list[dict[str, Any]]:
    """Of all families."""
    files = [json.loads(path.read_text()) for path in sorted((GOLDEN / folder).glob("*.json"))]
    return [case for file in files for case in (file if folder == "bits" else file["cases"])]


BITS = cases("bits")


def name(case: dict[str, Any]) -> str:
    return "-".join(map(str, [*case["optimizer"], *(clip["name"] for clip in case["clip"])])).replace(
        "name", case["optimizer"]["name"]
    )


@pytest.mark.parametrize("case", cases("torch"), ids=name)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-5)])
def test_torch_walks_the_same_way(case: dict[str, Any], dtype: str, tolerance: float) -> None:
    """100 updates, an lr that changes at each, decay and clipping: within 1e-11 of the way walked in float64."""
    last = np.array(GIVEN["weights"])
    path = np.zeros_like(last)
    for run in golden_run(case, GIVEN, dtype):
        path, last = path + np.abs(run.weights - last), run.weights
        expected = case["weights_after"][dtype].get(str(run.updates))
        if expected is not None:
            assert np.all(np.abs(run.weights - expected) <= tolerance * path + np.spacing(np.abs(run.weights)))
    assert run.updates == 100


@pytest.mark.parametrize("case", cases("others"), ids=name)
def test_keras_and_optax_walk_the_same_way(case: dict[str, Any]) -> None:
    """Under the preset of each, in float64: within 1e-11 of the way walked, or what a float32 inside allows."""
    last = np.array(GIVEN["weights"])
    path = np.zeros_like(last)
    for run in golden_run(case, GIVEN, "float64"):
        path, last = path + np.abs(run.weights - last), run.weights
        if (expected := case["weights_after"].get(str(run.updates))) is not None:
            assert np.all(
                np.abs(run.weights - expected) <= case.get("bound", 1e-11) * path + np.spacing(np.abs(run.weights))
            )
    assert run.updates == 100


@pytest.mark.parametrize(
    "case", SCHEDULES["schedules"], ids=lambda case: f"{case['schedule']['name']}-{case['reference']}"
)
def test_other_libraries_schedules_give_the_same_rates(case: dict[str, Any]) -> None:
    """From k = 0 past the end: within 1e-12 of lr (2e-7 where the library computes in float32), and the momentum."""
    schedule, lr = RunSpec.model_validate({"optimizer": "sgd", "schedule": case["schedule"]}).schedule, SCHEDULES["lr"]
    for k, expected in enumerate(case["rates"]):
        rate, momentum = resolve(schedule, lr, k)
        if isinstance(expected, list):
            assert momentum == pytest.approx(expected[1], rel=1e-14)
            expected = expected[0]
        assert abs(rate - expected) <= case["bound"] * lr, k


@pytest.mark.parametrize("case", SCHEDULES["plateaus"], ids=lambda case: "-".join(map(str, case["plateau"].values())))
def test_other_libraries_plateaus_fall_at_the_same_reports(case: dict[str, Any]) -> None:
    """200 reports: the same rates from the same report on."""
    spec = ReduceOnPlateau.model_validate(case["plateau"])
    state, last, changes = PlateauState(), SCHEDULES["lr"], []
    for i, value in enumerate(SCHEDULES["reports"][spec.mode]):
        state = after_report(spec, state, value, SCHEDULES["lr"])
        now = rate(spec, state, SCHEDULES["lr"])
        changes += [] if now == last else [[i, now]]
        last = now
    assert [i for i, _ in changes] == [i for i, _ in case["changes"]]
    assert [x for _, x in changes] == pytest.approx([x for _, x in case["changes"]], rel=1e-12)


@pytest.mark.parametrize("case", BITS, ids=name)
def test_our_own_bits_stay_what_they_are(case: dict[str, Any]) -> None:
    """A journal written before an upgrade is replayed after it. If this has to change, so has the semantics version."""
    assert state_digest(case, GIVEN) == case["state_sha256"]


def test_every_golden_bit_pattern_is_another() -> None:
    """A field that did nothing would show here."""
    assert len({case["state_sha256"] for case in BITS}) == len(BITS)
