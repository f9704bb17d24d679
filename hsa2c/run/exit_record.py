"""What the master tells its launcher, whatever becomes of mpiexec: that it lives, and how the run ended.

It is one file: locked for as long as the master's process lives, empty until the master has said how the run ended.
mpiexec's exit code speaks of every rank, of those that were lost and replaced too; and it may not end at all when the
master is killed, for example in the middle of starting another node.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from hsa2c.cluster.world import EXIT_RECORD
from hsa2c.errors import EXIT_FAILED

_held: list[IO[str]] = []  # until this process ends


def hold() -> None:
    """Be the master whom the launcher waits for, if there is a launcher."""
    path = os.environ.get(EXIT_RECORD)
    if path:
        file = Path(path).open("a")  # noqa: SIM115 - the kernel closes it when this process ends, and not before
        fcntl.flock(file, fcntl.LOCK_EX)
        _held.append(file)


def give(code: int) -> None:
    """Tell how the run ended."""
    path = os.environ.get(EXIT_RECORD)
    if path:
        Path(path).write_text(str(code))


def given(path: Path) -> int | None:
    """How the run ended; None if the master has not said."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def outcome(path: Path, code: int) -> int:
    """How the run ended by what the master has said, whatever mpiexec's exit code is."""
    said = given(path)
    return (code or EXIT_FAILED) if said is None else said


def master_is_gone(path: Path) -> bool:
    """Whether the master has begun, and its process has ended."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except OSError:  # there is no such file yet, or the master holds it
        return False
