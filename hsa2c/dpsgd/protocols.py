"""What master and workers say to each other, whatever carries it: the messages and the two ports.

    worker                               master
      tell   I am ready ------------------->
      pull   ------------------------------>
             <------------------------------ v, t, rate scale      (or: the master has stopped)
      (B updates by p processes; `tell` now and then, so that nobody is silent for long)
      keep   optimiser state, when due ---->
      push   delta, since, report --------->
      leave  optimiser state, at the end -->

Implementations: `hsa2c.transport.inprocess` (queues) and `hsa2c.transport.mpi.master`. One conformance suite tests
both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pulled:
    """The master's answer to a pull."""

    v: Vector
    """Global parameter, float32 [dim]."""
    t: int
    """Global steps behind v."""
    rate_scale: float
    """Factor on the local learning rate eta now: 1, or less on a schedule."""


@dataclass(frozen=True, slots=True)
class Push:
    """A delta on its way into v; `delta` is valid until the next message is taken from the port."""

    node: int
    delta: Vector
    """w = u - v as pulled, float32 [dim]."""
    since: int
    """t of the v that was pulled: the delay tau of Assumption 5 is the present t less this."""
    waited_s: float = 0.0
    """How long the exchange before had taken its node: sending the delta, and waiting for that v."""
    delta_bytes: int = 0
    """What this delta was on the wire; 0 where there is none."""
    v_bytes: int = 0
    """The same of the v that the node had pulled before."""


class Monitor:
    """Looks on while the master works: metrics, checkpoints, stop conditions. The algorithm is the same without.

    Here it never stops and takes note of nothing: who looks on says what it wants to know.
    """

    def stopping(self) -> bool:
        """Whether to stop now; asked every few milliseconds, or every 20 where it is quiet, so that it may also do
        what is due by time.
        """
        return False

    def rate_scale(self) -> float:
        """Factor on eta for the next pull."""
        return 1.0

    def answered(self, node: int, pulled: Pulled, has: int) -> None:
        """A node was sent v, in place of that of global step `has`, or (-1) for the first time."""

    def heard(self, node: int, report: bytes) -> None:
        """A node said what happened: a JSON list, empty for a mere sign of life."""

    def kept(self, node: int, state: Vector) -> None:
        """A node sent its local optimiser's state, float32 [state_dim]; valid during the call."""

    def received(self, push: Push, tau: int) -> None:
        """A delta was added to the sum."""

    def stepped(self, t: int, v: Vector) -> None:
        """Line 3 was done for the t-th time."""

    def lost(self, node: int, why: str) -> None:
        """A node failed, died or is silent: it is not waited for. `why` may go on with a traceback."""

    def found(self, node: int, how: str) -> None:
        """A node that was lost is there again, or another one in its place."""

    def refused(self, node: int, why: str) -> None:
        """A delta was thrown away."""

    def slept(self, seconds: float) -> None:
        """The master had nothing to do for so long, since the last time."""


class MasterPort(Protocol):
    """The master's end.

    Before training, a node that fails or does not come is an error: NodeError, TransportError. Later the others go on
    without it, and both mean that none is left.
    """

    def assemble(self, monitor: Monitor) -> bool:
        """Wait until every node is there and has pulled; False if `monitor` says stop before that."""

    def collect(self, M: int, *, serving: Vector, t: int, monitor: Monitor) -> Iterator[Push]:
        """The next `quorum(M)` deltas, whoever sends first; fewer if `monitor` says stop. Pulls are answered with
        `serving`.
        """

    def quorum(self, M: int) -> int:
        """M, and in proportion less where nodes are lost: the share of them that is there, rounded up."""

    def drain(self, *, monitor: Monitor) -> Iterator[Push]:
        """Tell every node to stop, give the deltas that were still on their way, and wait until all have left."""


class Listener(Protocol):
    """Whom a process pool may ask and tell in the middle of its updates."""

    def stopping(self) -> bool:
        """Whether the master said stop."""

    def tell(self, report: bytes) -> None:
        """Send a report: a JSON list, empty for a mere sign of life."""

    def keep(self, state: Vector) -> None:
        """Send the local optimiser's state, for the next checkpoint."""


class WorkerPort(Listener, Protocol):
    """A node's end. The arrays that it is given may be reused as soon as a method returns."""

    def pull(self) -> Pulled | None:
        """The present v, valid until the next pull; None when the master has stopped.

        Raises:
            TransportError: No answer within the limit.
        """

    def push(self, delta: Vector, *, since: int, report: bytes) -> None:
        """Send a delta."""

    def leave(self, state: Vector) -> None:
        """Send the local optimiser's state for the last checkpoint; nothing is sent after it."""

    def fail(self, message: str) -> None:
        """Tell the master that this node cannot go on, and why."""
