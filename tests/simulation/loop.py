"""An event loop whose time is a number and whose order is a seed.

Whatever is ready may run next: `random.Random` picks. Time moves only when nothing is ready. A
process is what dies, stops and continues as one: its callbacks run only while it is neither.
"""

import asyncio
import heapq
from asyncio.events import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_SWITCH: Final = 0.003  # longest virtual seconds that a thread of an executor takes


class StuckError(AssertionError):
    """Nothing is ready and nothing will be; or a cancelled task would not end."""


class Process:
    """What dies, stops and continues as one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.parked: list[_Turn] = []
        self.tasks: list[_Task] = []
        self.context = copy_context()
        self.context.run(_process.set, self)


_process: ContextVar[Process] = ContextVar("process")


class _Turn(asyncio.TimerHandle):
    """One callback to come; without a context it is the servers' and needs none."""

    __slots__ = ("args", "at", "callback", "context", "off", "process")

    def __init__(
        self,
        process: Process,
        context: Context | None,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> None:
        self.process = process
        self.context = context
        self.callback = callback
        self.args = args
        self.at = 0.0
        self.off = False

    def cancel(self) -> None:
        self.off = True

    def cancelled(self) -> bool:
        return self.off

    def when(self) -> float:
        return self.at

    def run(self) -> None:
        if self.context is None:
            self.callback(*self.args)
        else:
            self.context.run(self.callback, *self.args)


class _Task(asyncio.Task[Any]):
    """A task whose place in a set is its number: sets of tasks are iterated the same every time."""

    def __init__(
        self, coro: Any, number: int, name: str | None, loop: "SimulatedLoop", context: Any
    ) -> None:
        self.number = number  # before asyncio puts the task into a set
        super().__init__(coro, loop=loop, name=name, context=context)
        # Nobody asks for all tasks; those of former schedules have the same numbers, and a set of
        # them would be searched from end to end.
        asyncio._unregister_task(self)
        self._log_destroy_pending = False  # `dispose` sees to it

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks one at a time in an order and at virtual times that a seed decides."""

    def __init__(self, chance: Random) -> None:
        self.servers = Process("servers")
        self.turns = 0
        self._chance = chance
        self._now = 0.0
        self._ready: list[_Turn] = []
        self._timers: list[tuple[float, float, int, _Turn]] = []
        self._numbers = 0

    def run_until(self, until: float) -> None:
        """Let everything happen that happens before a virtual time.

        Raises:
            StuckError: nothing would ever happen again.
        """
        ready, random = self._ready, self._chance.random
        outer = _get_running_loop()
        _set_running_loop(self)
        try:
            while ready or self._advance(until):
                place = int(random() * len(ready))
                turn, last = ready[place], ready.pop()
                if turn is not last:
                    ready[place] = last
                process = turn.process
                if process.frozen or process.dead:
                    process.parked.append(turn)
                    continue
                if turn.off:
                    continue
                self.turns += 1
                turn.run()
        finally:
            _set_running_loop(outer)

    def _advance(self, until: float) -> bool:
        timers = self._timers
        while timers:
            at, _, _, turn = timers[0]
            if at > until:
                self._now = until
                return False
            heapq.heappop(timers)
            if not (turn.off or turn.process.dead):
                self._now = at
                self._ready.append(turn)
                return True
        raise StuckError(f"nothing is ready and no timer runs at {self._now:.3f}")

    def serve(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """Have the servers do something after a delay, whatever becomes of the caller."""
        self._later(delay, _Turn(self.servers, None, callback, args))

    def spawn(self, process: Process, main: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start the main task of a process."""
        context = process.context.copy()
        return context.run(lambda: self.create_task(main, context=context))

    def thaw(self, process: Process) -> None:
        """Let a stopped process continue where it was."""
        process.frozen = False
        self._ready += process.parked
        process.parked.clear()

    def dispose(self, processes: Sequence[Process]) -> None:
        """End all tasks of all processes, so that nothing is left to the collector.

        Raises:
            StuckError: a task that was cancelled did not end.
        """
        left = deque(turn for turn in self._ready if turn.process is not self.servers)
        tasks = [task for process in processes for task in process.tasks]
        left.extend(turn for process in processes for turn in process.parked)
        ready: list[_Turn] = []
        self._ready = ready
        outer = _get_running_loop()
        _set_running_loop(self)
        try:
            for task in tasks:
                task.cancel()
            while left or ready:
                left.extend(ready)
                ready.clear()
                turn = left.popleft()
                if not turn.off:
                    turn.run()
        finally:
            _set_running_loop(outer)
        if not all(task.done() for task in tasks):
            raise StuckError("a cancelled task did not end")

    # What asyncio asks of a loop.

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Make a callback ready."""
        turn = _turn(callback, args, context)
        self._ready.append(turn)
        return turn

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make a callback ready after virtual seconds."""
        turn = _turn(callback, args, context)
        self._later(delay, turn)
        return turn

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Make a callback ready at a virtual time."""
        return self.call_later(when - self._now, callback, *args, context=context)

    def create_future(self) -> "asyncio.Future[Any]":
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: object = None,
        context: Context | None = None,
    ) -> "asyncio.Task[Any]":
        """A task of the process that asks."""
        self._numbers += 1
        task = _Task(coro, self._numbers, None if name is None else str(name), self, context)
        process = _process.get() if context is None else context[_process]
        process.tasks.append(task)
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        """Call a function at once, but a little later: nobody may count on when."""
        del executor
        result: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if not result.done():
                result.set_result(func(*args))

        self.call_later(self._chance.random() * _SWITCH, call)
        return result

    def get_debug(self) -> bool:
        """Never: it costs."""
        return False

    def is_running(self) -> bool:
        """Always while anybody asks."""
        return True

    def is_closed(self) -> bool:
        """Always: there is nothing to close."""
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Be silent about results that nobody fetched: their process may be dead."""

    def _later(self, delay: float, turn: _Turn) -> None:
        turn.at = self._now + max(delay, 0.0)
        self._numbers += 1
        entry = (turn.at, self._chance.random(), self._numbers, turn)
        heapq.heappush(self._timers, entry)


def _turn(callback: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> _Turn:
    if context is None:
        process = _process.get()
        return _Turn(process, process.context, callback, args)
    return _Turn(context[_process], context, callback, args)
