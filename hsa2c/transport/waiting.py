"""Time less that for which this process was stopped (SIGSTOP, which is how Slurm suspends a job)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

LONGEST_LOOK_S = 1.0
"""The most between two looks that counts: one looks again after milliseconds, so more means that it was stopped."""
_LOOK_S = 0.25


class Patience:
    """What is left of it while one waits for somebody.

    A process that was stopped finds the clock put forward when it goes on, and what others said meanwhile not looked at
    yet. That is no silence of theirs.

    Args:
        limit_s: Seconds of waiting.
        clock: Wall-clock, in seconds.
    """

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._left_s = limit_s
        self._clock = clock
        self._looked_at = clock()

    def left_s(self) -> float:
        """Seconds that may still be waited, none or less than none at the end; call it at every look."""
        now = self._clock()
        self._left_s -= min(now - self._looked_at, LONGEST_LOOK_S)
        self._looked_at = now
        return self._left_s


class WorkingClock:
    """A clock for what a process measures of its own work: it stands still while the process is stopped.

    A thread looks at the wall-clock again and again while the context lasts; where much more time has passed than
    between two looks, the process was stopped.

    Args:
        clock: Wall-clock, in seconds.
        look_s: Seconds between two looks.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, look_s: float = _LOOK_S) -> None:
        self._clock = clock
        self._look_s = look_s
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._looked_at = clock()
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, name="working-clock", daemon=True)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.join()

    def __call__(self) -> float:
        """Seconds since it was made, less those for which the process was stopped."""
        with self._lock:
            now = self._clock()
            passed_s = now - self._looked_at
            self._seconds += passed_s if passed_s <= LONGEST_LOOK_S else self._look_s
            self._looked_at = now
            return self._seconds

    def _look(self) -> None:
        while not self._ended.wait(self._look_s):
            self()
