"""The p actor-learners of a node: processes that share u and the optimiser's state, and nothing else.

The memory is an anonymous mapping made before the fork: it has no name, so nothing can be left behind, whoever is
killed when. The parent waits on sockets between two rounds; between its first and its last update a process touches no
lock, no queue and no socket.

A process that dies or raises is replaced: another begins with the same u and the same optimiser's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hsa2c.dpsgd.protocols import Listener, Vector
from hsa2c.errors import NodeError
from hsa2c.node.actor_learner import MakeProblem, live
from hsa2c.node.layout import Layout
from hsa2c.node.memory import SharedVectors
from hsa2c.node.orders import DONE, ORDER, PROGRESS, READY, RESTS, Reports, to_json
from hsa2c.node.processes import ActorLearner, Processes

_POLL_S = 0.05  # how often a waiting parent looks for the master's stop


@dataclass(frozen=True, kw_only=True)
class PoolLimits:
    """A process pool's clock, in seconds."""

    start_s: float = 300.0
    """Until every process has built its problem."""
    tell_s: float = 1.0
    """Between two signs of life while a round goes on."""
    keep_s: float = 50.0
    """Between two copies of the optimiser's state sent to the master for a checkpoint."""
    deaths: int = 3
    """So many processes lost within `deaths_s`, and the node gives up."""
    deaths_s: float = 60.0
    """See `deaths`."""
    rest_s: float = 5.0
    """After a stop: until a process that has not come to the end of its step is no longer waited for."""
    finish_s: float = 10.0
    """How long a process may take to end when asked; a second where one was no longer waited for."""


