"""How long one sleeps between two looks for a message: MPI has no wait that costs nothing."""

from __future__ import annotations

FIRST_S = 50e-6
LAST_S = 2e-3
_LONG_LAST_S = 20e-3
_MOST_AT_ONCE_S = 0.25
_UNHURRIED_FIRST_S = 1e-3


class Backoff:
    """Sleeps that grow while nothing happens: twice as long each time, to a limit of 2 ms.

    Args:
        first_s: The first.
        share: Of the time waited, to which the limit grows; it never is longer than 20 ms.
    """

    def __init__(self, first_s: float = FIRST_S, share: float = 0.0) -> None:
        self._next_s = first_s
        self._share = share
        self._waited_s = 0.0

    def next_s(self) -> float:
        """How long to sleep now, in seconds."""
        sleep_s = self._next_s
        self._waited_s += sleep_s
        self._next_s = min(2 * sleep_s, max(LAST_S, self._share * self._waited_s), _LONG_LAST_S)
        return sleep_s


def expecting(seconds: float) -> Backoff:
    """For what took so long last time: half of that is slept at once, then an eighth of the time waited.

    For many nodes that wait for one master: a look at whether it has answered costs 0.1 ms of a core, which they share
    with it, or with their actor-learners.
    """
    return Backoff(min(max(FIRST_S, seconds / 2), _MOST_AT_ONCE_S), share=1 / 8)


def unhurried() -> Backoff:
    """For one that nobody stands still for: 1 ms, and soon half of the time waited. Each look takes the core from an
    actor-learner.
    """
    return Backoff(_UNHURRIED_FIRST_S, share=1 / 2)
