"""Standard output and standard error, whatever they are connected to: a closed pipe, a full disk, any code page.

stdout is for results: one that cannot be written is an error of ours, told once. stderr is for progress and complaints:
what cannot be written there is lost, and nothing ends over it. A character that cannot be shown is replaced.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from hsa2c.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console

_NO_LIMIT = 1_000_000  # columns: more than any line has


def settle() -> None:
    """Make this process's streams as above; more than once does no harm.

    Streams that somebody else has put in their places (a test, a notebook) stay; only characters are replaced there.
    """
    _open_closed_descriptors()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(sys.stdout, _Results(1, "w", closefd=False), "replace")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(sys.stderr, _Progress(2, "w", closefd=False), "backslashreplace")
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def console(*, stderr: bool = False, **options: Any) -> Console:
    """Rich's console on one of the streams; without a terminal there is no width, so nothing is cut or wrapped.

    Args:
        stderr: On stderr instead of stdout.
        options: More of Rich's.
    """
    from rich.console import Console

    shown = options.get("force_terminal") or (sys.stderr if stderr else sys.stdout).isatty()
    width = None if shown else _NO_LIMIT
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False, **options)


def _open_closed_descriptors() -> None:
    """Give descriptors that were closed at the start something to be, before a file of ours becomes one of them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Results must not go nowhere unnoticed: stdout cannot be written to, stderr can.
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)  # the lowest that is free: this one
            os.set_inheritable(descriptor, True)


def _stream(old: TextIO | None, raw: io.FileIO, errors: str) -> TextIO:
    """A text stream in the place of `old`, which is None where it was closed."""
    if old is not None:
        old.flush()
    encoding = "utf-8" if old is None else old.encoding
    lines = raw.fileno() == 2 or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=lines)


class _Results(io.FileIO):
    """Standard output's descriptor. The first failure is an error; then nobody listens, and nothing is written."""

    _failed = False

    def write(self, data: Any, /) -> int:
        """Write what fits, as the base class.

        Raises:
            OutputError: It cannot be written.
        """
        if self._failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            why = "is closed" if error.errno == errno.EBADF else f"cannot be written: {error.strerror}"
            raise OutputError(f"stdout: {why}") from None


class _Progress(io.FileIO):
    """Standard error's descriptor. A terminal that has hung up or a reader that has gone takes nothing with it."""

    def write(self, data: Any, /) -> int:
        """Write what fits, or drop all of it."""
        try:
            return super().write(data) or len(data)  # nothing: it would have to be waited for
        except OSError:
            return len(data)
