"""How long the deltas are and whether they point the same way, for a small share of the master's time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hsa2c.dpsgd.protocols import Vector

_SHARE = 0.01  # most of the master's time that looking may take


class Looks(NamedTuple):
    """What was seen since the last time; deltas without length have no cosine."""

    norms: list[tuple[int, float]]
    """Node and Euclidean norm |w| of each delta looked at."""
    cosines: list[tuple[int, float]]
    """Node and cosine of each delta with the mean delta of the global step before, in -1 to 1."""
    agreements: list[float]
    """Of each global step looked at, |sum_m w_m| / sum_m |w_m|: the mean of its deltas' cosines with their own mean,
    each weighted by its norm. 1 where all point the same way, about M^-0.5 where they are orthogonal.
    """


class DeltaCosines:
    """Looks at whole global steps, one after the other, and rests when that has taken more than its share of time.

    A delta's cosine with the mean of its own step would need all M deltas until the last has come. In one pass, with
    two vectors like v whatever M is, there are its cosine with the mean of the step before, and the (weighted) mean of
    the cosines with its own: with w = sum_m w_m, sum_m |w_m| cos(w_m, w) = sum_m w_m . w / |w| = |w|. Deltas are taken
    as they were received, before D' and rho.

    Args:
        share: Most of the time that looking may take, 0 to 1: what took s seconds is followed by at least s / share
            seconds, counted from its beginning, without a look.
        clock: Seconds; for tests.
    """

    def __init__(self, share: float = _SHARE, clock: Callable[[], float] = time.perf_counter) -> None:
        self._share = share
        self._clock = clock
        self._looks = Looks([], [], [])
        self._sum: Vector | None = None
        self._before: Vector | None = None  # the sum of the step before
        self._before_norm = 0.0  # 0: that step was not looked at
        self._received = 0  # in the present step
        self._norms = 0.0  # their sum
        self._resting = False
        self._began_at = clock()
        self._spent_s = 0.0

    def received(self, node: int, delta: Vector) -> None:
        """A delta, float32 [dim], of the present step; valid during the call."""
        if self._resting:
            return
        began_at = self._clock()
        if self._sum is None:
            self._sum = np.zeros_like(delta)
        norm = _norm(delta)
        self._looks.norms.append((node, norm))
        if self._before is not None and self._before_norm > 0 and norm > 0:
            cosine = float(np.dot(self._before, delta)) / self._before_norm / norm
            self._looks.cosines.append((node, min(1.0, max(-1.0, cosine))))
        if self._received:
            self._sum += delta
        else:
            np.copyto(self._sum, delta)
        self._received += 1
        self._norms += norm
        self._spent_s += self._clock() - began_at

    def stepped(self) -> None:
        """The step of the deltas since the last call was taken."""
        now = self._clock()
        if self._resting:
            if now - self._began_at >= self._spent_s / self._share:
                self._begin(now)
            return
        if self._sum is None or not self._received:
            return
        complete = self._before_norm > 0
        length = _norm(self._sum)
        if self._norms > 0:
            self._looks.agreements.append(min(1.0, length / self._norms))
        self._sum, self._before, self._before_norm = self._before, self._sum, length
        self._received, self._norms = 0, 0.0
        self._spent_s += self._clock() - now
        # Two steps in a row at least: a step has cosines only if the one before was looked at.
        if complete and now - self._began_at >= self._spent_s / self._share:
            self._began_at, self._spent_s = now, 0.0
        elif complete:
            self._resting, self._before_norm = True, 0.0

    def take(self) -> Looks:
        """What was seen since the last time."""
        looks, self._looks = self._looks, Looks([], [], [])
        return looks

    def _begin(self, now: float) -> None:
        self._resting = False
        self._began_at, self._spent_s = now, 0.0


def _norm(w: Vector) -> float:
    return math.sqrt(float(np.dot(w, w)))
