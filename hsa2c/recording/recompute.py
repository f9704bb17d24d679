"""The nodes of a recorded run work again, one after another, at the v that each of them saw.

That can be done where a node's work depends on nothing but v and seeds: one process, that stops for an exchange. Its
Algorithm 2 runs at the v that it was sent, which the repetition of Algorithm 1 has made, and its delta must be the one
that came, bit for bit. If it is not, something else than v and seeds had a hand in it: a race inside the node.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Pulled, Vector, WorkerPort
from hsa2c.dpsgd.worker import worker
from hsa2c.node.layout import Layout
from hsa2c.node.serial import SerialPool
from hsa2c.recording.format import Frame, Kind
from hsa2c.recording.replay import DifferenceError, at_step
from hsa2c.transport.codec import Encoding, Feedback, finite
from hsa2c.transport.master_port import NOT_FINITE
from hsa2c.transport.v_delta import Serving, What


class ReplayedPool(SerialPool):
    """One actor-learner that ends after as many gradients as it made in the run.

    Args:
        problem: As made for the node's process.
        layout: As the node's.
        state: The optimiser's state at the start, float32 [state_dim].
    """

    def __init__(self, problem: Problem, layout: Layout, *, state: Vector | None = None) -> None:
        super().__init__(problem, layout, state=state)
        self._problem = self._counting = _Counting(problem)  # the layout has the problem itself
        access = self._access
        # As a node's process does: a gradient that is not finite is not used.
        self._access = access._replace(step=lambda g: access.step(g) if access.finite(g) else None)

    def begin(self) -> None:
        """Count gradients from here."""
        self._counting.gradients = 0

    @property
    def gradients(self) -> int:
        """Since `begin`."""
        return self._counting.gradients

    def close(self) -> None:
        """Release what the problem holds."""
        self._counting.close()


class _Counting(Problem):
    """A problem whose gradients are counted."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.gradients = 0

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any | None:
        g = self._problem.gradient(u_hat, interrupted)
        self.gradients += 1
        return g

    def report(self) -> Mapping[str, Any]:
        return self._problem.report()

    def close(self) -> None:
        self._problem.close()


class _Round(WorkerPort):
    """A port for one round of Algorithm 2: one v, one delta."""

    def __init__(self, pulled: Pulled, stopping: Callable[[], bool]) -> None:
        self._pulled: Pulled | None = pulled
        self._stopping = stopping
        self.delta: Vector | None = None
        self.since = -1

    def pull(self) -> Pulled | None:
        pulled, self._pulled = self._pulled, None
        return pulled

    def push(self, delta: Vector, *, since: int, report: bytes) -> None:
        self.delta, self.since = delta, since

    def stopping(self) -> bool:
        return self._stopping()

    def tell(self, report: bytes) -> None: ...

    def keep(self, state: Vector) -> None: ...

    def leave(self, state: Vector) -> None: ...

    def fail(self, message: str) -> None: ...


