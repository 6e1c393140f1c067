"""Checkpoints as files: what other programs read, and what is read of theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load, load_file, save

from gradserve.problems import Refused
from gradserve.specs import RunSpec
from gradserve.wire import Layout, decode_frame
from gradserve_service.core.checkpoint import SavedState, decode_checkpoint, encode_checkpoint, imported_state
from gradserve_service.core.plateau import PlateauState

SPEC = RunSpec.model_validate({"optimizer": {"name": "nadam", "lr": 0.1}}).canonical()
LAYOUT = Layout.of({"a": [2], "z/b": [2, 2], "s": []})
NUMBERS = np.arange(21, dtype=np.float32).reshape(3, 7)
SAVED = SavedState(
    LAYOUT, NUMBERS[0], {"exp_avg": NUMBERS[1], "exp_avg_sq": NUMBERS[2]}, SPEC, step=5,
    memory={"mu_product": 0.1}, plateau=PlateauState(scale=0.5, best=1.5), updates=4, samples_seen=32.5,
    version=7, position=9, etag='"7-0"',
)  # fmt: skip


def the_file() -> bytes:
    return b"".join(encode_checkpoint(SAVED))


def same(one: SavedState, other: SavedState) -> bool:
    mine, theirs = ({**state.slots, "": state.weights} for state in (one, other))
    return (
        one.layout == other.layout
        and mine.keys() == theirs.keys()
        and all(np.array_equal(mine[name], theirs[name]) for name in mine)
        and all(getattr(one, name) == getattr(other, name) for name in ("spec", "step", "memory", "plateau"))
        and (one.updates, one.samples_seen) == (other.updates, other.samples_seen)
    )


def refusal(tensors: dict[str, Any], **metadata: str) -> str:
    with pytest.raises(Refused) as caught:
        imported_state(decode_frame(save(tensors, metadata)), SPEC)
    return caught.value.rejection.code


def test_the_library_opens_it(tmp_path: Path) -> None:
    """Weights under their own names, slots behind `optimizer/`, the rest as JSON text."""
    path = tmp_path / "best.safetensors"
    path.write_bytes(the_file())
    tensors = load_file(path)
    slots = {f"optimizer/{slot}/{name}" for slot in ("exp_avg", "exp_avg_sq") for name in LAYOUT.names}
    assert set(tensors) == {*LAYOUT.names, *slots}
    assert tensors["optimizer/exp_avg/z/b"].tolist() == LAYOUT.views(NUMBERS[1])["z/b"].tolist()
    with safe_open(path, "np") as opened:
        said = opened.metadata()
    assert (said["version"], said["step"], json.loads(said["spec"])) == ("7", "5", SPEC)


def test_it_comes_back_as_it_was() -> None:
    """Where it comes from included; the arrays are views of the file."""
    back = decode_checkpoint(memoryview(the_file()))
    assert same(back, SAVED)
    assert (back.version, back.position, back.etag) == (7, 9, '"7-0"')


def test_a_file_that_another_program_wrote_again_means_the_same() -> None:
    """Its tensors lie in another order; of which history it was is not believed."""
    file = the_file()
    size = int.from_bytes(file[:8], "little")
    said = json.loads(file[8 : 8 + size])["__metadata__"]
    again = imported_state(decode_frame(save(load(file), said)), {})
    assert same(again, SAVED)
    assert (again.version, again.position, again.etag) == (None, None, None)


def test_weights_alone_are_enough() -> None:
    """Such as a model of another program: step 0, nothing seen, no slots, the run's own spec."""
    state = imported_state(decode_frame(save({"w": np.ones(3, np.float16)}, {"format": "np"})), SPEC)
    assert (state.updates, state.samples_seen) == (0, 0)
    assert (state.step, state.slots, state.spec, state.weights.tolist()) == (0, {}, SPEC, [1.0, 1.0, 1.0])


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        ({"optimizer/exp_avg/w": ONE}, "validation-error"),
        ({"w": ONE, "optimizer/exp_avg/v": ONE}, "unknown-tensor"),
        ({"w": ONE, "optimizer/w": ONE}, "unknown-tensor"),
        ({"w": ONE, "v": ONE, "optimizer/exp_avg/w": ONE}, "layout-mismatch"),
        ({"w": ONE, "optimizer/exp_avg/w": np.ones(2, np.float32)}, "layout-mismatch"),
        ({"w": ONE, **{f"optimizer/slot{i}/w": ONE for i in range(13)}}, "validation-error"),
    ],
)
def test_tensors_that_are_no_state_are_refused(tensors: dict[str, Any], code: str) -> None:
    """Each slot has every tensor of the weights, in its shape."""
    assert refusal(tensors) == code


@pytest.mark.parametrize(
    "said",
    [
        {"step": "-1"}, {"step": "many"}, {"step": "1.5"}, {"memory": '{"mu_product": NaN}'}, {"memory": "[]"},
        {"plateau": '{"best": Infinity}'}, {"plateau": '{"bad": -1}'}, {"spec": '{"optimizer": "magic"}'},
        {"spec": "{"}, {"updates": "-1"}, {"samples_seen": "NaN"}, {"samples_seen": "-0.5"},
    ],
)  # fmt: skip
def test_metadata_that_makes_no_sense_is_refused(said: dict[str, str]) -> None:
    """Nothing that an entry could not hold, nothing that a schedule could stumble over."""
    assert refusal({"w": ONE}, **said) == "validation-error"
