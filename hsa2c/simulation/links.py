"""Links of a modelled bandwidth and delay, and what shares them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from hsa2c.simulation.clock import SimulatedClock

_LEAST_WEIGHT = 1e-6  # of the last of many that share a lane, whatever the seniority


@dataclass(frozen=True, kw_only=True)
class Link:
    """How fast a host's link is, each way."""

    bytes_per_s: float = float("inf")
    latency_s: float = 0.0
    """From host to host, one way: the first byte's."""
    unfairness: float = 0.0
    """Messages that share a lane get of it in proportion to weights, which are lognormal: the standard deviation of
    their logarithms. 0: all get the same."""
    seniority: float = 0.0
    """How much less weight a message has than the one that came before it and is still under way: what TCP has sent
    already is first in the switch's queue, and a window that is open is not closed at once. 0: none."""
    loss: float = 0.0
    """n messages that share a lane have 1 / (1 + loss (n - 1)) of it together: the rest is packets dropped, timeouts
    and what is sent again."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes on the wire at all masters together, whatever the arrays of the simulation hold. None: as they are."""

    v: int | None = None
    delta: int | None = None
    state: int | None = None
    text: int | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """Seconds of processor time of one master."""

    message_s: float = 0.0
    """For each message, whichever way it goes."""
    push_s: float = 0.0
    """To take in a delta and to add it to the sum."""
    keep_s: float = 0.0
    """To take in an optimiser's state."""
    answer_s: float = 0.0
    """To send v."""


class Lane:
    """One direction of the master's link, shared by what is under way there.

    Args:
        clock: What tells the time.
        bytes_per_s: Of all together.
        each_bytes_per_s: The most that a message has of it, on the average: its node's speed.
        tcp: How messages share it (`Link`); its speed is unused.
        seed: Of the weights.

    Attributes:
        busy_s: Seconds that what was carried so far took of it.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        bytes_per_s: float,
        each_bytes_per_s: float,
        tcp: Link | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.busy_s = 0.0
        self._clock = clock
        self._bytes_per_s = bytes_per_s
        self._each = min(bytes_per_s, each_bytes_per_s)
        self._tcp = tcp or Link()
        self._random = Random(seed)
        # One number says what everybody has had for a weight of 1: who came when it was c ends at c + size / weight.
        self._carried = 0.0
        self._carried_at = 0.0
        self._under_way: list[tuple[float, int, float, Callable[[], None]]] = []
        self._weights = 0.0
        self._changes = 0

    def carry(self, size: int, sent: Callable[[], None]) -> None:
        """Carry so many bytes from now on; `sent` is called when the last of them has gone."""
        self.busy_s += size / self._bytes_per_s
        if self._each == math.inf:
            self._clock.call_at(self._clock.now, sent)
            return
        self._go_on()
        weight = self._weight()
        self._weights += weight
        heapq.heappush(self._under_way, (self._carried + size / weight, self._changes, weight, sent))
        self._look_again()

    def _weight(self) -> float:
        uneven = self._tcp.unfairness
        weight = self._random.lognormvariate(0.0, uneven) if uneven else 1.0
        return weight * max((1 - self._tcp.seniority) ** len(self._under_way), _LEAST_WEIGHT)

    def _go_on(self) -> None:
        """Give everybody what they had since the last time."""
        now = self._clock.now
        if self._under_way:
            self._carried += self._speed() * (now - self._carried_at)
        else:
            self._carried = self._weights = 0.0
        self._carried_at = now

    def _speed(self) -> float:
        """Bytes a second for a weight of 1."""
        number = len(self._under_way)
        together = self._bytes_per_s / (1 + self._tcp.loss * (number - 1))
        return min(self._each * number, together) / self._weights

    def _look_again(self) -> None:
        """Come back when the first of them will end; void, if there is a change before."""
        self._changes += 1
        if self._under_way:
            left_s = max(0.0, self._under_way[0][0] - self._carried) / self._speed()
            self._clock.call_at(self._carried_at + left_s, self._end, self._changes)

    def _end(self, change: int) -> None:
        if change != self._changes:
            return
        self._go_on()
        self._carried = max(self._carried, self._under_way[0][0])  # but for rounding, it is that
        ended = []
        while self._under_way and self._under_way[0][0] <= self._carried:
            _, _, weight, sent = heapq.heappop(self._under_way)
            self._weights -= weight
            ended.append(sent)
        self._look_again()
        for sent in ended:
            sent()
