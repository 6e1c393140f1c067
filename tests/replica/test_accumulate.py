"""Batches of pushes on a real store: they outlive servers, and nobody watches without being told."""

from __future__ import annotations

import numpy as np
import pytest

from gradserve.specs import PushFields, RunSpec
from gradserve.wire import Layout, decode_frame, encode_frame
from gradserve_service.replica.events import events_of
from replica.runs import a_run, push, refusal, server, tensor, whole_state

BATCHES = RunSpec.model_validate(
    {"optimizer": {"name": "adam", "lr": 0.1}, "accumulate": {"samples": 10}, "clip": {"name": "value", "value": 1}}
)
SIZE = 20_000  # its payloads are objects of the store


@pytest.mark.parametrize("journal_bytes_min", [1, 1 << 30], ids=["snapshots", "replay"])
async def test_a_killed_server_comes_back_with_the_open_batch(store_url: str, journal_bytes_min: int) -> None:
    """From an image with the batch in it as from the journal: the next push completes it with the same bits."""
    limits = {"snapshot_journal_bytes_min": journal_bytes_min, "snapshot_state_factor": 1}
    async with server(store_url, **limits) as undisturbed:
        run = await a_run(undisturbed, SIZE, BATCHES, name="undisturbed")
        for sequence in range(1, 8):
            await push(run, sequence, size=SIZE, samples=4.0)
        weights = (await run.weights()).weights.tobytes()  # type: ignore[union-attr]
    for sequence in range(1, 8):
        async with server(store_url, **limits) as replicas:
            run = await a_run(replicas, SIZE, BATCHES) if sequence == 1 else await replicas.open("run")
            answer = await push(run, sequence, size=SIZE, samples=4.0)
            expected = {"pushes": (sequence - 1) % 3 + 1, "samples": 4.0 * ((sequence - 1) % 3 + 1)}
            assert answer.outcome["batch"] == {**expected, "target": {"samples": 10.0}}
            assert answer.outcome["outcome"] == ("contributed" if sequence % 3 else "applied")
            await whole_state(run)
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        assert (await run.describe())["batch"] == {"pushes": 1, "samples": 4.0, "target": {"samples": 10.0}}
        assert (await run.weights()).weights.tobytes() == weights  # type: ignore[union-attr]


async def test_a_scaled_float16_gradient_is_divided_in_float32_and_in_every_replay(store_url: str) -> None:
    """2^-14 · 2^-12 is no float16; a server that replays the journal divides again."""
    spec = RunSpec.model_validate({"optimizer": {"name": "sgd", "lr": 1.0}})
    layout, values = Layout.of({"w": [2]}), np.array([2.0**-14, 1.0], np.float32)
    frame = decode_frame(b"".join(encode_frame(layout, values, dtype="float16")))
    async with server(store_url) as replicas:
        run = await a_run(replicas, 2, spec)
        outcome = (await run.push("w0", 1, frame, PushFields(loss_scale=4096.0))).outcome
        assert (outcome["outcome"], outcome["finite"]) == ("applied", True)
        assert outcome["gradient_norm"] == pytest.approx(2.0**-12)
    async with server(store_url) as replicas:
        weights = (await (await replicas.open("run")).weights()).weights  # type: ignore[union-attr]
        assert weights.tolist() == [-(2.0**-26), 1.0 - 2.0**-12]


async def test_a_replay_puts_zeros_where_the_first_server_did(store_url: str) -> None:
    """The payload is journaled as it came."""
    spec = RunSpec.model_validate({"optimizer": {"name": "sgd", "lr": 1.0}, "non_finite": "zero"})
    for _ in range(2):
        async with server(store_url) as replicas:
            run = await a_run(replicas, 3, spec)
            outcome = (await run.push("w0", 1, tensor([np.nan, 1.0, np.inf]), PushFields())).outcome
            assert (outcome["finite"], outcome["gradient_norm"]) == (False, 1.0)
            assert (await run.weights()).weights.tolist() == [0.0, 0.0, 2.0]  # type: ignore[union-attr]
    assert outcome["outcome"] == "duplicate"


async def test_a_run_that_paused_itself_says_why(store_url: str) -> None:
    """In the refusal and among its warnings, until it is resumed."""
    spec = RunSpec.model_validate({"optimizer": "sgd", "non_finite": {"policy": "skip", "max_consecutive": 1}})
    async with server(store_url) as replicas:
        run = await a_run(replicas, 2, spec)
        await run.push("w0", 1, tensor([np.nan, 1.0]), PushFields())
        described = await run.describe()
        assert described["state"] == "paused"
        assert "paused itself" in described["warnings"][0]
        assert await refusal(push(run, 2, size=2)) == "run-paused"


def test_a_contribution_is_an_event_and_its_update_speaks_for_the_batch() -> None:
    """Samples and loss of an update are its batch's, as in the history."""
    batch = {"pushes": 2, "samples": 9.0, "weight": 1.0, "staleness": 4, "loss": 0.5, "loss_samples": 9.0}
    header = {
        "position": 3, "kind": "push", "version_before": 6, "step_before": 6, "at": 1, "worker": "w", "sequence": 2,
        "loss": 1.0, "base": 6, "samples": 1.0, "outcome": "contributed", "update": None, "batch": batch,
    }  # fmt: skip
    (told,) = events_of(header, None)
    assert (told.kind, told.fields["version"], told.fields["batch"]) == ("contribution", 6, {"pushes": 2, "samples": 9})
    applied = {**header, "outcome": "applied", "update": {"lr": 0.1, "momentum": None}}
    (told,) = events_of(applied, None)
    found = {name: told.fields[name] for name in ("version", "pushes", "samples", "loss", "staleness")}
    assert (told.kind, found) == ("update", {"version": 7, "pushes": 2, "samples": 9.0, "loss": 0.5, "staleness": 4})
