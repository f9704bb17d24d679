"""A node on a simulated clock that learns as a real one: gradients, local optimiser, reports to the monitor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import NodeError
from hsa2c.node.layout import Layout
from hsa2c.node.orders import to_json
from hsa2c.simulation.clock import SimulatedClock
from hsa2c.simulation.gradients import Gradients
from hsa2c.simulation.process_pool import UpdateTimes
from hsa2c.simulation.stepped_pool import SteppedPool

_REFUSALS = 100  # gradients in a row that are not finite: as in `hsa2c.node.actor_learner`


class Times(NamedTuple):
    """How long the gradients of a node's processes take; the update that follows is in it."""

    gradient: UpdateTimes
    gathering: UpdateTimes | None = None
    """Of what gathering takes beside, for each of the gradients that the data are for; None: nothing."""


class LearningPool(SteppedPool):
    """A node whose gradients come from `Gradients`.

    Args:
        gradients: Computes them.
        learners: Which of the learners there are this node's processes.
        layout: How u is changed; in place.
        clock: See `SimulatedNode`.
        times: How long they take.
        state: The optimiser's state to start from, float32 [layout.state_size].
        slowness: Factor on the times.
        options: See `SimulatedNode`.
    """

    def __init__(
        self,
        gradients: Gradients,
        learners: range,
        layout: Layout,
        clock: SimulatedClock,
        times: Times,
        *,
        state: Vector | None = None,
        slowness: float = 1.0,
        **options: Any,
    ) -> None:
        assert layout.in_place
        self._own: list[bytes] = []
        self._reports: list[bytes] = []
        self._applied = self._refused = self._refused_in_a_row = 0

        problems = [
            _Elsewhere(gradients, learner, clock, times, slowness, self._reports.append) for learner in learners
        ]
        super().__init__(problems, self._change, layout.size, clock, None, slowness=slowness, **options)
        self._state = torch.zeros(layout.state_size)
        if state is not None:
            self._state.numpy()[:] = state
        # The problems are elsewhere, and the layout of a vector that is changed as a whole asks nothing of them.
        self._access = layout.attach(torch.from_numpy(self.u), self._state, problems[0])

    def _change(self, u: Vector, g: Any, rate_scale: float) -> None:
        """Line 6, where the gradient is finite."""
        if self._access.finite(g):
            self._access.scale_rate(rate_scale)
            self._access.step(g)
            self._applied += 1
            self._refused_in_a_row = 0
            return
        self._refused += 1
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= _REFUSALS:
            raise NodeError(f"{_REFUSALS} gradients in a row are not finite")

    def mention(self, what: Mapping[str, Any]) -> None:
        """See `hsa2c.node.pace.PaceablePool`."""
        self._own.append(to_json(what))

    def report(self) -> bytes:
        """See `hsa2c.dpsgd.worker.Pool.report`."""
        if self._applied:
            self.mention({"applied": self._applied})
            self._applied = 0
        return self.news()

    def news(self) -> bytes:
        """What happened since the last report, between two deltas."""
        if self._reports and (self.overlaps or self._refused):
            last = json.loads(self._reports.pop()) | {"overlap": self.overlaps, "refused_gradients": self._refused}
            self._reports.append(to_json(last))
            self.overlaps.clear()
            self._refused = 0
        said = b"[" + b",".join((*self._reports, *self._own)) + b"]"
        self._reports.clear()
        self._own.clear()
        return said

    def state(self) -> Vector:
        """See `hsa2c.dpsgd.worker.Pool.state`."""
        state: Vector = self._state.numpy()
        return state


class _Elsewhere(Problem):
    """A problem that lives in another process; its gradients are there when their modelled time is over."""

    def __init__(
        self,
        gradients: Gradients,
        learner: int,
        clock: SimulatedClock,
        times: Times,
        slowness: float,
        tell: Callable[[bytes], None],
    ) -> None:
        self._gradients, self._learner = gradients, learner
        self._clock, self._times, self._slowness = clock, times, slowness
        self._tell = tell

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any | None:
        gradient_s = self._slowness * self._times.gradient.one()
        gathering_s = self._slowness * self._gathering_s()
        known = self._gradients.known_gathered_for or 1
        self._gradients.begin(
            self._learner, torch.from_numpy(u_hat), self._clock.now + gradient_s + gathering_s * known
        )
        self._clock.sleep(gradient_s)
        if gathering_s:
            self._clock.sleep(gathering_s * (self._gradients.gathered_for(self._learner) or 1))
        # What is under way when the run stops nobody waits for: it may take minutes, of many processes together.
        if interrupted() or (computed := self._gradients.end(self._learner)) is None:
            return None
        self._tell(computed.report)
        return computed.g

    def _gathering_s(self) -> float:
        """Of gathering for one gradient, where the next one gathers; or where nothing is gathered apart."""
        gathers = self._gradients.gathers(self._learner) or not self._gradients.known_gathered_for
        return self._times.gathering.one() if gathers and self._times.gathering else 0.0
