"""Trials of a study, some side by side: begun, followed, pruned, and told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hsa2c import signals
from hsa2c.config.loading import at, dump, merge, nested
from hsa2c.errors import EXIT_DONE, HSA2CError, StorageError
from hsa2c.observe.formatting import one_line
from hsa2c.run.whole_file import write_whole
from hsa2c.tuning.study import BEST, Study
from hsa2c.tuning.telling import line
from hsa2c.tuning.trial import Training

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

_LOOK_S = 0.25
_FRUITLESS = 3  # failures in a row that end a study in which nothing has succeeded
_HOPELESS = 10  # and one in which something has: the disk may be full

Command = Callable[[Path, Path], list[str]]
"""What trains, by a file of settings and the run directory that it is to make."""


@dataclass
class _Active:
    trial: Trial
    training: Training
    pruned: bool = False


class Runner:
    """Keeps trials of a study going until there are enough, or a signal comes.

    Args:
        study: The study.
        command: What trains.
        parallel: Trials side by side.
        processes: Actor-learners of a node, where the study's user has not said; None: by the run's own rule.
        say: Shows a line.
    """

    def __init__(
        self, study: Study, command: Command, *, parallel: int, processes: int | None, say: Callable[[str], None]
    ) -> None:
        self._study, self._command, self._say = study, command, say
        self._parallel, self._processes = parallel, processes
        self._active: list[_Active] = []
        self._failures = 0
        self._heard: list[int] = []

    def run(self) -> None:
        """Work until enough trials have ended, or are under way elsewhere.

        Raises:
            Interrupted: A signal has come. What was under way is cut off: others will be made in its place.
            HSA2CError: Trials fail one after another.
        """
        before = signals.catch(lambda signum, _: self._heard.append(signum))  # an exception would tear the journal
        try:
            self._fill()
            while self._active and not self._heard:
                time.sleep(_LOOK_S)
                self._follow()
        finally:
            self._stop()
            signals.restore(before)
        if self._heard:
            raise signals.Interrupted(self._heard[0])

    def _fill(self) -> None:
        """Begin trials, as many as may be side by side."""
        while len(self._active) < self._parallel and (trial := self._study.begin()) is not None:
            self._active.append(_Active(trial, self._start(trial)))

    def _start(self, trial: Trial) -> Training:
        directory, settings = self._study.run(trial.number), self._study.settings(trial.params)
        if self._processes is not None and at(settings, "cluster.processes") is None:
            settings = merge(settings, nested("cluster.processes", self._processes))
        file = directory.with_name(f"{directory.name}.yaml")
        try:
            write_whole(file, dump(settings).encode())
            return Training(self._command(file, directory), directory, self._study.plan.key)
        except OSError as error:
            raise StorageError(f"{file}: {error.strerror or error}") from None

    def _follow(self) -> None:
        """Look at each trial under way; begin another where one has ended."""
        ended = 0
        for active in list(self._active):
            code = active.training.poll()
            for level in active.training.levels():
                value = active.training.value
                if value is not None and self._study.report(active.trial, level, value) and code is None:
                    self._prune(active)
            if code is not None and not self._heard:
                self._end(active, code)
                ended += 1
        if ended and not self._heard:
            self._fill()

    @staticmethod
    def _prune(active: _Active) -> None:
        if not active.pruned:
            active.pruned = True
            active.training.stop()

    def _end(self, active: _Active, code: int) -> None:
        """A training has ended by itself, or since it was pruned."""
        trial, training = active.trial, active.training
        pruned = active.pruned and code != EXIT_DONE
        why = "" if pruned else one_line(training.failure(code))
        value = None if pruned or why else training.value
        self._active.remove(active)
        self._study.end(trial, value=value, pruned=pruned, why=why)
        trials = self._study.trials()
        best = next(iter(self._study.ranked()), None)
        self._say(line(self._study, trials, trials[trial.number], training.progress, best))
        if best is not None and best.number == trial.number:
            write_best(self._study, best)
        self._failures = self._failures + 1 if why else 0
        if self._failures >= (_FRUITLESS if best is None else _HOPELESS):
            raise HSA2CError(f"{self._failures} trials have failed one after another, the last one so: {why}")

    def _stop(self) -> None:
        """End what is under way, within seconds."""
        for active in self._active:
            if not active.pruned:
                active.training.stop()
        asked = len(self._heard)
        while any(active.training.poll() is None for active in self._active):
            time.sleep(_LOOK_S / 5)
            if len(self._heard) > max(asked, 1):  # once more: at once
                asked = len(self._heard)
                for active in self._active:
                    active.training.stop()
        for active in self._active:
            self._study.end(active.trial, pruned=active.pruned)
        self._active.clear()


def write_best(study: Study, best: FrozenTrial) -> None:
    """Write the settings of the best trial as a file for ``--config``."""
    path = study.directory / BEST
    try:
        write_whole(path, dump(study.settings(best.params)).encode())
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from None
