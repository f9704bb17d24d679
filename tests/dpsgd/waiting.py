"""Waiting for another thread or process, for as long as a busy machine needs, and not longer."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable

LIMIT_S = 30.0  # patience of every wait in these tests; only a failing test needs so long


class Turns:
    """A counter in memory that forked processes and threads share: it lets things happen in a known order."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def done(self) -> int:
        """Turns taken so far."""
        return struct.unpack("=q", self._memory[:8])[0]

    def next(self) -> None:
        """End this turn. Only the one whose turn it is may call this."""
        self._memory[:8] = struct.pack("=q", self.done + 1)

    def wait_for(self, turn: int, give_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait until `turn` turns were taken; False if `give_up` says so before."""
        return wait_until(lambda: self.done >= turn or give_up(), f"turn {turn}") and self.done >= turn


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> bool:
    """Poll until `condition` holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_s} s: {what}")
        time.sleep(0.0005)
    return True
