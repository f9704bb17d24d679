"""Run directories: made for a new run, opened again for a resumed one; never by two at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import yaml

from hsa2c.application import Application
from hsa2c.cluster.machine import about
from hsa2c.config.loading import dump, to_yaml
from hsa2c.errors import ConfigError
from hsa2c.observe.jsonlines import Row
from hsa2c.observe.runlog import JOURNAL, METRICS, Journal, number, read_rows, read_settings
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import earlier

CONFIG = "config.yaml"
"""Every setting, as resolved."""

ASKED = "asked.yaml"
"""The settings that its user gave; all others followed rules and defaults."""

ABOUT = "about.yaml"

SIMULATED = "virtual.yaml"
"""The model of the cluster, in a run whose time is simulated (`bench.virtual`)."""


@dataclass(kw_only=True)
class Run:
    """A run that is about to start, or to go on."""

    asked: Mapping[str, Any]
    """What its user gave: a tree of plain values."""
    config: Any
    """What came of it: resolved."""
    directory: Path
    checkpoint: Path | None = None
    session: int = 1
    remarks: Sequence[str] = ()
    again: bool = False
    """Whether the directory may be there, though there is no checkpoint."""
    fresh: bool = False
    """Whether `open` has made the directory."""
    application: str | None = None
    """Module of the application: `open` writes it down, and `application_of` finds it."""
    _lock: IO[str] | None = None

    def open(self, *, simulated: bool = False) -> Self:
        """Make the directory, lock it, and write down what runs.

        Args:
            simulated: The run's time is simulated.

        Raises:
            ConfigError: The directory cannot be written, another process runs there, or its run was simulated and is
                not to be.
        """
        if not simulated and is_there(self.directory / SIMULATED):
            raise ConfigError(
                f"{self.directory}: its cluster is simulated: go on with python -m bench.virtual --resume"
            )
        try:
            self._open()
        except BaseException:
            self._give_up()
            raise
        return self

    @property
    def lock(self) -> int | None:
        """File descriptor of the lock, once open."""
        return self._lock.fileno() if self._lock else None

    def close(self) -> None:
        """Let others run in the directory; a second call does nothing."""
        if self._lock:
            self._lock.close()

    def _give_up(self) -> None:
        """Leave nothing of a start that came to nothing."""
        self.close()
        if self.fresh and is_there(self.directory):
            withdraw(self.directory)

    def _open(self) -> None:
        try:
            self.fresh = not is_there(self.directory)  # before: an interruption may come between the two
            self.fresh = _make(self.directory, may_exist=self.again or self.checkpoint is not None)
            self._lock = (self.directory / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            changed = earlier.changes(self.directory / CONFIG, self.config)
            _replace(self.directory / ASKED, dump(self.asked))
            _replace(self.directory / CONFIG, to_yaml(self.config))
            session = "" if self.session == 1 else f"-{self.session}"
            what = {"application": self.application, **about()}
            _replace(self.directory / f"{Path(ABOUT).stem}{session}.yaml", yaml.safe_dump(what, sort_keys=False))
            with Journal(self.directory, session=self.session) as journal:
                if not self.checkpoint:
                    journal.event("start", "starting")
                else:
                    journal.event("resume", f"resuming from {self.checkpoint.name}", checkpoint=str(self.checkpoint))
                if changed:
                    journal.event("settings", f"other settings than before: {changed}")
                for remark in self.remarks:
                    journal.event("warning", remark)
        except BlockingIOError:
            self.fresh = False  # it is theirs
            raise ConfigError(f"{self.directory}: another process is training in it") from None
        except FileExistsError as error:
            self.fresh = False
            raise ConfigError(exists(Path(error.filename or self.directory))) from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{self.directory}: cannot be written: {why}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._give_up()
        self.close()


def withdraw(directory: Path) -> bool:
    """Remove the directory of a run in which nothing was trained; gives back whether it is gone."""
    if has_checkpoint(directory) or _rows(directory / METRICS):
        return False
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def summary(app: Application, directory: Path, code: int) -> dict[str, Any]:
    """What a run came to: its last row and why it ended."""
    rows = [row for row in _rows(directory / METRICS) if "elapsed_s" in row]
    stops = [event for event in _rows(directory / JOURNAL) if event.get("kind") == "stop"]
    last = rows[-1] if rows else {}
    stop = stops[-1] if stops else {}
    return {
        "run": str(directory),
        "exit_code": code,
        "reason": stop.get("message") if is_there(directory) else "stopped before training began",
        "checkpoint": stop.get("checkpoint"),
        **{key: last.get(key) for key in ("elapsed_s", "exchanges", "global_steps")},
        **{name: last.get(key) for name, key in app.summary.items()},
    }


def application_of(path: Path) -> str | None:
    """Module of the application that a run is of; None where nothing says so.

    Args:
        path: The run's directory, or something in it: metrics, a recording, its checkpoints, one of them. Or a
            checkpoint elsewhere.
    """
    if not is_there(path):
        return None
    folder = path if path.is_dir() else path.parent
    run = folder.parent if folder.name == checkpoints.FOLDER else folder
    lone = path if path.suffix == ".safetensors" and run is folder else checkpoints.best(run)
    if lone is not None:  # not in a run: what lies beside it may be a stranger's
        return earlier.module_of(lone)
    for about_file in sorted(run.glob(f"{Path(ABOUT).stem}*.yaml")):
        if isinstance(name := read_settings(about_file).get("application"), str):
            return name
    newest = next(iter(checkpoints.steps(run / checkpoints.FOLDER).values()), None)
    return earlier.module_of(newest if path.is_dir() else path)


def last_session(directory: Path) -> int:
    """The number of a run's last start; from the journal, for it may have been killed before it wrote a checkpoint."""
    sessions = [number(row.get("session")) for name in (JOURNAL, METRICS) for row in _rows(directory / name)]
    return max((int(session) for session in sessions if session is not None), default=1)


def _rows(path: Path) -> list[Row]:
    """None where there is no such file: a job may fail before it writes a row."""
    return read_rows(path) if path.exists() else []


def fresh_name(app: Application, config: Any) -> str:
    """A name that no run has yet: what it trains, date and time."""
    stem = f"{app.label(config)}-{time.strftime('%Y%m%d-%H%M%S')}"
    name, number = stem, 2
    while is_there(Path(config.output.run_dir) / name):
        name, number = f"{stem}-{number}", number + 1
    return name


def has_checkpoint(directory: Path) -> bool:
    """Whether there is something to go on from, or to evaluate."""
    return is_there(directory / CONFIG) and any((directory / "checkpoints").glob("step-*.safetensors"))


def _make(directory: Path, *, may_exist: bool) -> bool:
    """Whether this has made it; it may have been there."""
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        if not (may_exist and directory.is_dir()):  # a file, or a link to nowhere
            raise
        return False
    return True


def is_there(path: Path) -> bool:
    """Whether there is such a path; False also where that cannot be seen."""
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def exists(directory: Path) -> str:
    """What lies in the place of a new run, and what its user can do, in words."""
    if directory.is_symlink() and not is_there(directory):
        return f"{directory}: is a link to {directory.readlink()}, which does not exist; --name starts another"
    if not directory.is_dir():
        return f"{directory}: is not a folder; --name starts another run"
    return f"{directory}: exists; --resume {directory} goes on with it, --name starts another"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
