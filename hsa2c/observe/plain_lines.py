"""A run's progress in plain lines."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TextIO

from hsa2c.observe.formatting import clock_text, local_time
from hsa2c.observe.progress import QUIET_S, Line, Progress
from hsa2c.observe.shown import Field


class PlainLines:
    """Lines without any control codes, for pipes and log files (a `hsa2c.observe.console.View`)."""

    def __init__(self, fields: Sequence[Field], stream: TextIO, every_s: float) -> None:
        self._fields, self._stream, self._every_s = fields, stream, every_s
        self._last_at = -math.inf
        self._shown_row_at: float | None = None

    def start(self, now: float) -> None:
        """See `View.start`."""
        self._last_at = now  # the "start" event is the first line, the count of nodes can wait

    def line(self, line: Line) -> None:
        """See `View.line`."""
        stamp = "" if line.at is None else f"{local_time(line.at)}  "
        print(stamp + line.text, file=self._stream, flush=True)

    def refresh(self, progress: Progress, now: float) -> None:
        """See `View.refresh`."""
        since_s = now - self._last_at
        if since_s < self._every_s:
            return
        if progress.phase == "starting":
            self._write(progress.startup_text(now), now)
        elif progress.row_at != self._shown_row_at:
            self._write(self._values(progress, now), now)
        elif since_s >= QUIET_S and progress.quiet_s(now) >= QUIET_S:
            self._write(progress.quiet_text(now), now)

    def stop(self, progress: Progress, now: float) -> None:
        """See `View.stop`."""
        if progress.row_at != self._shown_row_at:
            self._write(self._values(progress, now), now)

    def _values(self, progress: Progress, now: float) -> str:
        self._shown_row_at = progress.row_at
        left_s = progress.left_s(now)
        parts = [f"elapsed {clock_text(progress.elapsed_s(now))}"]
        parts += [] if left_s is None else [f"left {clock_text(left_s)}"]
        parts += [f"{field.label} {field.text(progress.row)}" for field in self._fields]
        return " | ".join(parts)

    def _write(self, text: str, now: float) -> None:
        self._last_at = now
        self.line(Line(text, at=time.time()))
