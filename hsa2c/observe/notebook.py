"""A run's progress in a notebook: one output of the cell that is drawn anew, with events as lines above it."""

from __future__ import annotations

import html
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hsa2c.observe.formatting import clock_text, local_time
from hsa2c.observe.progress import QUIET_S, Line, Progress
from hsa2c.observe.shown import Field

_EVERY_S = 1.0  # between two drawings: each is a message to the browser
_MOST_LINES = 12  # of events


def shell() -> Any:
    """The notebook's kernel that this process is; None in any other process."""
    if "ipykernel" not in sys.modules or (ipython := sys.modules.get("IPython")) is None:
        return None
    found = ipython.get_ipython()
    return found if found is not None and hasattr(found, "kernel") else None


class NotebookView:
    """One output that is drawn anew (a `hsa2c.observe.console.View`).

    Args:
        title: What runs, one line.
        run: Its directory.
        fields: The values to show.
        display: Shows HTML; gives back a handle whose `update` replaces it. IPython's where it is a shell.
    """

    def __init__(self, title: str, run: Path, fields: Sequence[Field], display: Any) -> None:
        self._title, self._run, self._fields = title, run, fields
        self._display: Callable[[str], Any] = display if callable(display) else _display
        self._handle: Any = None
        self._lines: list[str] = []
        self._drawn_at = -math.inf

    def start(self, now: float) -> None:
        """See `View.start`."""

    def line(self, line: Line) -> None:
        """See `View.line`."""
        stamp = "" if line.at is None else f"{local_time(line.at)}  "
        self._lines = [*self._lines, stamp + line.text][-_MOST_LINES:]

    def refresh(self, progress: Progress, now: float) -> None:
        """See `View.refresh`."""
        if now - self._drawn_at >= _EVERY_S:
            self._draw(progress, now)

    def stop(self, progress: Progress, now: float) -> None:
        """See `View.stop`."""
        self._draw(progress, now)

    def _draw(self, progress: Progress, now: float) -> None:
        self._drawn_at = now
        page = self.page(progress, now)
        if self._handle is None:
            self._handle = self._display(page)
        else:
            _update(self._handle, page)

    def page(self, progress: Progress, now: float) -> str:
        """What is shown, as HTML."""
        elapsed_s, left_s = progress.elapsed_s(now), progress.left_s(now)
        phase = progress.startup_text(now) if progress.phase == "starting" else progress.phase
        times = [] if elapsed_s is None else [f"{clock_text(elapsed_s)} elapsed"]
        times += [] if elapsed_s is None or left_s is None else [f"{clock_text(left_s)} left"]
        if progress.quiet_s(now) >= QUIET_S:
            times.append(progress.quiet_text(now))
        bar = ""
        if elapsed_s is not None and left_s is not None:
            bar = f'<progress max="1" value="{elapsed_s / max(elapsed_s + left_s, 1e-9):.3f}"></progress>'
        values = "".join(
            f"<td>{html.escape(field.label)}</td><td><b>{html.escape(field.text(progress.row))}</b></td>"
            for field in self._fields
            if progress.row
        )
        return (
            f"<div><b>{html.escape(self._title)}</b> {html.escape(', '.join([phase, *times]))} {bar}"
            f"<table><tr>{values}</tr></table>"
            f"<pre>{html.escape(chr(10).join(self._lines))}</pre><small>{html.escape(str(self._run))}</small></div>"
        )


def _display(page: str) -> Any:
    ipython: Any = importlib.import_module("IPython.display")
    return ipython.display(ipython.HTML(page), display_id=True)


def _update(handle: Any, page: str) -> None:
    ipython: Any = importlib.import_module("IPython.display")
    handle.update(ipython.HTML(page))
