"""A node's actor-learners at work for a few seconds, without a master: how fast, and how large they are."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psutil

from hsa2c.doctor.facts import Trial
from hsa2c.errors import NodeError

if TYPE_CHECKING:
    from hsa2c.application import Application
    from hsa2c.dpsgd.protocols import Vector

_WARM_UP_S = 1.0  # the first rollouts, and memory touched for the first time
_START_S = 50.0  # until each process has built its problem
_EVENLY = 0.8  # of the looks that see a new update
_ENDLESS = 1_000_000_000


def measure(
    app: Application, config: Any, processes: int, seconds: float, sign: Callable[[str], None] = lambda _: None
) -> Trial:
    """Let actor-learners work; call it before anything starts a thread or MPI, for it forks.

    Args:
        app: The application.
        config: Its configuration, a node's own.
        processes: How many.
        seconds: At most, after one to warm up.
        sign: Told how far it has come.

    Raises:
        HSA2CError: They cannot start, or fail.
    """
    from hsa2c.node.process_pool import PoolLimits, ProcessPool

    limits = PoolLimits(start_s=_START_S, tell_s=0.2)
    pool = ProcessPool(app.problems(config, 0, 0), app.layout(config), processes, limits=limits)
    try:
        sign("builds")
        pool.wait_ready()
        sign("works")
        look = _Look(pool, seconds)
        pool.run(app.initial(config), _ENDLESS, rate_scale=1.0, listener=look)
        return look.trial(app.work_per_update(config))
    finally:
        pool.close()


class _Look:
    """The listener of a process pool that is measured: looks at its updates from the end of the warm-up to the end.

    Updates may come in bursts, after rollouts: then only a line through all that was seen says how fast they come.
    Where they come evenly, half of the time is enough.
    """

    def __init__(self, pool: Any, seconds: float) -> None:
        self._pool = pool
        self._begins_at = time.monotonic() + _WARM_UP_S
        self._seconds = seconds
        self._seen: list[tuple[float, int]] = []
        self._bytes: int | None = None

    def stopping(self) -> bool:
        """See `Listener.stopping`; also measures."""
        now = time.monotonic()
        if self._bytes is None and now >= self._begins_at:
            self._seen.append((now, self._pool.updates))
            if now >= self._begins_at + self._seconds * (0.5 if self._evenly() else 1.0):
                self._bytes = _memory(self._pool.pids)
        return self._bytes is not None

    def _evenly(self) -> bool:
        changes = sum(after > before for (_, before), (_, after) in pairwise(self._seen))
        return changes > _EVENLY * (len(self._seen) - 1)

    def tell(self, report: bytes) -> None:
        """See `Listener.tell`."""
        for item in json.loads(report):
            if "fault" in item:
                raise NodeError(item["fault"]["traceback"] or item["fault"]["message"])

    def keep(self, state: Vector) -> None:
        """See `Listener.keep`."""

    def trial(self, work_per_update: float) -> Trial:
        """What was seen."""
        assert self._bytes is not None
        processes = len(self._pool.pids)
        seconds = self._seen[-1][0] - self._seen[0][0]
        if self._seen[-1][1] == self._seen[0][1]:
            raise NodeError(f"no update in {seconds:.0f} s")
        return Trial(
            processes=processes,
            updates_per_s=slope(self._seen),
            work_per_update=work_per_update,
            process_bytes=self._bytes // processes,
        )


def slope(seen: Sequence[tuple[float, int]]) -> float:
    """Of the line that is nearest to all points, by least squares: how fast their second grows with their first."""
    t, x = zip(*seen, strict=True)
    return statistics.linear_regression(t, x).slope


def _memory(pids: Sequence[int]) -> int:
    """Proportional set sizes, in bytes; of one that has ended meanwhile, nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_full_info().pss
    return total
