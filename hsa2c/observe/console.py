"""The console of a run: what its user sees while it trains.

It only reads the run's files (see `hsa2c.observe.runlog`), so it needs nothing of the job but its directory. On a
terminal it is a panel that stays at the bottom, with events as lines above it; elsewhere (a pipe, a log file) plain
lines. All of it goes to stderr: stdout is for results. Which values are shown is the caller's choice.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from hsa2c.observe import notebook
from hsa2c.observe.formatting import clean
from hsa2c.observe.panel import TerminalPanel
from hsa2c.observe.plain_lines import PlainLines
from hsa2c.observe.progress import Line, Progress
from hsa2c.observe.runlog import JOURNAL, METRICS, Tail, number
from hsa2c.observe.shown import Field

__all__ = ["Console", "Field", "Silence", "View"]


class View(Protocol):
    """A way to show progress. Times `now` are the console's clock."""

    def start(self, now: float) -> None:
        """Begin."""

    def line(self, line: Line) -> None:
        """Show a line that stays."""

    def refresh(self, progress: Progress, now: float) -> None:
        """Show how far the run is; called a few times a second."""

    def stop(self, progress: Progress, now: float) -> None:
        """Show the last state, and give back what was taken."""


class Silence:
    """Shows nothing (a `View`)."""

    def start(self, now: float) -> None:
        """See `View.start`."""

    def line(self, line: Line) -> None:
        """See `View.line`."""

    def refresh(self, progress: Progress, now: float) -> None:
        """See `View.refresh`."""

    def stop(self, progress: Progress, now: float) -> None:
        """See `View.stop`."""


class Console:
    """Live view of a run's files for its launcher, which calls `update` a few times a second."""

    def __init__(
        self,
        run: Path,
        title: str,
        fields: Sequence[Field],
        limits: Mapping[str, float] | None = None,
        *,
        curve: Field | None = None,
        nodes: int | None = None,
        session: int = 0,
        plain_every_s: float = 10.0,
        file: TextIO | None = None,
        terminal: bool | None = None,
        view: View | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read or shown before `start`.

        Args:
            run: The run's directory; it and its files need not exist yet.
            title: What runs, one line.
            fields: The values to show.
            limits: Where training ends by itself: key of a row to the value at which it does, for example
                ``{"elapsed_s": 1800, "updates": 10_000_000}``. Time left is to the nearest.
            curve: The value to draw as a small curve on a terminal.
            nodes: How many nodes the run will have, if known.
            session: The present session: events of earlier ones are not shown, their rows only in the curve.
            plain_every_s: Least time between two plain lines of values.
            file: Where to write; None: stderr.
            terminal: Panel or plain lines; None: as `file` is a terminal or not.
            view: How to show it; None: a cell's output in a notebook, else as `terminal` says.
            clock: Seconds; for tests.
        """
        self._run, self._clock, self._session = run, clock, session
        self._progress = Progress(limits or {}, curve, nodes, session)
        self._rows, self._journal = Tail(run / METRICS), Tail(run / JOURNAL)
        self._view = view or _view_for(run, title, fields, file, terminal, plain_every_s)
        self._gone = False

    def start(self) -> None:
        """Show the first sign of life."""
        self._progress.started = self._clock()
        self._show(self._view.start, self._progress.started)
        self.update()

    def update(self) -> None:
        """Read what is new and refresh. Never fails over what the files hold, or because the terminal has gone."""
        now = self._clock()
        for event in self._journal.new():
            if (number(event.get("session")) or 0) >= self._session:
                for line in self._progress.add_event(event, now):
                    self._show(self._view.line, line)
        for row in self._rows.new():
            self._progress.add_row(row, now)
        self._show(self._view.refresh, self._progress, now)

    @property
    def training(self) -> bool:
        """Whether training has begun in this session, as far as `update` has read."""
        return self._progress.has_trained

    def say(self, text: str, style: str = "") -> None:
        """Print a line of the launcher's own above the panel."""
        self._show(self._view.line, Line(clean(text), style, time.time()))

    def stop(self) -> None:
        """Show the last state and give the terminal back."""
        self.update()
        self._progress.end(self._clock())
        self._show(self._view.stop, self._progress, self._clock())

    def __enter__(self) -> Console:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _show(self, draw: Callable[..., None], *args: Any) -> None:
        """Draw; a terminal that hung up or a pipe that closed must not end the run it showed."""
        if self._gone:
            return
        try:
            draw(*args)
        except OSError:
            self._gone = True


def _view_for(
    run: Path, title: str, fields: Sequence[Field], file: TextIO | None, terminal: bool | None, plain_every_s: float
) -> View:
    """A cell's output in a notebook, a panel on a terminal, else plain lines."""
    if file is None and (shell := notebook.shell()) is not None:
        return notebook.NotebookView(title, run, fields, shell)
    stream = file or sys.stderr
    if terminal is None:
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    return TerminalPanel(title, run, fields, file) if terminal else PlainLines(fields, stream, plain_every_s)
