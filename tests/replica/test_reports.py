"""Reports on a real store: what they did to the rate survives whatever happens to the server."""

from __future__ import annotations

from gradserve.specs import RunSpec
from replica.runs import a_run, push, server, whole_state

PLATEAU = RunSpec.model_validate(
    {
        "optimizer": {"name": "adam", "lr": 0.1},
        "schedule": {"name": "reduce_on_plateau", "patience": 1, "factor": 0.5, "every": 2},
    }
)


async def test_a_killed_server_loses_no_report(store_url: str) -> None:
    """The next one counts on where the last one stopped: the same rates, the same bytes."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, spec=PLATEAU)
        rates = []
        for sequence in range(1, 6):
            await run.report({"loss": 1.0}, None)
            rates.append((await push(run, sequence)).outcome["lr"])
        before = await whole_state(run)
    assert rates == [0.1, 0.1, 0.1, 0.1, 0.1]
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        assert await whole_state(run) == before
        await run.report({"loss": 1.0}, None)  # completes the third mean of two, the second that is no better
        assert (await push(run, 6)).outcome["lr"] == 0.05


async def test_reports_are_in_a_snapshot(store_url: str) -> None:
    """A drained server leaves an image; what had been counted is in it."""
    async with server(store_url) as replicas:
        run = await a_run(replicas, spec=PLATEAU)
        for _ in range(5):
            await run.report({"loss": 1.0}, None)
        await replicas.drain()
    async with server(store_url) as replicas:
        run = await replicas.open("run")
        await run.report({"loss": 1.0}, None)
        assert (await run.describe())["lr"] == 0.05
