"""Nodes on a simulated clock: processes whose updates take time drawn from a distribution.

`TimedPool` has no problem: its vectors never change, only time passes, and B updates of p processes are one draw. What
it is held to, `hsa2c.simulation.stepped_pool`, has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hsa2c.dpsgd.protocols import Listener, Vector
from hsa2c.simulation.clock import SimulatedClock

_POOL = 16_384  # draws that are made at once
_EXACT = 64  # a sum of more draws is taken to be gamma-distributed, of the same mean and variance


class UpdateTimes:
    """How long an update takes.

    Args:
        mean_s: Mean, in seconds.
        variation: Standard deviation over mean; the distribution is lognormal.
        samples: Measured ones, to be drawn from instead, in seconds.
        seed: Of the draws.
    """

    def __init__(
        self, mean_s: float, variation: float = 0.0, *, samples: Sequence[float] | None = None, seed: int = 0
    ) -> None:
        self._samples = None if samples is None else np.array(samples, np.float64)
        self.mean_s = mean_s if self._samples is None else float(self._samples.mean())
        if self._samples is not None:
            variation = float(self._samples.std() / self.mean_s) if self.mean_s else 0.0
        self._variation = variation
        self._random = np.random.default_rng(seed)
        self._pools: dict[tuple[Callable[..., npt.NDArray[np.float64]], int, int], list[float]] = {}

    def one(self) -> float:
        """Of one update."""
        return self._drawn(self._slowest, 1, 1)

    def slowest(self, B: int, p: int) -> float:
        """Until each of p processes has made B updates."""
        return self._drawn(self._slowest, B, p)

    def together(self, B: int, p: int) -> float:
        """Until p processes have made p B updates between them, while they go on and on."""
        return self._drawn(self._together, B, p)

    def _drawn(self, draw: Callable[..., npt.NDArray[np.float64]], B: int, p: int) -> float:
        pool = self._pools.get((draw, B, p))
        if not pool:
            pool = self._pools[draw, B, p] = draw(B, p).tolist()
        return pool.pop()

    def _slowest(self, B: int, p: int) -> npt.NDArray[np.float64]:
        n = max(1, min(256, _POOL // (p * min(B, _EXACT))))
        slowest: npt.NDArray[np.float64] = self.sums(B, n * p).reshape(n, p).max(axis=1)
        return slowest

    def _together(self, B: int, p: int) -> npt.NDArray[np.float64]:
        return self.sums(p * B, 256) / p

    def sums(self, count: int, n: int) -> npt.NDArray[np.float64]:
        """N sums of `count` updates each."""
        if self._variation == 0.0 or self.mean_s == 0.0:
            return np.full(n, count * self.mean_s)
        if count > _EXACT:
            shape = count / self._variation**2
            return self._random.gamma(shape, count * self.mean_s / shape, n)
        each: npt.NDArray[np.float64]
        if self._samples is not None:
            each = self._random.choice(self._samples, (n, count))
        else:
            variance = math.log1p(self._variation**2)
            log_mean = math.log(self.mean_s) - variance / 2
            each = self._random.lognormal(log_mean, math.sqrt(variance), (n, count))
        return np.asarray(each.sum(axis=1))


class SimulatedNode:
    """What both process pools have in common: signs of life, the optimiser's state, and what an exchange takes.

    Args:
        clock: What tells the time.
        p: Processes.
        times: Of their updates.
        slowness: Factor on these.
        exchange_s: Processor time of the node for an exchange; see `hsa2c.node.pace`.
        free_core: Whether the node has a core besides those of its processes, so that they lose nothing of it.
        tell_s: Between two signs of life; see `hsa2c.node.process_pool.PoolLimits`.
        keep_s: Between two copies of the optimiser's state.
        first_keep_s: Until the first one; None: as long.

    Attributes:
        updates: Made so far.
        exchanging_cpu_s: Processor time that exchanges took.
        local_updates: B, for processes that do not stop for an exchange.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        p: int,
        times: UpdateTimes,
        *,
        slowness: float = 1.0,
        exchange_s: float = 0.0,
        free_core: bool = False,
        tell_s: float = 1.0,
        keep_s: float = 50.0,
        first_keep_s: float | None = None,
    ) -> None:
        self.updates = 0
        self.exchanging_cpu_s = 0.0
        self.local_updates = 1
        self._clock = clock
        self._p = p
        self._times = times
        self._slowness = slowness
        self._exchange_s = exchange_s
        self._lost_s = 0.0 if free_core else exchange_s / p  # by each process that goes on
        self._tell_s = tell_s
        self._keep_s = keep_s
        self._keep_at = clock.now + (keep_s if first_keep_s is None else first_keep_s)

    def mention(self, what: Mapping[str, Any]) -> None:
        """See `hsa2c.node.pace.PaceablePool`; nobody reads it here."""

    def report(self) -> bytes:
        """See `hsa2c.dpsgd.worker.Pool.report`."""
        return b"[]"

    def news(self) -> bytes:
        """What happened since the last report, between two deltas."""
        return b"[]"

    def state(self) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.state`."""
        return np.zeros(0, np.float32)

    def _wait(self, enough: Callable[[], bool], until: float, listener: Listener) -> None:
        """Let time pass until it is enough, or until then, or until the master says stop."""
        clock = self._clock
        tell_at = clock.now + self._tell_s
        while not listener.stopping() and clock.now < until and not enough():
            clock.wait(min(until, tell_at))
            if clock.now >= tell_at:
                listener.tell(self.news())
                tell_at = clock.now + self._tell_s

    def _exchange(self, listener: Listener) -> None:
        self.exchanging_cpu_s += self._exchange_s
        if self._clock.now >= self._keep_at:
            listener.keep(self.state())
            self._keep_at = self._clock.now + self._keep_s


class TimedPool(SimulatedNode):
    """A node that only takes time; see `SimulatedNode` for what it is made of. Its u is v."""

    _since: float | None = None  # the beginning of the updates that are under way
    _owed = 0.0  # a part of an update, not yet counted

    @property
    def made(self) -> float:
        """Updates so far, with those under way that can be expected to be there."""
        if self._since is None:
            return float(self.updates)
        rate = self._p / (self._slowness * self._times.mean_s) if self._times.mean_s else 0.0
        return self.updates + self._owed + (self._clock.now - self._since) * rate

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.run`."""
        self._since, lasts_s = self._clock.now, self._slowness * self._times.slowest(B, self._p)
        self._wait(lambda: False, self._since + lasts_s, listener)
        done = 1.0 if lasts_s == 0.0 else min(1.0, (self._clock.now - self._since) / lasts_s)
        self._since = None
        self.updates += round(done * self._p * B)
        self._clock.sleep(self._exchange_s)
        self._exchange(listener)
        return v

    def start(self, v: Vector, B: int, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningPool.start`."""
        self.local_updates = B
        self._u = v.copy()
        self._since = self._clock.now

    def after_updates(self, *, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningPool.after_updates`."""
        assert self._since is not None
        B = self.local_updates
        lasts_s = self._slowness * self._times.together(B, self._p) + self._lost_s
        self._wait(lambda: False, self._since + lasts_s, listener)
        now = self._clock.now
        # They went on during the exchange, so there may be more than p B.
        done = self._owed + self._p * B * (1.0 if lasts_s == 0.0 else (now - self._since) / lasts_s)
        self.updates += int(done)
        self._owed = done - int(done)
        self._since = now
        self._clock.sleep(self._exchange_s)
        self._exchange(listener)
        return self._u

    def add(self, difference: Vector, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningPool.add`."""

    def halt(self) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningPool.halt`."""
        self.updates, self._since = int(self.made), None
        return self._u
