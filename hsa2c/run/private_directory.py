"""A folder that a launcher has for itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "hsa2c-"


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A folder for MPI's shared memory and session files, gone afterwards whoever is killed.

    A tiny shell waits for the launcher's end and removes it; folders whose launcher and shell were both killed are
    removed here, by the next one.
    """
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())  # noqa: S108
    for left in base.glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
    private = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
    janitor = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; sleep 2; rm -rf "$1"', "hsa2c-janitor", str(private)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield private
    finally:
        janitor.kill()
        janitor.wait()
        if janitor.stdin:
            janitor.stdin.close()
        shutil.rmtree(private, ignore_errors=True)
