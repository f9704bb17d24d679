"""A bar on stderr while a file is read; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hsa2c import streams


@contextmanager
def reading(name: str, total_bytes: int, *, show: bool) -> Iterator[Callable[[int], None]]:
    """Show how much has been read.

    Args:
        name: Of what is read.
        total_bytes: Its size.
        show: False hides the bar even on a terminal.

    Yields:
        A function to call now and then with the bytes read so far.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    hidden = not show or not sys.stderr.isatty()
    with Progress(*columns, console=streams.console(stderr=True), transient=True, disable=hidden) as progress:
        task = progress.add_task(f"reading {escape(name)}", total=total_bytes)

        def tick(done_bytes: int) -> None:
            progress.update(task, completed=done_bytes)

        yield tick