class ProcessPool:
    """p forked processes that update one u without any lock.

    Make it before anything starts a thread or calls MPI_Init: it forks.

    Args:
        make_problem: Called in each process with its index, 0 to p - 1.
        layout: How u lies in memory and is changed; the local optimiser's state is kept from one `run` to the next.
        p: Processes.
        state: The optimiser's state to start from, float32 [state_dim].
        limits: The process pool's clock.
        suspect: See `Processes`.
    """

    def __init__(
        self,
        make_problem: MakeProblem,
        layout: Layout,
        p: int,
        *,
        state: Vector | None = None,
        limits: PoolLimits | None = None,
        suspect: str = "",
    ) -> None:
        self._shared = SharedVectors(layout.size, layout.state_size, p)
        self._shared.go_on(state)
        self._layout = layout
        self._applied = self._reported = 0  # updates in u as it was last copied, and of them those that were reported
        self._shares_done = 0  # of B updates each, since the last exchange began
        self._resting: set[int] = set()
        self._interrupted_at: float | None = None
        self._limits = limits = limits or PoolLimits()
        self._reports = Reports()
        self._kept_at = time.monotonic()
        life = partial(live, make_problem, self._shared, layout)
        self._processes = Processes(
            life, p, self._reports, deaths=limits.deaths, deaths_s=limits.deaths_s, suspect=suspect
        )
        try:
            self._processes.start()
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids of the actor-learners."""
        return self._processes.pids

    @property
    def updates(self) -> int:
        """Updates of u so far, those of processes that were replaced included."""
        return int(self._shared.applied.sum())

    @property
    def local_updates(self) -> int:
        """B, for processes that do not stop for an exchange."""
        return self._shared.local_updates

    @local_updates.setter
    def local_updates(self, B: int) -> None:
        self._shared.local_updates = B

    def wait_ready(self) -> None:
        """Return when every process has built its problem; from then on one that dies is replaced.

        Raises:
            NodeError: One could not, or took too long.
        """
        deadline = time.monotonic() + self._limits.start_s

        def check_time() -> None:
            if time.monotonic() > deadline:
                raise NodeError(f"actor-learners not ready after {self._limits.start_s:.0f} s")

        for _ in self._answers(READY, check_time):
            pass
        self._processes.replacing = True

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.run`. A process that replaces another does all of the round's B updates.

        Raises:
            NodeError: Too many actor-learners raised (a traceback is in the message) or died, or u is not finite.
            ProblemError: A gradient does not fit u.
        """
        u = self._begin(v, B, rate_scale, running=False)
        for report in self._answers(DONE, _Attention(self, listener, self._limits.tell_s)):
            self._reports.add(report)
        self._processes.rest()
        self._keep(listener)
        self._applied = self.updates
        return _finite(self._layout.value(u))

    def start(self, v: Vector, B: int, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningPool.start`."""
        assert self._layout.in_place
        self._shares_done = 0
        self._resting.clear()
        self._shared.rate_scale = rate_scale
        self._shared.local_updates = B
        self._begin(v, B, rate_scale, running=True)

    def after_updates(self, *, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningPool.after_updates`.

        Raises:
            NodeError: As `run`.
        """
        self._listen_until(
            lambda: self._shares_done >= len(self._processes), _Attention(self, listener, self._limits.tell_s)
        )
        self._take_in(self._processes.hear(0.0))  # what was done before u is copied counts for this exchange
        self._shares_done = 0
        self._keep(listener)
        return self._copy()

    def add(self, difference: Vector, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningPool.add`."""
        self._shared.rate_scale = rate_scale
        u = self._shared.u.numpy()
        u += difference  # unlocked: a lost write is S_b of Eq. 3

    def halt(self) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningPool.halt`.

        Raises:
            NodeError: As `run`.
        """
        self.interrupt()
        self._listen_until(lambda: False, lambda: None)
        self._processes.rest()
        return self._copy()

    def _copy(self) -> Vector:
        """U as it is."""
        self._applied = self.updates
        return _finite(self._shared.u.numpy().copy())  # unlocked: what lies between two updates is P_{b,j} of Eq. 5

    def _begin(self, v: Vector, B: int, rate_scale: float, *, running: bool) -> Vector:
        u = self._shared.u.numpy()
        self._layout.enter(v, u)
        self._shared.interrupted, self._interrupted_at = False, None
        self._processes.order(ORDER.pack(B, rate_scale, running))
        return u

    def _keep(self, listener: Listener) -> None:
        if time.monotonic() - self._kept_at >= self._limits.keep_s:
            listener.keep(self.state())
            self._kept_at = time.monotonic()

    def _listen_until(self, enough: Callable[[], bool], attend: Callable[[], None]) -> None:
        """Take in what running processes say, until it is enough or all of them rest."""
        while not enough() and len(self._resting | self._idle()) < len(self._processes):
            self._take_in(self._processes.hear(_POLL_S))
            attend()

    def _take_in(self, messages: list[tuple[ActorLearner, bytes, bytes]]) -> None:
        for process, kind, body in messages:
            self._reports.add(body)
            if kind == DONE:
                self._shares_done += 1
            elif kind == RESTS:
                self._resting.add(process.index)

    def mention(self, what: Mapping[str, Any]) -> None:
        """Put something into the next report, as JSON."""
        self._reports.add(to_json(what))

    def report(self) -> bytes:
        """See `hsa2c.dpsgd.worker.Pool.report`.

        It goes with a delta, and says how many updates are in that, those of processes that died included.
        """
        if self._applied != self._reported:
            self._reports.add(to_json({"applied": self._applied - self._reported}))
            self._reported = self._applied
        return self._reports.take()

    def news(self) -> bytes:
        """What happened since the last report, between two deltas."""
        return self._reports.take()

    def state(self) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.state`."""
        return self._shared.state.numpy()

    def interrupt(self) -> None:
        """Let the round end early: each process stops before its next update."""
        self._shared.interrupted = True
        self._interrupted_at = self._interrupted_at or time.monotonic()

    def close(self) -> None:
        """End the processes: asked first, killed after a while."""
        late = self._late()
        self.interrupt()
        self._processes.close(min(1.0, self._limits.finish_s) if late else self._limits.finish_s)

    def _late(self) -> bool:
        return self._interrupted_at is not None and time.monotonic() - self._interrupted_at > self._limits.rest_s

    def _idle(self) -> set[int]:
        """Who will do nothing more in a round that is to end, or not in time: an environment may hang for a minute."""
        if not self._shared.interrupted:
            return set()
        return set(range(len(self._processes))) if self._late() else self._processes.coming

    def _answers(self, last: bytes, attend: Callable[[], None]) -> Iterator[bytes]:
        """Each process's message of kind `last`; `attend` is called again and again meanwhile."""
        outstanding = set(range(len(self._processes)))
        while outstanding - self._idle():
            for process, kind, body in self._processes.hear(_POLL_S):
                if kind == last:
                    outstanding.discard(process.index)
                    yield body
                elif kind == PROGRESS:
                    self._reports.add(body)
            attend()


class _Attention:
    """What a node's parent does while its processes work: look for a stop, give signs of life."""

    def __init__(self, pool: ProcessPool, listener: Listener, every_s: float) -> None:
        self._pool = pool
        self._every_s = every_s
        self._listener = listener
        self._told_at = time.monotonic()

    def __call__(self) -> None:
        if self._listener.stopping():
            self._pool.interrupt()
        if time.monotonic() - self._told_at >= self._every_s:
            self._listener.tell(self._pool.news())
            self._told_at = time.monotonic()


def _finite(u: Vector) -> Vector:
    if not np.isfinite(u.sum()):  # a sum that overflows is none of a healthy parameter's either
        raise NodeError("its local parameter u is no longer finite")
    return u
