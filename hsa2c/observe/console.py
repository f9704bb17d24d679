"""The console of a run: what its user sees while it trains.

It only reads the run's files (see `hsa2c.observe.runlog`), so it needs nothing of the job but its directory. On a
terminal it is a panel that stays at the bottom, with events as lines above it; elsewhere (a pipe, a log file) plain
lines. All of it goes to stderr: stdout is for results. Which values are shown is the caller's choice.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TextIO

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from hsa2c import streams
from hsa2c.observe.jsonlines import Row
from hsa2c.observe.runlog import JOURNAL, METRICS, ROW_KEYS, Tail, append_row, number
from hsa2c.observe.shown import MISSING, Field

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*%#"
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
VALUE_COLUMNS = 9  # least width of a value, so that the columns do not move as it grows
GAP_COLUMNS = 4  # between a value and the next label

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Line(NamedTuple):
    """Something to print above the panel."""

    text: str
    style: str = ""
    at: float | None = None
    """Unix time, shown as local time; None: no time before it."""


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read or shown before `start`.

        Args:
            run: The run's directory; it and its files need not exist yet.
            title: What runs, one line.
            fields: The values to show.
            limits: Where training ends by itself: key of a row to the value at which it does, for example
                ``{"elapsed_s": 1800, "agent_steps": 10_000_000}``. Time left is to the nearest.
            curve: The value to draw as a small curve on a terminal.
            nodes: How many nodes the run will have, if known.
            session: The present session: events of earlier ones are not shown, their rows only in the curve.
            plain_every_s: Least time between two plain lines of values.
            file: Where to write; None: stderr.
            terminal: Panel or plain lines; None: as `file` is a terminal or not.
            clock: Seconds; for tests.
        """
        self._run, self._clock, self._session = run, clock, session
        self._progress = _Progress(limits or {}, curve, nodes, session)
        self._rows, self._journal = Tail(run / METRICS), Tail(run / JOURNAL)
        stream = file or sys.stderr
        if terminal is None:
            terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._view: _View = _Terminal(title, run, fields, file) if terminal else _Plain(fields, stream, plain_every_s)
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
        self._show(self._view.line, Line(_clean(text), style, time.time()))

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


class _Progress:
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
        kind = _one_line(event.get("kind", ""))
        at = number(event.get("time"))
        at = time.time() if at is None else float(at)
        lines = self._change_phase(kind, event, at, now)
        if kind in {"node_ready", "checkpoint"}:
            return lines
        message = _clean(str(event.get("message") or kind or "?"))
        prefix = f"{kind.replace('_', ' ')}: " if kind in {"warning", "error", "node_lost"} else ""
        lines.append(Line(prefix + message, STYLES.get(kind, ""), at))
        if event.get("traceback"):
            lines.append(Line(_clean(str(event["traceback"])).rstrip("\n"), "dim"))
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


class _View(Protocol):
    """A way to show progress."""

    def start(self, now: float) -> None: ...

    def line(self, line: Line) -> None: ...

    def refresh(self, progress: _Progress, now: float) -> None: ...

    def stop(self, progress: _Progress, now: float) -> None: ...


class _Plain:
    """Lines without any control codes, for pipes and log files."""

    def __init__(self, fields: Sequence[Field], stream: TextIO, every_s: float) -> None:
        self._fields, self._stream, self._every_s = fields, stream, every_s
        self._last_at = -math.inf
        self._shown_row_at: float | None = None

    def start(self, now: float) -> None:
        self._last_at = now  # the "start" event is the first line, the count of nodes can wait

    def line(self, line: Line) -> None:
        stamp = "" if line.at is None else f"{_local_time(line.at)}  "
        print(stamp + line.text, file=self._stream, flush=True)

    def refresh(self, progress: _Progress, now: float) -> None:
        since_s = now - self._last_at
        if since_s < self._every_s:
            return
        if progress.phase == "starting":
            self._write(progress.startup_text(now), now)
        elif progress.row_at != self._shown_row_at:
            self._write(self._values(progress, now), now)
        elif since_s >= QUIET_S and progress.quiet_s(now) >= QUIET_S:
            self._write(_quiet_text(progress, now), now)

    def stop(self, progress: _Progress, now: float) -> None:
        if progress.row_at != self._shown_row_at:
            self._write(self._values(progress, now), now)

    def _values(self, progress: _Progress, now: float) -> str:
        self._shown_row_at = progress.row_at
        left_s = progress.left_s(now)
        parts = [f"elapsed {_clock_text(progress.elapsed_s(now))}"]
        parts += [] if left_s is None else [f"left {_clock_text(left_s)}"]
        parts += [f"{field.label} {field.text(progress.row)}" for field in self._fields]
        return " | ".join(parts)

    def _write(self, text: str, now: float) -> None:
        self._last_at = now
        self.line(Line(text, at=time.time()))


