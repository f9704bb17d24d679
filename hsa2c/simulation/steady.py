"""When enough was simulated: the figures stand still, by the method of batch means (Law 2014, section 9.5.3).

A simulation is cut into rounds. The first third of them is left out, since a cluster is not at once as it stays. The
others are put together into batches of one, two, three or more, for what returns every few rounds would not even out
otherwise. The mean of the batches' figures is as certain as their scatter says, and the simulation may end when a 95 %
confidence interval is narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_FEWEST = 5  # batches
_T = 2.776  # Student's t for 95 % and the fewest batches; with more it is less, so that the interval is rather too wide


def steady_since(figures: npt.NDArray[np.float64], tolerances: Sequence[float]) -> int | None:
    """From which round on the figures stand still until the last one.

    Args:
        figures: Of each round, float64 [rounds, number of figures].
        tolerances: Half of a figure's interval over its mean, at most.

    Returns:
        The first round of those that count; None: they do not stand still yet.
    """
    rounds = len(figures)
    counting = rounds - math.ceil(rounds / 3)
    for length in range(1, counting // _FEWEST + 1):
        first = rounds - counting // length * length
        batches = figures[first:].reshape(-1, length, figures.shape[1]).mean(axis=1)
        half = _T * batches.std(axis=0, ddof=1) / math.sqrt(len(batches))
        if (half <= np.asarray(tolerances) * batches.mean(axis=0)).all():
            return first
    return None
