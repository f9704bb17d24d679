"""Standard output and standard error, whatever they are connected to: a closed pipe, a full disk, any code page.

stdout is for results: one that cannot be written is an error of ours, told once. stderr is for progress and complaints:
what cannot be written there is lost, and nothing ends over it. A character that cannot be shown is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
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
        sys.stdout = _stream(sys.stdout, 1, _Results, "replace")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(sys.stderr, 2, _Progress, "backslashreplace")
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


def _stream(old: TextIO | None, descriptor: int, kind: type[io.TextIOWrapper], errors: str) -> TextIO:
    """A text stream in the place of `old`, which is None where it was closed."""
    if old is not None:
        old.flush()
    encoding = "utf-8" if old is None else old.encoding
    binary = open(descriptor, "wb", closefd=False)  # noqa: SIM115 - no path; as long as this process
    return kind(binary, encoding=encoding, errors=errors, line_buffering=descriptor == 2 or os.isatty(descriptor))


class _Results(io.TextIOWrapper):
    """Standard output. The first failure is an error; then nobody listens, and what is written goes nowhere."""

    def write(self, text: str, /) -> int:
        """As the base class.

        Raises:
            OutputError: It cannot be written.
        """
        with self._told():
            return super().write(text)

    def flush(self) -> None:
        """As the base class.

        Raises:
            OutputError: It cannot be written.
        """
        with self._told():
            super().flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)  # also what is still in the buffer
            os.close(nowhere)
            why = "is closed" if error.errno == errno.EBADF else f"cannot be written: {error.strerror}"
            raise OutputError(f"stdout: {why}") from None


class _Progress(io.TextIOWrapper):
    """Standard error. A terminal that has hung up or a reader that has gone takes nothing with it."""

    def write(self, text: str, /) -> int:
        """As the base class; what cannot be written now may be later, or never."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """As the base class, as far as that is possible."""
        with contextlib.suppress(OSError):
            super().flush()
