"""A limit to how long one step of an environment may take."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, ClassVar


class Limit:
    """Raises TimeoutError in a block that takes longer, where it is Python, or waits.

    The timer is set once for a step of all environments, and again where it goes off within a block that has time left:
    to set it for each would cost more than many a step.
    """

    _in_charge: ClassVar[Limit | None] = None
    """Whose handler the process has."""
    _before: ClassVar[Any] = signal.SIG_DFL
    """The one that it had."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._began_at: float | None = None

    def arm(self) -> None:
        """Before blocks, now and then."""
        if self._limit_s is None or threading.current_thread() is not threading.main_thread():
            return
        if Limit._in_charge is not self:
            before = signal.signal(signal.SIGALRM, self._over)
            Limit._before = before if Limit._in_charge is None else Limit._before
            Limit._in_charge = self
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)

    def disarm(self) -> None:
        """Leave the timer to others."""
        if Limit._in_charge is self:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, Limit._before)
            Limit._in_charge = None

    def __enter__(self) -> None:
        self._began_at = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._began_at = None

    def _over(self, signum: int, frame: FrameType | None) -> None:
        if self._began_at is None or self._limit_s is None:
            return
        left_s = self._began_at + self._limit_s - time.monotonic()
        if left_s <= 0:
            self._began_at = None
            signal.setitimer(signal.ITIMER_REAL, self._limit_s)  # for the others of this step
            raise TimeoutError(f"no answer within {self._limit_s:g} s (env.step_limit_s)")
        signal.setitimer(signal.ITIMER_REAL, left_s)


@contextlib.contextmanager
def limited(limit_s: float | None) -> Iterator[None]:
    """The same for one block."""
    limit = Limit(limit_s)
    limit.arm()
    try:
        with limit:
            yield
    finally:
        limit.disarm()
