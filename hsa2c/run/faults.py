"""What went wrong in a run that goes on all the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hsa2c.errors import StorageError
from hsa2c.observe.runlog import RunLog

_KINDS = (
    "actor_learners_lost",
    "nodes_lost",
    "nodes_back",
    "gradients_refused",
    "deltas_refused",
    "checkpoints_unwritten",
    "evaluations_failed",
)


class Faults:
    """Counts faults, tells each in the journal, and knows which nodes are lost.

    Attributes:
        counts: By kind, earlier sessions included.

    Args:
        log: Where events go.
        nodes: How many are to work.
        counters: Those of the checkpoint that the run resumes; empty at the start.
    """

    def __init__(self, log: RunLog, nodes: int, counters: Mapping[str, Any]) -> None:
        self.counts = {kind: int(counters.get(kind, 0)) for kind in _KINDS}
        self._log = log
        self._nodes = nodes
        self._lost: set[int] = set()

    @property
    def working(self) -> int:
        """Nodes that are not lost."""
        return self._nodes - len(self._lost)

    def actor_learner_lost(self, node: int, *, message: str, traceback: str | None, pids: list[int]) -> None:
        """A node has replaced an actor-learner; `pids` are those that it has now."""
        self.counts["actor_learners_lost"] += 1
        message = f"node {node}: {message}"
        self._log.event("warning", message, node=node, traceback=traceback, actor_learners=pids)

    def gradients_refused(self, node: int, gradients: int) -> None:
        """A node has not used so many, which may be none."""
        if gradients:
            self.counts["gradients_refused"] += gradients
            are = "gradient is" if gradients == 1 else "gradients are"
            self._log.event("warning", f"node {node}: {gradients} {are} not finite, and not used", node=node)

    def delta_refused(self, node: int, why: str) -> None:
        """The master has not used a delta."""
        self.counts["deltas_refused"] += 1
        self._log.event("warning", f"node {node}: {why}, and not used", node=node)

    def node_lost(self, node: int, why: str) -> None:
        """A node is lost; a traceback may follow the first line of `why`."""
        self._lost.add(node)
        self.counts["nodes_lost"] += 1
        headline, _, traceback = why.partition("\n")
        self._log.event("node_lost", f"node {node}: {headline}", node=node, traceback=traceback or None)

    def node_back(self, node: int, how: str) -> None:
        """A node works again, or another in the place of a lost one."""
        if self._lost:
            # A spare has another number than the one whose place it takes.
            self._lost.discard(node if node in self._lost else min(self._lost))
        self.counts["nodes_back"] += 1
        self._log.event("node_back", f"node {node} {how}", node=node)

    def checkpoint_unwritten(self, error: StorageError, again_s: float) -> None:
        """A checkpoint found no room; the next is tried in `again_s`."""
        self.counts["checkpoints_unwritten"] += 1
        self._log.event("warning", f"{error}; going on, and trying again in {again_s:g} s")

    def evaluation_failed(self, step: int, why: str) -> None:
        """An evaluation beside training came to nothing; a traceback may follow the first line of `why`."""
        self.counts["evaluations_failed"] += 1
        headline, _, traceback = why.partition("\n")
        self._log.event("warning", f"the evaluation at step {step:,} failed: {headline}", traceback=traceback or None)
