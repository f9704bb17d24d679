"""Files of JSON lines, only appended to, that hold whole lines: after a full disk, after ``kill -9``, with two writers.

A line is one write, so a reader at any moment meets whole lines and at most one torn one at the end. Whoever writes
next mends that one first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_BLOCK = 64 * 1024  # bytes that are looked at together for the end of the last whole line
_LOCK_S = 2.0  # how long another writer may hold a file; it writes one line


class Lines:
    """A file opened for appending.

    Every append, and the opening, first mends what a writer that was killed, or met a full disk, has left. Two
    processes may append to one file, so each does it with the file to itself.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`; it is made, and its folder, where it is missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a+b", buffering=0)
        with contextlib.suppress(OSError), self._alone():  # where it cannot be mended now, the first append tries again
            self._mend()

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a line; floats that are not finite become null, and what JSON does not know text.

        Raises:
            OSError: There is no room for it, for example. The file is as it was before.
        """
        line = json.dumps(_plain(record), allow_nan=False, default=str).encode() + b"\n"
        with self._alone():
            self._mend()
            # One unbuffered write to a file in append mode, so that readers see the line at once.
            written = self._file.write(line) or 0
            if written < len(line):
                with contextlib.suppress(OSError):
                    self._mend()
                raise OSError(errno.ENOSPC, "line written in part", str(self._path))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers of the file out; they need less than a millisecond, unless they hang."""
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _mend(self) -> None:
        """End the last line where only its end is missing; else cut the file back to its last whole line."""
        end = self._file.seek(0, os.SEEK_END)
        begin, tail = end, b""
        while begin > 0 and b"\n" not in tail:
            step = min(_BLOCK, begin)
            begin -= step
            tail = os.pread(self._file.fileno(), step, begin) + tail
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return
        if any(parse(torn)):
            self._file.write(b"\n")
        else:
            self._file.truncate(end - len(torn))

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


def parse(text: bytes) -> Iterator[Row]:
    """The objects among some lines; torn or foreign lines are passed over."""
    for line in text.split(b"\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, a number too long for Python
            continue
        if isinstance(record, dict):
            yield record


def _plain(value: Any) -> Any:
    """`value` with null for the floats JSON has no word for, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
