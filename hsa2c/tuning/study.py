"""A study's directory: what it tries, and every trial so far, for one process or for many on several machines.

``study.yaml`` says what is tried, ``trials.log`` is Optuna's journal: lines of JSON that are only appended to, under a
lock that file systems of networks have, too. ``runs/`` has a run directory for each trial. ``locks/`` has a file for
each, locked for as long as somebody works at it, so that the others know whose work was cut off by a kill.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from hsa2c.cluster.machine import about
from hsa2c.config.loading import build, dump, merge, nested, read_yaml, to_yaml
from hsa2c.config.sections import STRICT
from hsa2c.errors import ConfigError, StorageError
from hsa2c.observe.jsonlines import Lines
from hsa2c.run.directory import ABOUT
from hsa2c.run.whole_file import write_whole
from hsa2c.tuning.ranges import Range

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

PLAN = "study.yaml"
BEST = "best.yaml"
RUNS = "runs"
LEVELS = 20
"""Parts of a trial: at the end of each its curve is compared with those of others."""

_LOG = "trials.log"
_LOCKS = "locks"
_STARTUP = 5  # whole trials before one is pruned: Optuna's default
_WHY = "why"  # attribute of a trial that has failed; one that has not is cut off
_NO_FILE_S = 60.0  # for how long a trial that has begun may have no file of its own


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Plan:
    """What a study tries; the contents of ``study.yaml``."""

    objective: Annotated[str, Field(min_length=2)]
    """Key of a row of ``metrics.jsonl`` that is to be large; after a minus, small."""
    trials: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many, over all processes, those cut off by a stop aside."""
    ranges: dict[str, str]
    """Values of each setting that is tried, as typed."""
    asked: dict[str, Any]
    """The other settings that its user gave, of every trial."""

    @property
    def key(self) -> str:
        """Of the row, without the sign."""
        return self.objective.removeprefix("-")

    @property
    def falls(self) -> bool:
        """Whether less is better."""
        return self.objective.startswith("-")


def check_installed() -> None:
    """That Optuna is there.

    Raises:
        ConfigError: It is not.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("needs optuna: pip install 'hsa2c[tune]'")


def read_plan(directory: Path) -> Plan:
    """What the study in a directory tries.

    Raises:
        ConfigError: There is none, or it is damaged.
    """
    return build(Plan, read_yaml(directory / PLAN))


def write_plan(directory: Path, plan: Plan, application: str) -> None:
    """Begin a study's directory, or change its plan.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        for folder in (RUNS, _LOCKS):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        if not (directory / ABOUT).exists():
            write_whole(directory / ABOUT, dump({"application": application, **about()}).encode())
        write_whole(directory / PLAN, to_yaml(plan).encode())
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written: {error.strerror or error}") from None


