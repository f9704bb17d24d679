"""Functions of the user's that are called while a run goes on, in the process that has started it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsa2c.api.runs import RunFiles
from hsa2c.errors import ConfigError
from hsa2c.observe.jsonlines import Lines, Row
from hsa2c.observe.runlog import ADDED, JOURNAL, METRICS, ROW_KEYS, Tail, number


class Callback:
    """What is to happen while a run goes on; each method does nothing unless a subclass says what.

    All are called in the process, and the thread, that has started the run. A call comes a fraction of a second after
    the master has written what it is about. A callback that takes long holds up other callbacks and the progress
    display, and never the training. One that raises ends the run in good order; the exception then comes out of the
    call that began it.
    """

    def on_start(self, run: RunFiles) -> None:
        """Training begins: all nodes are ready."""

    def on_row(self, run: RunFiles, row: dict[str, Any]) -> None:
        """A row has been written. Numbers that this adds to it are in `Run.rows`, in plots and in TensorBoard."""

    def on_checkpoint(self, run: RunFiles, path: Path) -> None:
        """A checkpoint has been written, whole."""

    def on_end(self, run: RunFiles) -> None:
        """The run has ended, whatever the reason; `Run.reason` says which."""


class Feed:
    """Looks at a run's files, and calls what is to be called (a `hsa2c.run.supervisor.Onlooker`).

    Args:
        run: The run.
        session: Which start of it this is.
        callbacks: What is called, in this order.

    Attributes:
        error: What a callback has raised.
    """

    def __init__(self, run: RunFiles, session: int, callbacks: Sequence[Callback]) -> None:
        if not isinstance(callbacks, Iterable):
            raise ConfigError(f"callbacks: is a {type(callbacks).__name__}, must be a list")
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise ConfigError(f"callbacks: {callback!r} is a {type(callback).__name__}, must be a hsa2c.Callback")
            for name in dir(callback):
                if name.startswith("on_") and not hasattr(Callback, name):
                    known = ", ".join(name for name in dir(Callback) if name.startswith("on_"))
                    raise ConfigError(f"callbacks: {type(callback).__name__}.{name}: no such event; known are {known}")
        self.error: BaseException | None = None
        self._run, self._session, self._callbacks = run, session, tuple(callbacks)
        self._rows, self._journal = Tail(run.dir / METRICS), Tail(run.dir / JOURNAL)
        self._started = False
        self._board: Any = None

    def update(self) -> str | None:
        """See `hsa2c.run.supervisor.Onlooker.update`."""
        try:
            self._look()
        except Exception as error:
            self.error = self.error or error
            return f"{type(error).__name__} in a callback"
        return self._run.stop_reason

    def end(self) -> None:
        """Call what is still to be called."""
        with contextlib.ExitStack() as stack:
            if self._board is not None:
                stack.callback(self._board.close)
            try:
                self._look()
                for callback in self._callbacks if self._started else ():
                    callback.on_end(self._run)
            except Exception as error:
                self.error = self.error or error

    def _look(self) -> None:
        for event in self._journal.new():
            if event.get("session") != self._session:
                continue
            for callback in self._callbacks:
                if event.get("kind") == "training":
                    self._started = True
                    callback.on_start(self._run)
                elif event.get("kind") == "checkpoint":
                    callback.on_checkpoint(self._run, Path(str(event.get("path"))))
        for row in self._rows.new():
            if row.get("session") == self._session and number(row.get("elapsed_s")) is not None:
                self._tell(row)

    def _tell(self, row: Row) -> None:
        added: dict[str, Any] = {}
        for callback in self._callbacks:
            copy = {**row, **added}
            callback.on_row(self._run, copy)
            added |= {key: value for key, value in copy.items() if key not in row or value is not row[key]}
        if added:
            self._add(row, added)

    def _add(self, row: Row, added: Mapping[str, Any]) -> None:
        """Write down what callbacks have added to a row.

        Raises:
            ConfigError: A value is no number, or is one that the row has.
        """
        plain = {key: _plain(value) for key, value in added.items()}
        for key, value in added.items():
            if key in row or key in ROW_KEYS:
                raise ConfigError(f"on_row: {key!r} is in the row: must be another name")
            if plain[key] is None and value is not None:
                raise ConfigError(f"on_row: {key} = {value!r}, must be a finite number or None")
        with contextlib.closing(Lines(self._run.dir / ADDED)) as lines:
            lines.append({"session": self._session, "step": row["step"], **plain})
        if self._board is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._board = SummaryWriter(str(self._run.dir))
        for key, value in plain.items():
            if value is not None:
                self._board.add_scalar(key, value, global_step=row["step"], walltime=time.time())
        self._board.flush()


def _plain(value: Any) -> float | int | None:
    """A number of Python, numpy or torch; None for anything else."""
    try:
        return number(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):  # of an array, of a tensor with several numbers
        return None
