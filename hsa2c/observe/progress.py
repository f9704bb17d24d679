"""What a run's files have said so far of its progress: phase, newest row, curve, time left, lines to print."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from hsa2c.observe.formatting import clean, one_line
from hsa2c.observe.jsonlines import Row
from hsa2c.observe.runlog import ROW_KEYS, append_row, number
from hsa2c.observe.shown import Field

STYLES = {
    "warning": "yellow",
    "node_lost": "yellow",
    "restart": "bold",
    "error": "bold red",
    "stop": "bold",
    "start": "bold",
    "resume": "bold",
}

MAX_POINTS = 4096  # of the curve; more than any terminal has columns
RATE_ROWS = 13  # rows behind the estimate of time left: a minute at one row each 5 s
QUIET_S = 60.0  # without a new row for so long, say so


class Line(NamedTuple):
    """Something to print above the panel."""

    text: str
    style: str = ""
    at: float | None = None
    """Unix time, shown as local time; None: no time before it."""


class Progress:
    """What the files have said so far. Times `now` are the console's clock, not the nodes': theirs may differ."""

    def __init__(self, limits: Mapping[str, float], curve: Field | None, nodes: int | None, session: int) -> None:
        self.curve = curve
        self.points: list[Row] = []
        self.started = 0.0
        self.phase = "starting"
        self.row: Row = {}
        self.row_at: float | None = None
        self.checkpoint_at: float | None = None
        self._limits, self._nodes, self._session = limits, nodes, session
        self._ready: set[str] = set()
        self._start_time: float | None = None
        self._training_at: float | None = None
        self._ended_at: float | None = None
        self._recent: deque[Row] = deque(maxlen=RATE_ROWS)

    def add_row(self, row: Row, now: float) -> None:
        """Take a row in."""
        if self.curve is not None:
            keys = ("session", "step", self.curve.key)
            append_row(self.points, {key: row.get(key) for key in keys})
            if len(self.points) > MAX_POINTS:
                del self.points[1::2]
        if row.keys() <= ROW_KEYS or (number(row.get("session")) or 0) < self._session:
            return
        self.row, self.row_at = row, now
        self._recent.append(row)
        if self.phase == "starting":
            self.phase = "training"

    def add_event(self, event: Row, now: float) -> list[Line]:
        """Take an event in; the lines to print for it."""
        kind = one_line(event.get("kind", ""))
        at = number(event.get("time"))
        at = time.time() if at is None else float(at)
        lines = self._change_phase(kind, event, at, now)
        if kind in {"node_ready", "checkpoint", "evaluation"}:
            return lines
        message = clean(str(event.get("message") or kind or "?"))
        prefix = f"{kind.replace('_', ' ')}: " if kind in {"warning", "error", "node_lost"} else ""
        lines.append(Line(prefix + message, STYLES.get(kind, ""), at))
        if event.get("traceback"):
            lines.append(Line(clean(str(event["traceback"])).rstrip("\n"), "dim"))
        return lines

    def _change_phase(self, kind: str, event: Row, at: float, now: float) -> list[Line]:
        count = []
        if kind in {"training", "error"} and self.phase == "starting" and self._ready:
            took_s = now - self.started if self._start_time is None else at - self._start_time
            count = [Line(f"{self.nodes_text} in {max(took_s, 0):.0f} s", at=at)]
        if kind in {"start", "resume", "restart"}:
            self._start_time = at
        elif kind == "node_ready":
            self._ready.add(str(event.get("node")))
        elif kind == "training":
            self.phase, self._training_at = "training", now
        elif kind == "checkpoint":
            self.checkpoint_at = now
        elif kind in {"stop", "error"} and self.phase != "failed":
            self.phase = "stopping" if kind == "stop" else "failed"
            self._ended_at = now if self._ended_at is None else self._ended_at
        return count

    @property
    def has_trained(self) -> bool:
        """Whether training has begun."""
        return self._training_at is not None or self.row_at is not None

    def end(self, now: float) -> None:
        """The launcher says it is over."""
        self.phase = "failed" if self.phase == "failed" else "ended"
        self._ended_at = now if self._ended_at is None else self._ended_at

    @property
    def nodes_text(self) -> str:
        """Such as "12 of 40 nodes ready"; empty if nothing is known of nodes."""
        ready = number(self.row.get("nodes_ready"))
        ready = len(self._ready) if ready is None else ready
        if self._nodes is None:
            return f"{ready:.0f} node{'' if ready == 1 else 's'} ready" if ready else ""
        return f"{ready:.0f} of {self._nodes} node{'' if self._nodes == 1 else 's'} ready"

    def startup_text(self, now: float) -> str:
        """The sign of life before training."""
        nodes = self.nodes_text
        return f"starting: {nodes + ', ' if nodes else ''}{now - self.started:.0f} s"

    def quiet_s(self, now: float) -> float:
        """Seconds since the last row, or since training began; 0 outside training."""
        since = self.row_at if self.row_at is not None else self._training_at
        return now - since if self.phase == "training" and since is not None else 0.0

    def quiet_text(self, now: float) -> str:
        """`quiet_s` in words."""
        return f"no new values for {self.quiet_s(now):.0f} s"

    def elapsed_s(self, now: float) -> float | None:
        """Seconds of training, between rows too; None before it."""
        known_s = number(self.row.get("elapsed_s"))
        since = self._training_at if known_s is None else self.row_at
        if since is None:
            return known_s
        until = now if self._ended_at is None else self._ended_at
        return float(known_s or 0) + max(until - since, 0.0)

    def left_s(self, now: float) -> float | None:
        """Estimate of seconds to the nearest limit; None if there is none or the pace is not known yet."""
        elapsed_s = self.elapsed_s(now)
        if elapsed_s is None or self.phase != "training":
            return None
        ends = [self._end_s(key, limit) for key, limit in self._limits.items()]
        known = [end_s for end_s in ends if end_s is not None and math.isfinite(end_s)]
        return max(min(known) - elapsed_s, 0.0) if known else None

    def _end_s(self, key: str, limit: float) -> float | None:
        """The value of "elapsed_s" at which another key will reach its limit, at the pace of the last rows."""
        if key == "elapsed_s":
            return limit
        points = [(number(row.get("elapsed_s")), number(row.get(key))) for row in self._recent]
        known = [(float(s), float(value)) for s, value in points if s is not None and value is not None]
        if not known:
            return None
        last_s, last = known[-1]
        first_s, first = known[0] if len(known) > 1 else (0.0, 0.0)
        if last_s <= first_s or last <= first:
            return None
        return last_s + (limit - last) / (last - first) * (last_s - first_s)