class _Terminal:
    """A panel at the bottom of a terminal."""

    def __init__(self, title: str, run: Path, fields: Sequence[Field], file: TextIO | None) -> None:
        self._title, self._run, self._fields = _one_line(title), run, fields
        self._console = streams.console(file=file, stderr=file is None, force_terminal=True)
        self._ascii = self._console.options.ascii_only
        self._spinner = Spinner("line" if self._ascii else "dots", style="cyan")
        # No thread of its own: the spinner turns only while the launcher really comes round. stdout is left alone.
        own_stderr = file is None
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=own_stderr)

    def start(self, now: float) -> None:
        self._live.start()

    def line(self, line: Line) -> None:
        text = Text() if line.at is None else Text(f"{_local_time(line.at)}  ", style="dim")
        self._console.print(text.append(line.text, style=line.style or None), soft_wrap=True)

    def refresh(self, progress: _Progress, now: float) -> None:
        self._live.update(self._panel(progress, now), refresh=True)

    def stop(self, progress: _Progress, now: float) -> None:
        try:
            self.refresh(progress, now)
        finally:
            self._live.stop()

    def _panel(self, progress: _Progress, now: float) -> Panel:
        parts: list[RenderableType] = [self._headline(progress, now)]
        if progress.row and self._fields:
            parts.append(self._values(progress.row))
        if progress.curve is not None and len(progress.points) > 1:
            parts.append(self._curve(progress.curve, progress.points))
        title, footer = Text(self._title, style="bold", overflow="fold"), self._footer(progress, now)
        # The border cuts what it has no room for.
        above, below = self._fits_border(title), self._fits_border(footer)
        return Panel(
            Group(*([] if above else [title]), *parts, *([] if below else [footer])),
            title=title if above else None,
            title_align="left",
            subtitle=footer if below else None,
            subtitle_align="right",
            border_style={"failed": "red", "ended": "dim"}.get(progress.phase, "cyan"),
        )

    def _fits_border(self, text: Text) -> bool:
        return cell_len(text.plain) <= self._console.width - 6  # a corner, a line and a space on each side

    def _headline(self, progress: _Progress, now: float) -> Table:
        """Sign of life, phase, times and a bar."""
        signs: dict[str, RenderableType] = {"failed": Text("!", "bold red"), "ended": ""}
        sign = signs.get(progress.phase, self._spinner)
        text = Text(progress.startup_text(now) if progress.phase == "starting" else progress.phase, style="bold")
        elapsed_s, left_s = progress.elapsed_s(now), progress.left_s(now)
        if elapsed_s is not None:
            text.append(f"  {_clock_text(elapsed_s)} elapsed", style="not bold")
        bar: RenderableType = ""
        if elapsed_s is not None and left_s is not None:
            text.append(f"  {_clock_text(left_s)} left", style="not bold")
            bar = ProgressBar(total=1.0, completed=elapsed_s / max(elapsed_s + left_s, 1e-9))
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_column(ratio=1)
        grid.add_row(sign, text, bar)
        return grid

    def _values(self, row: Row) -> RenderableType:
        """The fields, column by column, as many columns as the terminal has room for; without, wrapped text."""
        cells = [(field.label, field.text(row).rjust(VALUE_COLUMNS)) for field in self._fields]
        for down in range(1, len(cells) + 1):
            columns = [cells[first : first + down] for first in range(0, len(cells), down)]
            if sum(_width(column) for column in columns) + GAP_COLUMNS * (len(columns) - 1) <= self._console.width - 4:
                break
        else:
            return Group(*(Text(f"{label} {value.strip()}", overflow="fold") for label, value in cells))
        grid = Table.grid(padding=(0, 1))
        for _ in columns:
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(justify="right", no_wrap=True, style="bold")
            grid.add_column(width=GAP_COLUMNS - 2)
        for line in zip_longest(*columns, fillvalue=("", "")):
            grid.add_row(*(part for label, value in line for part in (Text(label), Text(value), "")))
        return grid

    def _curve(self, field: Field, points: Sequence[Row]) -> Text:
        known = [(point["step"], value) for point in points if (value := number(point[field.key])) is not None]
        if not known:
            return Text()
        values = [value for _, value in known]
        low, high = (field.text({field.key: value}) for value in (min(values), max(values)))
        room = self._console.width - 4 - len(field.label) - len(low) - len(high) - 4
        blocks = ASCII_BLOCKS if self._ascii else BLOCKS
        return Text.assemble(
            (f"{field.label}  ", "dim"),
            f"{low} ",
            (sparkline(known, max(room, 1), blocks), "cyan"),
            f" {high}",
            overflow="fold",
        )

    def _footer(self, progress: _Progress, now: float) -> Text:
        parts = [progress.nodes_text] if progress.phase != "starting" and progress.nodes_text else []
        if progress.checkpoint_at is not None:
            parts.append(f"checkpoint {now - progress.checkpoint_at:.0f} s ago")
        text = Text(", ".join([*parts, _one_line(self._run)]), style="dim", overflow="fold")
        if progress.quiet_s(now) >= QUIET_S:
            text = Text(f"{_quiet_text(progress, now)}, ", style="yellow").append_text(text)
        return text


