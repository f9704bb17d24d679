"""How long another is waited for, less the time in which this process did not look itself."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_LOOK_S = 1.0
"""The most between two looks that counts: one looks again after milliseconds, so more means that it was stopped."""


class Patience:
    """What is left of it while one waits for somebody.

    A process that was stopped (SIGSTOP, which is how Slurm suspends a job) finds the clock put forward when it goes on,
    and what others said meanwhile not looked at yet. That is no silence of theirs.

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
