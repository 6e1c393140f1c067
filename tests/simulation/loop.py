"""An event loop whose time is a number, and programs on it that can be killed or paused at any moment.

Nothing here waits: when no callback is ready, the clock jumps to the next timer. With no timer left and the main
coroutine unfinished, nothing will ever happen again, which is reported as a `Deadlock`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
STEPS_MAX = 5_000_000  # callbacks of one run: past it something turns in a circle
TASKS_KEPT_MAX = 4_096  # ended ones included, before they are looked at


class Deadlock(Exception):
    """The main coroutine waits and nothing is left that could wake it."""


class Endless(Exception):
    """The run takes more steps or more virtual time than any run should."""


class Program:
    """What dies or stops together: a server, or a worker. Everything it starts belongs to it, through the context."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.held: list[asyncio.Handle] = []
        self.context = Context()
        self.context.run(CURRENT.set, self)

    def __repr__(self) -> str:
        return f"<Program {self.name}>"


CURRENT: ContextVar[Program | None] = ContextVar("CURRENT", default=None)


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs callbacks in order, in virtual time, on one thread."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._running = False
        self.steps = 0
        self.complaints: list[str] = []  # what tasks raised and nobody fetched

    # What asyncio asks of a loop

    def time(self) -> float:
        """Seconds since the beginning of the run."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run the callback after those that are ready now."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run the callback in `delay` virtual seconds."""
        return self.call_at(self._now + max(0.0, delay), callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run the callback at a virtual time; those of one time in the order of these calls."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is dropped when its time comes

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        """A task that belongs to the program which creates it."""
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a killed program's tasks do not end
        self._tasks.append(task)
        if len(self._tasks) > TASKS_KEPT_MAX:
            self._forget_ended_tasks()
        return task

    def get_debug(self) -> bool:
        """No debug mode: it reads the real clock."""
        return False

    def is_running(self) -> bool:
        """Whether `run` is under way."""
        return self._running

    def is_closed(self) -> bool:
        """Never: there is nothing to close."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing is said here: what a task raised is looked at when it is forgotten."""

    # Programs

    def start(self, program: Program, coro: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Start a coroutine as a part of the program."""
        return program.context.run(self.create_task, coro, name=name)

    def kill(self, program: Program) -> None:
        """All of the program is gone at once: no callback of it runs any more, no clean-up either."""
        program.dead = True
        program.held.clear()

    def pause(self, program: Program) -> None:
        """Hold everything that the program would do."""
        program.paused = True

    def resume(self, program: Program) -> None:
        """Let the program go on where it was, with all that happened to it meanwhile."""
        program.paused = False
        self._ready.extend(program.held)
        program.held.clear()

    # Running

    def run(self, main: Coroutine[Any, Any, T], seconds_max: float = 1e5) -> T:
        """Run until `main` has ended. Raises what it raises, `Deadlock`, `Endless`."""
        asyncio._set_running_loop(self)
        self._running = True
        try:
            task = self.create_task(main, name="main", context=Context())
            while not task.done():
                self._step()
                if self.steps > STEPS_MAX or self._now > seconds_max:
                    raise Endless(f"{self.steps} steps, {self._now:.0f} virtual seconds; {self._unfinished()}")
            return task.result()
        finally:
            self._drop_everything()
            self._running = False
            asyncio._set_running_loop(None)

    def _step(self) -> None:
        if not self._ready:
            self._advance_clock()
        handle = self._ready.popleft()
        self.steps += 1
        if handle._cancelled:
            return
        program = handle._context.get(CURRENT)  # type: ignore[attr-defined]
        if program is None or not (program.dead or program.paused):
            handle._run()
        elif program.paused and not program.dead:
            program.held.append(handle)

    def _advance_clock(self) -> None:
        while self._timers and self._timers[0][2]._cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            raise Deadlock(f"nothing will happen any more: {self._unfinished()}")
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            self._ready.append(heapq.heappop(self._timers)[2])

    def _unfinished(self) -> str:
        names = [task.get_name() for task in self._tasks if not task.done()]
        return f"{len(names)} tasks wait: {', '.join(names[:12])}"

    def _forget_ended_tasks(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and task._log_traceback:
                self.complaints.append(f"{task.get_name()} ended with {task.exception()!r}")
        self._tasks = [task for task in self._tasks if not task.done()]

    def _drop_everything(self) -> None:
        """End what is left without running it: its clean-up would act in a world that is over."""
        self._forget_ended_tasks()
        nobody = Program("nobody")
        self.kill(nobody)
        for task in self._tasks:
            with contextlib.suppress(RuntimeError):  # its clean-up would wait for something
                nobody.context.run(task.get_coro().close)
        self._tasks.clear()
        self._ready.clear()
        self._timers.clear()
