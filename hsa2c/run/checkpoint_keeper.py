"""When a run writes a checkpoint, and which is the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hsa2c.config.protocol import RunConfig
from hsa2c.dpsgd.protocols import Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import StorageError
from hsa2c.observe.runlog import RunLog
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint import Checkpoint
from hsa2c.tracker import Tracker


class CheckpointKeeper:
    """Writes a run's checkpoints. Times `now` are seconds of its caller's clock.

    Attributes:
        best: The best quality that was saved; None before the first.
        evaluated: Whether evaluations say which is the best (`hsa2c.run.evaluations`), and not the tracker.
        folder: Where they are.

    Args:
        config: The run's configuration.
        plain: The same as plain values.
        identity: What a checkpoint of this run must agree on.
        directory: The run's directory.
        log: Where events go.
        tracker: Says how good v is.
        step: The global step, whose velocity is part of a checkpoint.
        states: Optimiser states by node, of the checkpoint that the run resumes.
        best: See the attribute.
        counters: Gives those of now; "global_steps" is t.
    """

    def __init__(
        self,
        *,
        config: RunConfig,
        plain: Mapping[str, Any],
        identity: Mapping[str, str],
        directory: Path,
        log: RunLog,
        tracker: Tracker,
        step: GlobalStep,
        states: tuple[Vector, ...],
        best: float | None,
        counters: Callable[[], dict[str, Any]],
    ) -> None:
        self.best = best
        self.evaluated = False
        self.folder = directory / "checkpoints"
        self._output = config.output
        self._plain, self._identity = plain, identity
        self._log, self._tracker, self._step = log, tracker, step
        self._states: dict[int, Vector] = dict(enumerate(states))
        self._fresh: set[int] = set()
        self._saved_at = 0.0
        self._counters = counters

    def begin(self, now: float) -> None:
        """The time to the first checkpoint counts from here."""
        self._saved_at = now

    def kept(self, node: int, state: Vector) -> None:
        """Copy a node's optimiser state."""
        if node in self._states and self._states[node].size == state.size:
            np.copyto(self._states[node], state)
        else:
            self._states[node] = state.copy()
        self._fresh.add(node)

    def stepped(self, v: Vector, now: float, *, working: int) -> None:
        """Write the checkpoint that is due after a global step, if one is; so many nodes work.

        Raises:
            StorageError: It could not be written; it is tried again after as long as between two.
        """
        every_s, since_s = self._output.checkpoint_every_s, now - self._saved_at
        # With the optimiser state of every node at hand, v and the states belong together: better now than later.
        complete = len(self._fresh) >= working and since_s >= 0.8 * every_s
        best = self.best
        try:
            if complete or since_s >= every_s:
                self.save(v, now)
            elif self._tracker.measure(v, due=False) and self._is_best():
                checkpoints.save_best(self.folder, self._checkpoint(v), tell=self._warn)
        except StorageError:
            self.best = best  # so the best one is tried again, too
            raise

    def save(self, v: Vector, now: float, *, measured: bool = False) -> Path:
        """Write a checkpoint, and the best one if this is it; `measured` says that the tracker has looked at v."""
        self._saved_at = now
        self._fresh.clear()
        if not measured:
            self._tracker.measure(v, due=True)
        improved = self._is_best()
        checkpoint = self._checkpoint(v)
        path = checkpoints.save(self.folder, checkpoint, keep=self._output.keep_checkpoints, tell=self._warn)
        if improved:
            checkpoints.save_best(self.folder, checkpoint, tell=self._warn)
        self._log.event("checkpoint", f"checkpoint {path.name}", path=str(path), best=improved)
        return path

    def save_candidate(self, v: Vector) -> Path:
        """Write v down to be evaluated.

        Raises:
            HSA2CError: It could not be written, or cannot be a checkpoint.
        """
        return checkpoints.save_candidate(self.folder, self._checkpoint(v), tell=self._warn)

    def _warn(self, message: str) -> None:
        self._log.event("warning", message)

    def _is_best(self) -> bool:
        """Whether the tracker's quality is better than any saved before; it then counts as saved."""
        quality = None if self.evaluated else self._tracker.quality
        if quality is None or (self.best is not None and quality <= self.best):
            return False
        self.best = quality
        return True

    def _checkpoint(self, v: Vector) -> Checkpoint:
        counters = self._counters()
        return Checkpoint(
            v=v,
            momentum=self._step.z,
            optimiser_states=tuple(self._states[node] for node in sorted(self._states)),
            t=counters["global_steps"],
            counters=counters,
            config=self._plain,
            identity=self._identity,
        )
