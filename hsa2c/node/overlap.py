"""What an actor-learner notices of itself: how stale its updates are, and what its seconds go into."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hsa2c.node.layout import Access


class Overlap:
    """Counts the updates of other processes that fell between a read and the end of its update, lines 4 to 6.

    With the updates of u numbered as they end, it is b - a(b) of Assumption 5, whose bound is D: a(b) updates were
    complete when the process began to read, b when its own was. So of two that write at once, one counts the other.
    What a node adds to u for an exchange in the background is no update, and not counted.

    Args:
        applied: Updates so far of each process of the node, in shared memory; int64 [p]. Each counts its own there,
            after its step.
    """

    def __init__(self, applied: npt.NDArray[np.int64]) -> None:
        self._applied = applied
        self._before = 0
        self._counts: Counter[int] = Counter()

    def measured(self, access: Access) -> Access:
        """`access`, whose steps are counted."""
        return access._replace(read=partial(self._read, access.read), step=partial(self._step, access.step))

    def take(self) -> dict[int, int]:
        """How many updates had each overlap, since the last time."""
        counts, self._counts = self._counts, Counter()
        return dict(counts)

    def _read(self, read: Callable[[], Any]) -> Any:
        self._before = self._total()
        return read()

    def _step(self, step: Callable[[Any], None], g: Any) -> None:
        step(g)
        self._counts[self._total() - self._before] += 1  # its own is not in `applied` yet

    def _total(self) -> int:
        return sum(self._applied.tolist())  # several times quicker than numpy's sum of so few


def seconds_so_far() -> tuple[float, float]:
    """Of the wall's clock, and of a processor for all of this process's threads."""
    return time.perf_counter(), time.process_time()


class Clock:
    """A process's seconds since it began to train: `start` may be called again and again, the first time counts."""

    def __init__(self, now: Callable[[], tuple[float, float]] = seconds_so_far) -> None:
        self._now = now
        self._at: tuple[float, float] | None = None
        self._waited_before_s = 0.0

    def start(self, waited_s: float) -> None:
        """Begin.

        Args:
            waited_s: What it has waited for until now, and will be told of by the next `take`.
        """
        if self._at is None:
            self._at = self._now()
            self._waited_before_s = waited_s

    def take(self, waited_s: float) -> dict[str, float]:
        """Seconds since the last time.

        Args:
            waited_s: Seconds that the process waited for orders meanwhile.

        Returns:
            ``wall``, all of them; ``computing``, those of a processor (of all the process's threads), so that a core
            that other processes have is not taken for work; ``waiting``, for orders: for the other processes of the
            node, and for v. What is left is time without a core.
        """
        if self._at is None:
            return {"wall": 0.0, "computing": 0.0, "waiting": 0.0}
        before, self._at = self._at, self._now()
        waiting, self._waited_before_s = waited_s - self._waited_before_s, 0.0
        return {"wall": self._at[0] - before[0], "computing": self._at[1] - before[1], "waiting": waiting}
