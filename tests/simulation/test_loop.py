"""The loop under the simulation: time is a number, programs die and stop at once."""

from __future__ import annotations

import asyncio

import pytest

from simulation.loop import Deadlock, Program, VirtualLoop


def test_a_year_of_sleep_takes_no_time():
    """The clock jumps to the next timer, in the order of the timers."""
    loop, seen = VirtualLoop(), []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((loop.time(), seconds))

    async def main() -> None:
        await asyncio.gather(sleeper(3e7), sleeper(2.0), sleeper(1.0))

    loop.run(main(), seconds_max=1e9)
    assert seen == [(1.0, 1.0), (2.0, 2.0), (3e7, 3e7)]


def test_waiting_for_what_never_comes_is_an_error():
    """No timer is left and nothing is ready."""
    loop = VirtualLoop()
    with pytest.raises(Deadlock, match="main"):
        loop.run(forever())


async def forever() -> None:
    """Wait for nobody."""
    await asyncio.get_running_loop().create_future()


def test_a_killed_program_does_nothing_more():
    """Neither its next step nor its clean-up: a `finally` of a dead process does not run."""
    loop, seen = VirtualLoop(), []

    async def life() -> None:
        try:
            while True:
                await asyncio.sleep(1.0)
                seen.append(loop.time())
        finally:
            seen.append("cleaned up")

    async def main() -> None:
        program = Program("victim")
        loop.start(program, life())
        await asyncio.sleep(2.5)
        loop.kill(program)
        await asyncio.sleep(10.0)
        assert seen == [1.0, 2.0]

    loop.run(main())


def test_a_paused_program_goes_on_with_what_happened_meanwhile():
    """As after SIGSTOP and SIGCONT: its timers are over, and it finds out only now."""
    loop, seen = VirtualLoop(), []

    async def life() -> None:
        for _ in range(3):
            await asyncio.sleep(1.0)
            seen.append(loop.time())

    async def main() -> None:
        program = Program("sleeper")
        task = loop.start(program, life())
        await asyncio.sleep(1.5)
        loop.pause(program)
        await asyncio.sleep(8.0)
        loop.resume(program)
        await task

    loop.run(main())
    assert seen == [1.0, 9.5, 10.5]


def test_what_a_program_starts_belongs_to_it():
    """Tasks of tasks die with it."""
    loop, seen = VirtualLoop(), []

    async def child() -> None:
        await asyncio.sleep(1.0)
        seen.append("child")

    async def life() -> None:
        task = asyncio.create_task(child())
        await task

    async def main() -> None:
        program = Program("parent")
        loop.start(program, life())
        await asyncio.sleep(0.5)
        loop.kill(program)
        await asyncio.sleep(5.0)

    loop.run(main())
    assert seen == []


def test_threads_are_refused():
    """A thread would bring back the real time, and with it chance."""
    loop = VirtualLoop()

    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(NotImplementedError):
        loop.run(main())
