"""One trial: a training in processes of its own, whose curve is followed while it goes on."""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hsa2c import interpreter
from hsa2c.errors import EXIT_DONE
from hsa2c.node.lifetime import die_with_parent
from hsa2c.observe.jsonlines import Row
from hsa2c.observe.runlog import METRICS, ROW_KEYS, Tail, append_row, number
from hsa2c.run.ending import why
from hsa2c.tuning.study import LEVELS

_AT_ONCE_S = 10.0  # from the first request to stop to the second, which is at once; a stop takes a second or two
_KILL_S = 30.0  # from the first request to the end of patience


class Training:
    """A command that trains in a run directory.

    Args:
        command: What trains.
        directory: Its run directory, which it makes.
        key: The value of its rows that is followed.
    """

    def __init__(self, command: Sequence[str], directory: Path, key: str) -> None:
        self.directory, self._key = directory, key
        self._output = directory.with_name(f"{directory.name}.txt")
        self._tail, self._rows = Tail(directory / METRICS), list[Row]()
        self._level = 0
        self._asked_at: float | None = None
        self._requests = 0
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=interpreter.environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the study, which stops its trials itself
                preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - one thread here
            )

    @property
    def value(self) -> float | None:
        """The newest; None: there was none yet."""
        values = [found for row in self._rows if (found := number(row.get(self._key))) is not None]
        return values[-1] if values else None

    @property
    def progress(self) -> float:
        """Share of its limit that is done, 0 to 1."""
        return (number(self._rows[-1].get("progress")) or 0.0) if self._rows else 0.0

    def levels(self) -> range:
        """The parts of it (`LEVELS`) that have ended since the last call; none while there is no value."""
        for row in self._tail.new():
            append_row(self._rows, row)
        reached = int(LEVELS * self.progress + 1e-9) if self.value is not None else 0
        new = range(self._level + 1, reached + 1)
        self._level = max(self._level, reached)
        return new

    def stop(self) -> None:
        """Ask it to stop in good order; a second call: at once."""
        self._asked_at = self._asked_at or time.monotonic()
        self._requests += 1
        self._process.send_signal(signal.SIGTERM)  # as Ctrl-C to it, but nohup's children do not ignore it

    def poll(self) -> int | None:
        """Its exit code; None while it goes on. One that was asked to stop and does not is made to."""
        code = self._process.poll()
        if code is None and self._asked_at is not None:
            waited_s = time.monotonic() - self._asked_at
            if waited_s > _KILL_S:
                self._process.kill()  # the kernel ends its job, too
            elif waited_s > _AT_ONCE_S and self._requests == 1:
                self.stop()
        return code

    def failure(self, code: int) -> str:
        """Why it has failed, in a line, once it has ended; empty: it has not."""
        if code == EXIT_DONE:
            return "" if self.value is not None else self._without_value()
        said = why(self.directory) or self._last_line()
        return said or (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _without_value(self) -> str:
        keys = sorted({key for row in self._rows for key in row} - ROW_KEYS)
        if not keys or self._key in keys:
            return f"no value of {self._key} before its end: a trial must last longer"
        near = difflib.get_close_matches(self._key, keys, n=3, cutoff=0.4) or keys[:3]
        return f"{self._key}: no such value in its rows; did you mean {', '.join(near)}?"

    def _last_line(self) -> str:
        lines = self._output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
