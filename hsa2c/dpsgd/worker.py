"""Algorithm 2: a worker, that is one node and its p processes (Mohamad et al. 2022). No transport, no processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Listener, Vector, WorkerPort


class Pool(Protocol):
    """The p actor-learners of a node (`hsa2c.node.process_pool`)."""

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        """Put v into shared memory as u, let every process run `actor_learner` there, give back u."""

    def report(self) -> bytes:
        """What happened since the last report."""

    def state(self) -> Vector:
        """The local optimiser's state, float32 [state_dim]."""


def worker(port: WorkerPort, pool: Pool, B: int) -> None:
    """Exchange with the master until it has stopped: the outer loop, lines 1 to 7.

    # Paper: B is a constant; here a process pool may make another number of updates (`hsa2c.node.pace.PacedPool`),
    # because
    what an exchange costs is known only when it is seen, and may change.
    """
    while (pulled := port.pull()) is not None:  # lines 1 and 2
        u = pool.run(pulled.v, B, rate_scale=pulled.rate_scale, listener=port)  # lines 3 to 6
        port.push(u - pulled.v, since=pulled.t, report=pool.report())  # line 7: w = u - v
    port.leave(pool.state())


class RunningPool(Protocol):
    """The same processes, when they do not stop for an exchange."""

    def start(self, v: Vector, B: int, *, rate_scale: float) -> None:
        """Put v into shared memory as u; every process runs `actor_learner` there, again and again."""

    def after_updates(self, *, listener: Listener) -> Vector:
        """U as it is p B updates after the last time, by whichever processes; sooner if the master has stopped."""

    def add(self, difference: Vector, *, rate_scale: float) -> None:
        """U <- u + difference, while the processes go on."""

    def halt(self) -> Vector:
        """U when every process has ended its update."""

    def report(self) -> bytes:
        """What happened since the last report."""

    def state(self) -> Vector:
        """The local optimiser's state, float32 [state_dim]."""


def overlapping_worker(port: WorkerPort, pool: RunningPool, B: int) -> None:
    """Algorithm 2 with its exchange in the background: no process waits for another, nor for the master.

    # Paper: the processes stop, the node pushes u - v and pulls a new v, they go on from there; here they go on
    # updating u meanwhile, because then an exchange costs them nothing. With s the u that was copied for the push, and
    # b the v whose difference to s was pushed:

        w = s - b               pushed; the processes go on, from s to u
        v                       pulled, when it comes
        u <- u + (v - s)        what the others did, and what the master made of w
        b <- v                  so that the next w = s' - v is the work since s, once and for all

    B is an average: an exchange begins when the p processes have made p B updates between them since the last began.
    With one node and rho = M = 1, v is s but for rounding, and u is left as it is. The delay of a delta is counted from
    the v at which the first of its updates was made, which is one exchange older than b: so what a node does while it
    is cut off is as old as it is.
    """
    pulled = port.pull()
    if pulled is not None:
        pool.start(pulled.v, B, rate_scale=pulled.rate_scale)
        b = pulled.v
        since = pulled.t
        while True:
            s = pool.after_updates(listener=port)
            port.push(s - b, since=since, report=pool.report())
            since = pulled.t  # what is done from now on begins at this v, and the next answer may be long in coming
            pulled = port.pull()
            if pulled is None:
                break
            pool.add(pulled.v - s, rate_scale=pulled.rate_scale)
            b = pulled.v
        port.push(pool.halt() - s, since=since, report=pool.report())  # no work is lost at the end
    port.leave(pool.state())


def actor_learner(
    read: Callable[[], Any],
    problem: Problem,
    step: Callable[[Any], None],
    B: int,
    interrupted: Callable[[], bool],
) -> int:
    """One process's share, lines 3 to 6: B updates of the shared u, without any lock.

    Args:
        read: Line 4: gives a private copy of u, the node's parameter in shared memory, or of the part that is needed;
            all p processes read and write u at any time (`hsa2c.node.layout`).
        problem: Gives the gradient.
        step: Line 6 on u.
        B: Local updates.
        interrupted: The run is stopping: finish early.

    Returns:
        Updates applied: B unless interrupted.
    """
    for b in range(B):
        if interrupted():
            return b
        u_hat = read()  # line 4; unlocked: u may be between two updates, P_{b,j} of Eq. 5
        g = problem.gradient(u_hat, interrupted)  # line 5
        if g is None:
            return b
        step(g)  # line 6: u <- u - eta * g; unlocked: a lost write is S_b of Eq. 3
    return B
