"""A run's progress as a panel that stays at the bottom of a terminal, with events as lines above it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TextIO

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from hsa2c import streams
from hsa2c.observe.formatting import clock_text, local_time, one_line
from hsa2c.observe.jsonlines import Row
from hsa2c.observe.progress import QUIET_S, Line, Progress
from hsa2c.observe.runlog import number
from hsa2c.observe.shown import Field
from hsa2c.observe.sparkline import ASCII_BLOCKS, BLOCKS, sparkline

VALUE_COLUMNS = 9  # least width of a value, so that the columns do not move as it grows
GAP_COLUMNS = 4  # between a value and the next label


class TerminalPanel:
    """A panel at the bottom of a terminal (a `hsa2c.observe.console.View`)."""

    def __init__(self, title: str, run: Path, fields: Sequence[Field], file: TextIO | None) -> None:
        self._title, self._run, self._fields = one_line(title), run, fields
        self._console = streams.console(file=file, stderr=file is None, force_terminal=True)
        self._ascii = self._console.options.ascii_only
        self._spinner = Spinner("line" if self._ascii else "dots", style="cyan")
        # No thread of its own: the spinner turns only while the launcher really comes round. stdout is left alone.
        own_stderr = file is None
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=own_stderr)

    def start(self, now: float) -> None:
        """See `View.start`."""
        self._live.start()

    def line(self, line: Line) -> None:
        """See `View.line`."""
        text = Text() if line.at is None else Text(f"{local_time(line.at)}  ", style="dim")
        self._console.print(text.append(line.text, style=line.style or None), soft_wrap=True)

    def refresh(self, progress: Progress, now: float) -> None:
        """See `View.refresh`."""
        self._live.update(self._panel(progress, now), refresh=True)

    def stop(self, progress: Progress, now: float) -> None:
        """See `View.stop`."""
        try:
            self.refresh(progress, now)
        finally:
            self._live.stop()

    def _panel(self, progress: Progress, now: float) -> Panel:
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

    def _headline(self, progress: Progress, now: float) -> Table:
        """Sign of life, phase, times and a bar."""
        signs: dict[str, RenderableType] = {"failed": Text("!", "bold red"), "ended": ""}
        sign = signs.get(progress.phase, self._spinner)
        text = Text(progress.startup_text(now) if progress.phase == "starting" else progress.phase, style="bold")
        elapsed_s, left_s = progress.elapsed_s(now), progress.left_s(now)
        if elapsed_s is not None:
            text.append(f"  {clock_text(elapsed_s)} elapsed", style="not bold")
        bar: RenderableType = ""
        if elapsed_s is not None and left_s is not None:
            text.append(f"  {clock_text(left_s)} left", style="not bold")
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

    def _footer(self, progress: Progress, now: float) -> Text:
        parts = [progress.nodes_text] if progress.phase != "starting" and progress.nodes_text else []
        if progress.checkpoint_at is not None:
            parts.append(f"checkpoint {now - progress.checkpoint_at:.0f} s ago")
        text = Text(", ".join([*parts, one_line(self._run)]), style="dim", overflow="fold")
        if progress.quiet_s(now) >= QUIET_S:
            text = Text(f"{progress.quiet_text(now)}, ", style="yellow").append_text(text)
        return text


def _width(cells: Sequence[tuple[str, str]]) -> int:
    """Width of a column of labels and values, a space between the two."""
    return max(len(label) for label, _ in cells) + 1 + max(len(value) for _, value in cells)