class Study:
    """A study, as one of perhaps many processes sees it.

    Args:
        directory: Where it is; `write_plan` was there.
        plan: What it tries.
        ranges: The same, read, by field.

    Attributes:
        directory: The same.
        plan: The same.
        ranges: The same.

    Raises:
        ConfigError: It is damaged, or of other ranges.
    """

    def __init__(self, directory: Path, plan: Plan, ranges: Mapping[str, Range]) -> None:
        self.directory, self.plan, self.ranges = directory, plan, ranges
        self._locks: dict[int, IO[bytes]] = {}
        try:
            with self._told():
                self._study = _opened(directory / _LOG, falls=self.plan.falls)
        except (AssertionError, AttributeError, LookupError, TypeError) as error:  # JSON, but not what Optuna writes
            raise ConfigError(f"{directory / _LOG}: is damaged: {type(error).__name__}") from None

    def begin(self) -> Trial | None:
        """The next trial, which is this process's until `end`; None if enough are done, or are being made.

        Two processes that ask at the same moment may get one more than was asked for.
        """
        if sum(not is_cut_off(trial) for trial in self.trials()) >= self.plan.trials:
            return None
        with self._told():
            trial = self._study.ask({field: _distribution(each) for field, each in self.ranges.items()})
            self._locks[trial.number] = self._lock(trial.number)
        return trial

    def report(self, trial: Trial, level: int, value: float) -> bool:
        """Tell the objective at the end of a part of a trial; gives back whether it is to be pruned, before its last.

        Args:
            trial: Of this process.
            level: The part, from 1 to `LEVELS`.
            value: The objective.
        """
        with self._told():
            trial.report(value, level)
            return level < LEVELS and bool(trial.should_prune())

    def end(self, trial: Trial, *, value: float | None = None, pruned: bool = False, why: str = "") -> None:
        """A trial has ended: with a value, pruned, or failed.

        Args:
            trial: Of this process.
            value: The objective at its end.
            pruned: Whether it was ended since others were better.
            why: Else: why it has failed; empty: it was cut off, and another is made in its place.
        """
        from optuna.trial import TrialState

        with self._told():
            if value is not None:
                self._study.tell(trial, value, skip_if_finished=True)
            elif pruned:
                self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            else:
                if why:
                    trial.set_user_attr(_WHY, why)
                self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        self._locks.pop(trial.number).close()

    def trials(self) -> list[FrozenTrial]:
        """All trials so far; those whose process was killed are marked as cut off first."""
        from optuna.trial import TrialState

        with self._told():
            found = self._study.get_trials(deepcopy=False)
            for trial in found:
                if trial.state == TrialState.RUNNING and trial.number not in self._locks and self._is_dead(trial):
                    self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            return self._study.get_trials(deepcopy=False)

    def ranked(self) -> list[FrozenTrial]:
        """Trials that were trained to their end, the best first."""
        whole = [trial for trial in self.trials() if is_whole(trial)]
        return sorted(whole, key=lambda trial: trial.value or 0.0, reverse=not self.plan.falls)

    def importance(self) -> dict[str, float]:
        """How much each setting matters for being among the best, from 0 to 1, by PED-ANOVA (Watanabe et al. 2023);
        empty where there are too few trials to tell.
        """
        if len(self.ranked()) < 2 * _STARTUP or len(self.ranges) < 2:
            return {}
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # loads scikit-learn

        with warnings.catch_warnings(), self._told():
            warnings.simplefilter("ignore")  # on trials that are few
            return dict(get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator()))

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a trial that somebody has given, as a tree of plain values."""
        tree = self.plan.asked
        for field, value in params.items():
            tree = merge(tree, nested(field, value))
        return tree

    def run(self, number: int) -> Path:
        """The run directory of a trial."""
        return self.directory / RUNS / f"trial-{number:04}"

    def close(self) -> None:
        """Give up the trials of this process; a second call does nothing."""
        while self._locks:
            self._locks.popitem()[1].close()

    def _lock_path(self, number: int) -> Path:
        return self.directory / _LOCKS / f"{number:04}"

    def _lock(self, number: int) -> IO[bytes]:
        """A file that is locked from the moment on at which others see it."""
        path = self._lock_path(number)
        new = path.with_name(f".{path.name}.{os.getpid()}")
        file = new.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        new.replace(path)
        return file

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether nobody works at a trial any more; one that has just begun may have no file yet."""
        try:
            with self._lock_path(trial.number).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
        except BlockingIOError:
            return False
        except FileNotFoundError:
            began = trial.datetime_start
            return began is not None and (datetime.now() - began).total_seconds() > _NO_FILE_S

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the journal as ours."""
        path = self.directory / _LOG
        try:
            yield
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from None
        except (ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(f"{path}: is damaged, or of another study: {error}") from None


def is_whole(trial: FrozenTrial) -> bool:
    """Whether a trial was trained to its end, and has a value."""
    from optuna.trial import TrialState

    return trial.state == TrialState.COMPLETE


def is_pruned(trial: FrozenTrial) -> bool:
    """Whether a trial was ended since others were better."""
    from optuna.trial import TrialState

    return trial.state == TrialState.PRUNED


def failure_of(trial: FrozenTrial) -> str | None:
    """Why a trial has failed; None: it has not, or was cut off."""
    return trial.user_attrs.get(_WHY) if trial.state.is_finished() else None


def is_cut_off(trial: FrozenTrial) -> bool:
    """Whether a trial came to no end of its own: its study was stopped, or its process killed."""
    return trial.state.is_finished() and not (is_whole(trial) or is_pruned(trial)) and failure_of(trial) is None


def _opened(path: Path, *, falls: bool) -> OptunaStudy:
    """The study in a journal, which is made if it is missing; a line that a kill or a full disk has torn is mended."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lock = JournalFileOpenLock(str(path))  # by O_EXCL: NFS has it; one that is 30 s old belongs to nobody any more
    lock.acquire()
    try:
        Lines(path).close()
    finally:
        lock.release()
    return optuna.create_study(
        study_name="study",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(path), lock)),
        # Others of this study may be at work: constant_liar keeps from trying beside them what they try.
        sampler=optuna.samplers.TPESampler(constant_liar=True),
        # The median stopping rule (Golovin et al. 2017, section 3.2.2), but not in a curve's first quarter.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=LEVELS // 4),
        direction="minimize" if falls else "maximize",
        load_if_exists=True,
    )


def _distribution(tried: Range) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if tried.choices:
        return CategoricalDistribution(tried.choices)
    if isinstance(tried.low, int) and isinstance(tried.high, int):
        return IntDistribution(tried.low, tried.high, log=tried.log)
    return FloatDistribution(tried.low, tried.high, log=tried.log)
