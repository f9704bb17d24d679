"""How many updates a node makes between two exchanges: B, fixed or chosen by what an exchange is seen to cost.

An exchange costs the same whatever B is, so B decides the share of time that is lost to it. With Tu the seconds that a
process needs for an update, and L those that each process of the node loses by an exchange, the share is

    L / (L + B Tu)

and the smallest B that keeps it under a target s is L (1 - s) / (s Tu), rounded up. What L is depends on the exchange:

    paper      all of an exchange, Tc: the processes stand still from their last update to the next v
    overlap    what it takes of the processor, shared by p: the processes go on. And B Tu >= Tc, for an exchange that
               takes longer than B updates makes the next one late, and B untrue

# Paper: B is a constant, and a trade-off between computation and communication at run time is future work (section 5).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from hsa2c.dpsgd.protocols import Listener, Vector
from hsa2c.dpsgd.steps import corollary_rate

_WINDOW_S = 5.0  # a problem's updates may come in bursts, such as after a rollout: only their mean over seconds counts
_WINDOW_EXCHANGES = 3
_LOWER = 0.7  # of B: that much less must be enough before B falls,
_LOWER_WINDOWS = 3  # so many times in a row


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was measured over some seconds of one node's work."""

    seconds: float
    """Wall-clock of the window."""
    updates: int
    """Updates of u, of all its processes."""
    exchanges: int
    exchanging_s: float
    """Seconds in which an exchange was under way."""
    lost_s: float
    """Seconds that each process lost to exchanges; see the module."""

    def update_s(self, p: int) -> float:
        """Tu: mean seconds that one of p processes needs for an update, infinite before there was one."""
        return p * max(0.0, self.seconds - self.lost_s) / self.updates if self.updates else math.inf

    @property
    def exchange_s(self) -> float:
        """Tc: mean seconds of an exchange."""
        return self.exchanging_s / self.exchanges

    @property
    def lost_share(self) -> float:
        """Share of the time that was lost to exchanges."""
        return self.lost_s / self.seconds


def fewest_updates(costs: Costs, p: int, *, target: float, overlapping: bool) -> int:
    """The smallest B that keeps the share of time lost to exchanges at most `target`; see the module.

    Args:
        costs: As measured, at whatever B.
        p: Processes of the node.
        target: Share of time, between 0 and 1.
        overlapping: The processes go on during an exchange: B is also to be long enough for it.
    """
    update_s = costs.update_s(p)
    if update_s <= 0.0:  # all of the time was lost, so nothing is known of an update: as many more as were made
        return math.ceil(costs.updates / p / target)
    lost_s = costs.lost_s / costs.exchanges
    needed = lost_s * (1.0 - target) / (target * update_s)
    if overlapping:
        needed = max(needed, costs.exchange_s / update_s)
    return max(1, math.ceil(needed))


class Pace:
    """B of one node as it is now, and the rule by which it changes.

    It rises as soon as a window shows that it is too small, and falls when 0.7 of it would have been enough three times
    in a row.

    Args:
        B: To begin with.
        p: Processes of the node.
        most: The largest B that may be chosen; `B` for one that stays.
        target: Share of time that may be lost to exchanges.
        overlapping: See `fewest_updates`.
        rate_B: The B that the local learning rate is for: with another it is scaled by Eq. 13. None: it is not.
    """

    def __init__(
        self,
        B: int,
        p: int,
        *,
        most: int | None = None,
        target: float = 0.05,
        overlapping: bool = False,
        rate_B: int | None = None,
    ) -> None:
        self.B = B
        self.p = p
        self.target = target
        self.overlapping = overlapping
        self._most = most
        self._rate_B = rate_B
        self._enough: list[int] = []  # what would have been, in windows in a row that asked for less

    @property
    def rate_scale(self) -> float:
        """Factor on the local learning rate."""
        if self._rate_B is None:
            return 1.0
        return corollary_rate(1.0, p=1, B=self.B, M=1) / corollary_rate(1.0, p=1, B=self._rate_B, M=1)

    def consider(self, costs: Costs) -> str | None:
        """Look at a window; says why B has changed, if it has."""
        if self._most is None:
            return None
        fewest = min(self._most, fewest_updates(costs, self.p, target=self.target, overlapping=self.overlapping))
        self._enough = [*self._enough, fewest] if fewest <= _LOWER * self.B else []
        if fewest <= self.B and len(self._enough) < _LOWER_WINDOWS:
            return None
        old, self.B = self.B, max(self._enough, default=fewest)
        self._enough = []
        return (
            f"B = {self.B} instead of {old}: {100 * costs.lost_share:.1f} % of the time was lost to exchanges of"
            f" {1000 * costs.exchange_s:.1f} ms, an update takes {1000 * costs.update_s(self.p):.1f} ms"
        )


