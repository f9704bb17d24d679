"""When v is evaluated while training goes on, what came of it, and which checkpoint is the best by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import CheckpointError, EvaluationError, HSA2CError
from hsa2c.observe.runlog import EVALUATE, RunLog
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint_keeper import CheckpointKeeper
from hsa2c.run.evaluator import EVALUATED, Evaluator
from hsa2c.run.faults import Faults

_LAST_S = 60.0  # the most that the evaluation of the last checkpoint may take: training has ended, and somebody waits
_MOST_FAILED = 3  # in a row
_LOOK_S = 0.05


class Evaluations:
    """Evaluates v now and then, one evaluation at a time. Times `now` are seconds of its caller's clock.

    Attributes:
        values: Of rows: the newest evaluation's, with the step and the training time of what was evaluated.

    Args:
        evaluator: The process.
        keeper: Writes checkpoints; from here on it leaves it to evaluations which is the best.
        log: Where events go.
        faults: Counts those that fail.
        counters: Of the checkpoint that the run resumes; empty at the start.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        keeper: CheckpointKeeper,
        log: RunLog,
        faults: Faults,
        counters: Mapping[str, Any],
    ) -> None:
        self.values: dict[str, float | int | None] = dict(counters.get("evaluations", {}))
        self._evaluator, self._keeper, self._folder = evaluator, keeper, keeper.folder
        keeper.evaluated = True
        self._log, self._faults = log, faults
        self._best = _quality_of_best(keeper.folder, evaluator)
        self._failed = 0
        self._began_at = 0.0
        self._place: dict[str, float | int] = {}

    def begin(self, now: float) -> None:
        """The time to the first one counts from here."""
        self._began_at = now

    def stepped(self, v: Vector, now: float, *, step: int, elapsed_s: float) -> None:
        """Start the evaluation that is due after a global step, if one is.

        Args:
            v: The global parameter.
            now: See the class.
            step: Work done so far (`Tracker.work`).
            elapsed_s: Seconds of training so far.
        """
        if not self._evaluator.busy and now - self._began_at >= self._evaluator.plan.every_s:
            self._start(v, now, step, elapsed_s, beside_training=True)

    def attend(self, now: float) -> None:
        """See whether one has ended, or takes too long; call it often."""
        self._look(now, self._evaluator.plan.limit_s)

    def finish(self, v: Vector, *, step: int, elapsed_s: float, stopping: Callable[[], bool]) -> None:
        """Evaluate the last v, unless that was done, or `stopping` says that nobody is to wait for it.

        Args:
            v: The global parameter.
            step: See `stepped`.
            elapsed_s: See `stepped`.
            stopping: Whether it is to end before it is done; asked again and again.
        """
        self._evaluator.stop()
        done = self.values.get(f"{EVALUATE}step") == step
        if not done and not stopping() and self._failed < _MOST_FAILED:
            limit_s = min(_LAST_S, self._evaluator.plan.limit_s)
            self._log.event("evaluating", f"evaluating the last checkpoint, for {limit_s:.0f} s at most")
            began_at = time.monotonic()
            self._start(v, began_at, step, elapsed_s, beside_training=False)
            while self._evaluator.busy and not stopping():
                self._look(time.monotonic(), limit_s)
                time.sleep(_LOOK_S)
            self._evaluator.stop()
        checkpoints.candidate(self._folder).unlink(missing_ok=True)

    def _start(self, v: Vector, now: float, step: int, elapsed_s: float, *, beside_training: bool) -> None:
        if self._failed >= _MOST_FAILED:
            return
        self._began_at = now
        self._place = {f"{EVALUATE}step": step, f"{EVALUATE}elapsed_s": round(elapsed_s, 3)}
        try:
            self._evaluator.begin(self._keeper.save_candidate(v), beside_training=beside_training)
        except HSA2CError as error:  # a full disk, a v that is not finite, no more processes
            self._fail(str(error))

    def _look(self, now: float, limit_s: float) -> None:
        if not self._evaluator.busy:
            return
        try:
            if (values := self._evaluator.result()) is not None:
                self._take(values)
            elif now - self._began_at > limit_s:
                self._evaluator.stop()
                self._fail(f"no end within {limit_s:g} s")
        except (EvaluationError, OSError) as error:
            self._fail(str(error))

    def _take(self, values: Mapping[str, float | None]) -> None:
        """Take in what an evaluation came to; the checkpoint that it was of may be the best one."""
        self._failed = 0
        plan = self._evaluator.plan
        quality = plan.quality(values)
        if better := quality is not None and (self._best is None or quality > self._best):
            checkpoints.make_best(self._folder)
            self._best = quality
        key = plan.best.removeprefix("-")
        best = -self._best if self._best and plan.best.startswith("-") else self._best
        self.values = {
            **{f"{EVALUATE}{name}": value for name, value in values.items()},
            f"{EVALUATE}best_{key}": best,
            **self._place,
        }
        self._log.event(
            "evaluation",
            f"evaluated at step {self._place[f'{EVALUATE}step']:,}: {key} {values[key]:g}{', the best' * better}",
            best=better,
            **self.values,
        )

    def _fail(self, why: str) -> None:
        """Count one that failed; too many in a row, and there are no more."""
        self._failed += 1
        self._faults.evaluation_failed(int(self._place[f"{EVALUATE}step"]), why)
        if self._failed == _MOST_FAILED:
            self._log.event("warning", f"{_MOST_FAILED} evaluations in a row failed: there are no more in this session")


def _quality_of_best(folder: Path, evaluator: Evaluator) -> float | None:
    """How good the best checkpoint is, as it says itself; None: there is none, or it was not evaluated."""
    if (path := checkpoints.best(folder)) is None:
        return None
    try:
        return evaluator.plan.quality(checkpoints.load(path).counters.get(EVALUATED, {}))
    except CheckpointError:
        return None
