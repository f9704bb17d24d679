"""A node on a simulated clock whose p processes minimise a problem, update by update."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Listener, Vector
from hsa2c.dpsgd.worker import actor_learner
from hsa2c.simulation.clock import Process, SimulatedClock
from hsa2c.simulation.process_pool import SimulatedNode, UpdateTimes


class Step(Protocol):
    """Line 6: change u, float32 [dim], by a gradient, in place."""

    def __call__(self, u: Vector, g: Any, rate_scale: float) -> None: ...  # noqa: D102


class SteppedPool(SimulatedNode):
    """A node whose p processes run `actor_learner` as it is.

    An update reads u_hat when it begins and changes u when it ends; whatever the others did meanwhile it has not seen.

    Args:
        problems: One for each process; a gradient is of the form that `step` takes.
        step: Line 6.
        dim: Length of u.
        clock: See `SimulatedNode`.
        times: See `SimulatedNode`. None: a problem lets the time of its gradients pass itself, and is given u instead
            of a copy.
        options: See `SimulatedNode`.

    Attributes:
        u: float32 [dim].
        overlaps: How many updates had each number of others between their beginning and their end.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        step: Step,
        dim: int,
        clock: SimulatedClock,
        times: UpdateTimes | None,
        **options: Any,
    ) -> None:
        super().__init__(clock, len(problems), times or UpdateTimes(0.0), **options)
        self.u: Vector = np.zeros(dim, np.float32)
        self.overlaps: Counter[int] = Counter()
        self._copies = times is not None
        self._problems = [_Slow(problem, self._sleep) for problem in problems] if self._copies else problems
        self._step = step
        self._rate_scale = 1.0
        self._interrupted = False
        self._shares_done = 0  # of B updates each
        self._exchanges = 0  # that cost the processes something
        self._working = 0
        self._learners: list[Process] = []
        self._parent: Process | None = None

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.run`."""
        self.start(v, B, rate_scale=rate_scale, forever=False)
        self._wait(lambda: not self._working, math.inf, listener)
        self.halt()
        self._clock.sleep(self._exchange_s)
        self._exchange(listener)
        return self.u

    def start(self, v: Vector, B: int, *, rate_scale: float, forever: bool = True) -> None:
        """See `hsa2c.dpsgd.worker.RunningPool.start`."""
        self.u[:] = v
        self._rate_scale = rate_scale
        self.local_updates = B
        self._interrupted = False
        self._parent = self._clock.current()
        self._working = self._p
        self._learners = [self._clock.start(self._live, problem, forever) for problem in self._problems]

    def after_updates(self, *, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningPool.after_updates`."""
        self._wait(lambda: self._shares_done >= self._p, math.inf, listener)
        self._shares_done = 0
        s = self.u.copy()
        if self._exchange_s:
            self._exchanges += 1
            self._clock.sleep(self._exchange_s)
        self._exchange(listener)
        return s

    def add(self, difference: Vector, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningPool.add`."""
        self._rate_scale = rate_scale
        self.u += difference

    def halt(self) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningPool.halt`."""
        self._interrupted = True
        while self._working:
            self._clock.wait(math.inf)
        return self.u.copy()

    def kill(self) -> None:
        """Let the processes do nothing any more, as if their host had lost its power."""
        for learner in self._learners:
            self._clock.kill(learner)

    def _live(self, problem: Problem, forever: bool) -> None:
        """One actor-learner process."""
        before, paid = 0, self._exchanges

        def read() -> Vector:
            nonlocal before
            before = self.updates
            return self.u.copy() if self._copies else self.u

        def step(g: Any) -> None:
            nonlocal paid
            self._step(self.u, g, self._rate_scale)
            self.overlaps[self.updates - before] += 1
            self.updates += 1
            if self._lost_s and paid < self._exchanges:
                lost_s, paid = self._lost_s * (self._exchanges - paid), self._exchanges
                self._clock.sleep(lost_s)

        while True:
            actor_learner(read, problem, step, self.local_updates, lambda: self._interrupted)
            if self._interrupted or not forever:
                break
            self._shares_done += 1
            if self._shares_done >= self._p:
                self._wake_parent()
        self._working -= 1
        self._wake_parent()

    def _sleep(self) -> None:
        self._clock.sleep(self._slowness * self._times.one())

    def _wake_parent(self) -> None:
        if self._parent is not None:
            self._clock.wake(self._parent)


class _Slow(Problem):
    """A problem whose gradients take time."""

    def __init__(self, problem: Problem, sleep: Callable[[], None]) -> None:
        self._problem = problem
        self._sleep = sleep

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any | None:
        g = self._problem.gradient(u_hat, interrupted)
        self._sleep()
        return g

    def report(self) -> Mapping[str, Any]:
        return self._problem.report()

    def close(self) -> None:
        self._problem.close()