def sparkline(points: Sequence[tuple[float, float]], width: int, blocks: str = BLOCKS) -> str:
    """A curve in one line of text.

    Args:
        points: Pairs of finite x and y, x not falling.
        width: Most characters to use.
        blocks: Characters from lowest to highest.

    Returns:
        The mean of y in each of `width` equal parts of the range of x; a part without points is left out while there
        are fewer points than parts, so that a young curve is short, not full of holes.
    """
    across = _shares([x for x, _ in points])
    up = _shares([y for _, y in points])
    parts: dict[int, list[float]] = {}
    for x, y in zip(across, up, strict=True):
        parts.setdefault(min(int(x * width), width - 1), []).append(y)
    means = _shares([sum(ys) / len(ys) for _, ys in sorted(parts.items())])
    return "".join(blocks[round(mean * (len(blocks) - 1))] for mean in means)


def _shares(values: Sequence[float]) -> list[float]:
    """Where in the range of all values each lies, 0 to 1; 0 where there is no range."""
    low, half_range = min(values) / 2, max(values) / 2 - min(values) / 2  # halves: the range may be beyond a float
    return [(value / 2 - low) / half_range if half_range > 0 else 0.0 for value in values]


def _width(cells: Sequence[tuple[str, str]]) -> int:
    """Width of a column of labels and values, a space between the two."""
    return max(len(label) for label, _ in cells) + 1 + max(len(value) for _, value in cells)


def _quiet_text(progress: _Progress, now: float) -> str:
    return f"no new values for {progress.quiet_s(now):.0f} s"


def _clock_text(seconds: float | None) -> str:
    """``3:05`` or ``1:03:05``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _local_time(unix_s: float) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(unix_s))
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


def _clean(text: str) -> str:
    """Text from elsewhere without what would move a terminal's cursor or change its colours."""
    return _CONTROL.sub("", text.expandtabs())


def _one_line(text: object) -> str:
    return " ".join(_clean(str(text)).split())
