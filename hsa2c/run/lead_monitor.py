"""The monitor of the lead of several masters: the run's log book, of all of v."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hsa2c.dpsgd.protocols import Vector
from hsa2c.run.monitor import RunMonitor
from hsa2c.transport.several_masters import Followers

_GATHER_S = 1.0  # between two looks at all of v, or a tenth of the time between two checkpoints if that is less


class LeadMonitor(RunMonitor):
    """What looks on at one master, where v is held by several: it looks at v now and then, once it is gathered.

    Args:
        followers: The other masters. Their `v` is the whole one, and their `z` the velocity of `step`.
        rest: See `RunMonitor`; `step` is of the whole v.
    """

    def __init__(self, *, followers: Followers, **rest: Any) -> None:
        super().__init__(**rest)
        self._followers = followers
        self._every_s = min(_GATHER_S, self._config.output.checkpoint_every_s / 10)
        self._gather_at = time.monotonic()
        self._own_t = self._t

    def stopping(self) -> bool:
        """See `Monitor.stopping`; also listens to the followers.

        Raises:
            TransportError: See `Followers.attend`.
            NodeError: See `Followers.attend`.
        """
        self._followers.attend()
        if self._followers.gathered():
            self._gather_at = time.monotonic() + self._every_s
            super().stepped(self._own_t, self._followers.v)
        stopping = super().stopping()
        if stopping:
            self._followers.stop()
        return stopping

    def stepped(self, t: int, v: Vector) -> None:
        """See `Monitor.stepped`; `v` is a slice."""
        self._own_t = t
        if self._started_at is not None and time.monotonic() >= self._gather_at:
            self._followers.ask()

    def found(self, node: int, how: str) -> None:
        """See `Monitor.found`; a spare begins with all masters."""
        super().found(node, how)
        if node >= self._nodes:
            self._followers.call(node)

    def finish(self, v: Vector) -> Path:
        """See `RunMonitor.finish`; `v` is a slice.

        Raises:
            TransportError: See `Followers.attend`.
            NodeError: See `Followers.attend`.
        """
        self._followers.gather_last()
        self._t = self._own_t
        return super().finish(self._followers.v)

    def fail(self, message: str, v: Vector) -> None:
        """See `RunMonitor.fail`; `v` is a slice. What is kept is v as it was gathered last."""
        super().fail(message, self._followers.v)
