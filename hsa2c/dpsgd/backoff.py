"""How long one sleeps between two looks for a message: MPI has no wait that costs nothing."""

from __future__ import annotations

FIRST_S = 50e-6
LAST_S = 2e-3
_PATIENT_LAST_S = 20e-3
_PATIENT_FIRST_S = 0.25


class Backoff:
    """Sleeps that grow while nothing happens: twice as long each time, to a limit.

    Args:
        expected_s: How long it took last time: half of that is slept at once, and the limit, 2 ms, grows to an eighth
            of the time waited. For many nodes that wait for one master: a look at whether it has answered costs 0.1 ms
            of a core, which they share with it, or with their actor-learners. None: neither.
    """

    def __init__(self, expected_s: float | None = None) -> None:
        self._patient = expected_s is not None
        self._next_s = min(max(FIRST_S, (expected_s or 0.0) / 2), _PATIENT_FIRST_S)
        self._waited_s = 0.0

    def next_s(self) -> float:
        """How long to sleep now, in seconds."""
        sleep_s = self._next_s
        self._waited_s += sleep_s
        last_s = min(max(LAST_S, self._waited_s / 8), _PATIENT_LAST_S) if self._patient else LAST_S
        self._next_s = min(2 * sleep_s, last_s)
        return sleep_s
