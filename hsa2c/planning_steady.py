"""When enough was simulated: the rates stand still, by the method of batch means (Law 2014, section 9.5.3).

What follows the beginning is cut into rounds, and these into batches of one, two, three or more, for what returns every
few rounds would not even out otherwise. The mean of the batches' rates is as certain as their scatter says, and the
simulation may end when a 95 % confidence interval is narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FEWEST = 5
"""Batches that are needed."""
_T = 2.776  # Student's t for 95 % and the fewest batches; with more it is less, so that the interval is rather too wide


class Rounds:
    """What has grown until the end of each round.

    Args:
        tolerance: Half of the interval over the mean, at most, for each of the rates.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._ends: list[tuple[float, ...]] = []

    def end(self, seconds: float, grown: Sequence[float]) -> bool:
        """End a round, and begin the next; the first call only begins one.

        Args:
            seconds: The time.
            grown: What has grown until then, each at a rate that may stand still.

        Returns:
            Whether every rate is known well enough.
        """
        self._ends.append((seconds, *grown))
        rounds = len(self._ends) - 1
        lengths = range(1, rounds // FEWEST + 1)
        return any(self._steady(length) for length in lengths if rounds % length == 0)

    def _steady(self, length: int) -> bool:
        """Whether batches of so many rounds say so."""
        batches = np.diff(np.array(self._ends[::length]), axis=0)
        rates = batches[:, 1:] / batches[:, :1]
        half = _T * rates.std(axis=0, ddof=1) / math.sqrt(len(rates))
        return bool((half <= self._tolerance * rates.mean(axis=0)).all())
