"""One actor-learner in this very process: the reference, and the tool of tests."""

from __future__ import annotations

from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Listener, Vector
from hsa2c.dpsgd.worker import actor_learner
from hsa2c.node.layout import Layout
from hsa2c.node.memory import SharedVectors
from hsa2c.node.orders import Reports, to_json


class SerialPool:
    """One actor-learner in this very process: the reference, and the tool of tests.

    Args:
        problem: What to minimise.
        layout: How u lies in memory and is changed.
        state: The optimiser's state to start from, float32 [state_dim].
    """

    def __init__(self, problem: Problem, layout: Layout, *, state: Vector | None = None) -> None:
        self._shared = SharedVectors(layout.size, layout.state_size)
        self._shared.go_on(state)
        self._problem = problem
        self._layout = layout
        self._access = layout.attach(self._shared.u, self._shared.state, problem)
        self._reports = Reports()

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.run`."""
        u = self._shared.u.numpy()
        self._layout.enter(v, u)
        self._access.scale_rate(rate_scale)
        actor_learner(self._access.read, self._problem, self._access.step, B, listener.stopping)
        self._reports.add(to_json(self._problem.report()))
        return self._layout.value(u)

    def report(self) -> bytes:
        """See `hsa2c.dpsgd.worker.Pool.report`."""
        return self._reports.take()

    def state(self) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.state`."""
        return self._shared.state.numpy()