class Nodes:
    """The nodes of a recorded run, each with one process that stops for an exchange; they work one after another.

    A node is given up, with a word, where it is another process than it was: what it had in memory is not known.

    Attributes:
        given_up: Why, by node.

    Args:
        make_pool: Makes a node's process pool, as it was at the start of the recording; gets its number, what it said
        of
            itself, and its optimiser's state, float32 [state_dim], None for the first.
        B: Local updates.
        encoding: Of deltas.
        v_encoding: In which steps of v went to the nodes.
    """

    def __init__(
        self,
        make_pool: Callable[[int, Mapping[str, Any], Vector | None], ReplayedPool],
        B: int,
        *,
        encoding: Encoding = Encoding.FLOAT32,
        v_encoding: Encoding = Encoding.FLOAT32,
    ) -> None:
        self.given_up: dict[int, str] = {}
        self._make_pool = make_pool
        self._B = B
        self._encoding = encoding
        self._serving = Serving(v_encoding)
        self._pools: dict[int, ReplayedPool] = {}
        self._feedback: dict[int, Feedback] = {}
        self._said: dict[int, Mapping[str, Any]] = {}
        self._states: list[Vector] = []
        self._v: dict[int, Vector] = {}
        self._pulled: dict[int, Pulled] = {}

    def see(self, frame: Frame, serving: Vector | None) -> None:
        """Take in what happened beside deltas; `serving` is v at that time."""
        if frame.kind is Kind.ANSWER and serving is not None:
            self._answer(frame, serving)
        elif frame.kind is Kind.REFUSED and frame.text() == NOT_FINITE and frame.node not in self.given_up:
            self._refuse(frame)
        elif frame.kind is Kind.STATE:
            self._states.append(frame.floats())
        elif frame.kind is Kind.NOTE:
            item = json.loads(bytes(frame.payload))
            if "ready" in item:
                self._said.setdefault(frame.node, item["ready"])
            if len(item.get("ready", {}).get("actor_learners", (0,))) > 1:
                self._give_up(frame.node, "its processes share u without a lock")
            if "fault" in item:
                self._give_up(frame.node, f"it lost a process before step {frame.t + 1}")

    def _answer(self, frame: Frame, v: Vector) -> None:
        """A node gets v, or what is new in it, as over the wire."""
        node = frame.node
        answer = self._serving.answer(v, frame.t, frame.since)
        if frame.since == -1 and node in self._pools:
            self._give_up(node, f"another process was node {node} from step {frame.t + 1} on")
        if answer.numbers is not None:
            numbers = answer.numbers.decode()
            self._v[node] = self._v[node] + numbers if answer.what is What.STEP else numbers
        if node in self.given_up:
            return
        self._pulled[node] = Pulled(self._v[node], frame.t, frame.number)
        if node not in self._pools:
            state = self._states[node % len(self._states)] if self._states else None
            self._pools[node] = self._make_pool(node, self._said.get(node, {}), state)
            self._feedback[node] = Feedback(self._encoding)

    def compare(self, frame: Frame, delta: Vector, t: int) -> int:
        """Compute a delta that came, anew.

        Returns:
            How many were computed: 0 or 1.

        Raises:
            DifferenceError: It is another one.
        """
        if frame.node in self.given_up:
            return 0
        who = f"the delta of node {frame.node} at the v of step {frame.since}"
        computed = self._compute(frame)
        if computed is None:
            raise DifferenceError(at_step(t, f"{who}: the node had not been sent a v since its last delta"))
        since, w = computed
        if since != frame.since:
            raise DifferenceError(at_step(t, f"{who}: the node had been sent that of step {since}"))
        arrives = self._feedback[frame.node].encode(w).decode()
        if not np.array_equal(arrives.view(np.uint32), delta.view(np.uint32)):
            raise DifferenceError(at_step(t, f"{who}, computed anew, is another: {_compared(arrives, delta)}"))
        return 1

    def _refuse(self, frame: Frame) -> None:
        computed = self._compute(frame)
        if computed is not None and finite(computed[1]):
            what = f"the delta of node {frame.node} at the v of step {computed[0]}, computed anew, is finite"
            raise DifferenceError(at_step(frame.t, f"{what}; the one that came was not"))

    def _compute(self, frame: Frame) -> tuple[int, Vector] | None:
        """A round of Algorithm 2; since and delta, or None where the node has no new v."""
        pulled = self._pulled.pop(frame.node, None)
        if pulled is None:
            return None
        pool = self._pools[frame.node]
        gradients = self._B if frame.count < 0 else frame.count
        pool.begin()
        port = _Round(pulled, lambda: pool.gradients >= gradients)
        worker(port, pool, self._B)
        assert port.delta is not None
        return port.since, port.delta

    def _give_up(self, node: int, why: str) -> None:
        self.given_up.setdefault(node, why)
        self._pulled.pop(node, None)

    def close(self) -> None:
        """Release what the nodes' problems hold."""
        for pool in self._pools.values():
            pool.close()


def _compared(a: Vector, b: Vector) -> str:
    """How far two vectors of one length are apart, in words."""
    differing = a.view(np.uint32) != b.view(np.uint32)
    with np.errstate(invalid="ignore", over="ignore"):
        most = float(np.abs(a[differing].astype(np.float64) - b[differing]).max())
    return f"{int(differing.sum())} of {a.size} numbers, by at most {most:.3g}"