class PaceablePool(Protocol):
    """What `PacedPool` needs of the process pool that it wraps (`hsa2c.node.process_pool.ProcessPool`)."""

    local_updates: int
    """B, for processes that do not stop for an exchange."""

    @property
    def updates(self) -> int:
        """Updates of u so far."""

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector: ...  # noqa: D102

    def start(self, v: Vector, B: int, *, rate_scale: float) -> None: ...  # noqa: D102

    def after_updates(self, *, listener: Listener) -> Vector: ...  # noqa: D102

    def add(self, difference: Vector, *, rate_scale: float) -> None: ...  # noqa: D102

    def halt(self) -> Vector: ...  # noqa: D102

    def mention(self, what: Mapping[str, Any]) -> None:
        """Put something into the next report."""

    def report(self) -> bytes: ...  # noqa: D102

    def state(self) -> Vector: ...  # noqa: D102


class PacedPool:
    """A process pool that makes as many updates as its pace says, whatever B it is asked for, and measures what
    exchanges cost.

    Both of Algorithm 2's loops (`hsa2c.dpsgd.worker`) use it like the process pool that it wraps.

    Args:
        process pool: Whose processes work.
        pace: What B is.
        window_s: Seconds after which B is considered again.
        clock: In seconds; one that stands still while the process is stopped (`hsa2c.transport.waiting.WorkingClock`),
        if
            that may be.
        cpu_clock: Seconds of processor time of the thread that exchanges.
    """

    def __init__(
        self,
        pool: PaceablePool,
        pace: Pace,
        *,
        window_s: float = _WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._pool = pool
        self._pace = pace
        self._window_s = window_s
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._exchange_began_at: float | None = None
        self._open_window()

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.run`."""
        self._exchange_ends()
        u = self._pool.run(v, self._pace.B, rate_scale=self._pace.rate_scale * rate_scale, listener=listener)
        self._exchange_begins()
        return u

    def start(self, v: Vector, B: int, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningPool.start`."""
        self._pool.start(v, self._pace.B, rate_scale=self._pace.rate_scale * rate_scale)
        self._open_window()

    def after_updates(self, *, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningPool.after_updates`."""
        s = self._pool.after_updates(listener=listener)
        self._exchange_begins()
        return s

    def add(self, difference: Vector, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningPool.add`."""
        self._pool.add(difference, rate_scale=self._pace.rate_scale * rate_scale)
        self._exchange_ends()
        self._pool.local_updates = self._pace.B

    def halt(self) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningPool.halt`."""
        return self._pool.halt()

    def report(self) -> bytes:
        """See `hsa2c.dpsgd.worker.Pool.report`."""
        return self._pool.report()

    def state(self) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.state`."""
        return self._pool.state()

    # Measuring.

    def _open_window(self) -> None:
        self._window_at = self._clock()
        self._cpu_at = self._cpu_clock()
        self._updates_at = self._pool.updates
        self._exchanges = 0
        self._exchanging_s = 0.0

    def _exchange_begins(self) -> None:
        self._exchange_began_at = self._clock()

    def _exchange_ends(self) -> None:
        if self._exchange_began_at is None:  # the first v of all
            self._open_window()
            return
        now = self._clock()
        self._exchanging_s += now - self._exchange_began_at
        self._exchanges += 1
        self._exchange_began_at = None
        if now - self._window_at >= self._window_s and self._exchanges >= _WINDOW_EXCHANGES:
            self._close_window(now)

    def _close_window(self, now: float) -> None:
        pace = self._pace
        taken_s = (self._cpu_clock() - self._cpu_at) / pace.p
        costs = Costs(
            seconds=now - self._window_at,
            updates=self._pool.updates - self._updates_at,
            exchanges=self._exchanges,
            exchanging_s=self._exchanging_s,
            lost_s=taken_s if pace.overlapping else self._exchanging_s,
        )
        why = pace.consider(costs)
        self._pool.mention(
            {"pace": {"B": pace.B, "why": why, "p": pace.p, "rate_scale": pace.rate_scale, **asdict(costs)}}
        )
        self._open_window()
