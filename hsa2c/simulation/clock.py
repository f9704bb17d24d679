"""A clock on which waiting costs no time: blocking functions take turns, one at a time, and the clock jumps between.

Each function is a coroutine with a stack of its own (greenlet), so that `master` and `worker`, which block, run as they
are, thousands of them in one thread. Whoever sleeps or waits hands over to whoever is next in simulated time; at equal
times the order is that in which they were scheduled, so a simulation is repeatable to the last bit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class Process:
    """A function that runs on a `SimulatedClock`."""

    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        self.turn = 0  # a scheduled resumption is void once there was another
        self.waits = False  # until it is woken, or a time; not merely until a time

    @property
    def over(self) -> bool:
        """Whether it has ended, or was killed."""
        return bool(self.coroutine.dead)


class SimulatedClock:
    """The time, and who does what when.

    Attributes:
        now: Seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0
        self._processes: list[Process] = []
        self._alive = 0
        self._hub = getcurrent()
        self._current: Process | None = None

    def __call__(self) -> float:
        """The time, as `time.monotonic` tells it."""
        return self.now

    def call_at(self, at: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function at a time; it must neither sleep nor wait."""
        self._scheduled += 1
        heapq.heappush(self._events, (at, self._scheduled, function, arguments))

    # For processes, about themselves.

    def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        at = self.now + seconds
        if not self._events or at < self._events[0][0]:
            self.now = at  # nobody else is next: the same as handing over, and quicker
            return
        me = self.current()
        self.call_at(at, self._resume, me, me.turn)
        self._hub.switch()

    def wait(self, until: float) -> None:
        """Let time pass until somebody wakes this process, or until then."""
        me = self.current()
        me.waits = True
        if until != float("inf"):
            self.call_at(until, self._resume, me, me.turn)
        self._hub.switch()
        me.waits = False

    def current(self) -> Process:
        """Who is running."""
        assert self._current is not None, "only a process can wait on the simulated clock"
        return self._current

    # About other processes.

    def start(self, function: Callable[..., None], *arguments: Any) -> Process:
        """Run a function from now on."""
        process = Process(greenlet(self._live, parent=self._hub))
        self._processes.append(process)
        self._alive += 1
        self.call_at(self.now, self._switch, process, function, arguments)
        return process

    def wake(self, process: Process, at: float | None = None) -> None:
        """End a process's `wait` now, or at a time; nothing, if it does not wait or has gone on until then."""
        if process.waits:
            self.call_at(self.now if at is None else at, self._resume, process, process.turn)

    def kill(self, process: Process) -> None:
        """Let a process do nothing any more, as if its host had lost its power."""
        self.call_at(self.now, self._kill, process)

    # For whoever is outside.

    def run(self) -> None:
        """Let time pass until every process has ended. What a process raises is raised here.

        Raises:
            RuntimeError: Everyone waits for another, for ever.
        """
        assert getcurrent() is self._hub
        events = self._events
        while self._alive:
            if not events:
                raise RuntimeError("every process of the simulation waits, and nothing will wake one")
            self.now, _, function, arguments = heapq.heappop(events)
            function(*arguments)

    def close(self) -> None:
        """End the processes that are still there."""
        for process in self._processes:
            self._kill(process)
        self._events.clear()

    def _live(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        finally:
            self._alive -= 1

    def _resume(self, process: Process, turn: int) -> None:
        if process.turn == turn:
            process.turn += 1
            self._switch(process)

    def _switch(self, process: Process, *arguments: Any) -> None:
        if not process.over:
            self._current = process
            process.coroutine.switch(*arguments)
            self._current = None

    def _kill(self, process: Process) -> None:
        if process.over:
            return
        if not process.coroutine:  # it has not begun
            self._alive -= 1
        process.turn += 1
        process.coroutine.throw(GreenletExit)
