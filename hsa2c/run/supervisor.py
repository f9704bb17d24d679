"""The launcher's eye on its job: what a signal to the launcher means for it, and when it is to be made to end."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hsa2c import signals
from hsa2c.node.lifetime import kill_session
from hsa2c.observe.console import Console
from hsa2c.run import exit_record

REFRESH_S = 0.25
"""Between two looks, in seconds."""

_LEAVE_S = 10.0  # from the master's exit record, or its death, to the end of all others
_ELSEWHERE_S = 2.0  # for mpiexec to end the ranks of other hosts
_GRACE_S = 120.0  # from the first signal to the end of patience; a stop takes seconds


class Job(Protocol):
    """What the launcher uses of `subprocess.Popen`."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; raises `subprocess.TimeoutExpired`."""

    def send_signal(self, signum: int) -> None:
        """Send it a signal."""

    def terminate(self) -> None:
        """Send it TERM."""


class Onlooker(Protocol):
    """Looks at a run's files while it goes on, in the launcher's process."""

    def update(self) -> str | None:
        """Look at what is new; gives back why the run is to end in good order, if it is."""


@dataclass
class Supervisor:
    """Watches one job and passes signals on to it."""

    onlooker: Onlooker | None = None
    received: list[int] = field(default_factory=list)
    trained: bool = False
    """Whether training had begun, or began again, when the first signal came."""

    def asked(self) -> bool:
        """Whether a signal has asked for an end."""
        return bool(self.received)

    @contextlib.contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Take note of signals. Once one has come, they have no other effect afterwards: what follows cleans up."""
        before = signals.catch(lambda signum, _: self.received.append(signum))
        try:
            yield
        finally:
            if not self.received:
                signals.restore(before)

    def monitor(self, job: Job, console: Console, word: Path, *, here: bool) -> int:
        """Wait for the job; gives back its exit code.

        Once the master has given its exit record, or has died, the others have little time: mpiexec ends when they
        have, and may not notice.

        Args:
            job: What was started.
            console: What shows it.
            word: The file of the master's exit record.
            here: Whether all of the job is on this machine.
        """
        passed = 0
        asked_at = ended_at = 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = job.wait(0.0 if self.received and not passed else REFRESH_S)
                console.update()
                self.trained = self.trained or console.training
                return code
            console.update()
            if not asked_at and (told := self._onlooks()) is not None:
                asked_at = time.monotonic()
                _ask(job, console, told)
            if len(self.received) > passed:
                passed = len(self.received)
                self.trained = console.training
                if asked_at or not self.trained:
                    return end(job, patience_s=0.0 if here else _ELSEWHERE_S)
                asked_at = time.monotonic()
                _ask(job, console, self.name, "; once more to stop at once")
            elif exit_record.given(word) is not None or exit_record.master_is_gone(word):
                ended_at = ended_at or time.monotonic()
                if time.monotonic() - ended_at > _LEAVE_S:
                    return end(job)
            elif asked_at and time.monotonic() - asked_at > _GRACE_S:
                console.say(f"no end after {_GRACE_S:.0f} s: killed")
                return end(job)

    def _onlooks(self) -> str | None:
        return None if self.onlooker is None else self.onlooker.update()

    @property
    def name(self) -> str:
        """Of the first signal."""
        return signal.Signals(self.received[0]).name


def _ask(job: Job, console: Console, why: str, more: str = "") -> None:
    """Ask the job to end in good order."""
    console.say(f"{why}: writing a checkpoint and stopping{more}")
    job.send_signal(signal.SIGUSR1)


def end(job: Job, patience_s: float = 3.0) -> int:
    """End a job now: TERM, so that mpiexec takes along its ranks on other hosts, then KILL for all that is here."""
    if patience_s > 0:
        job.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return job.wait(patience_s)
    kill_session(job.pid)
    return job.wait()
