"""A job that is a copy of this process, with whatever its user has made here: for one node, which needs no MPI.

So functions of an interactive session, lambdas and closures can be trained with; other processes could not find them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from hsa2c import signals
from hsa2c.errors import EXIT_FAILED
from hsa2c.node.lifetime import begin_as_job


class ForkedJob:
    """A forked child, with what the launcher uses of `subprocess.Popen`.

    Args:
        pid: A child of this process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative where a signal has ended it.

        Raises:
            subprocess.TimeoutExpired: It has not ended within `timeout` seconds.
        """
        if self._code is None:
            ended = select.poll()
            ended.register(self._descriptor, select.POLLIN)
            if not ended.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired("job", timeout or 0.0)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._descriptor)
        return self._code

    def send_signal(self, signum: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Send it TERM."""
        self.send_signal(signal.SIGTERM)


def fork(
    be: Callable[[list[str]], int], arguments: Sequence[str], environment: Mapping[str, str], log: IO[bytes]
) -> ForkedJob:
    """Start a job in a session of its own.

    Args:
        be: What it does with its arguments; gives back its exit code.
        arguments: Its own.
        environment: Variables that it has beside this process's.
        log: Where its output goes.
    """
    launcher = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are not there afterwards, and not missed
        pid = os.fork()
    if pid != 0:
        return ForkedJob(pid)
    code = EXIT_FAILED
    try:
        gc.freeze()  # what this process's user has made is not ours to take apart
        os.setsid()
        signal.set_wakeup_fd(-1)
        signals.to_default()
        begin_as_job(launcher)
        _redirect(log)
        os.environ.update(environment)
        code = be(list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _redirect(log: IO[bytes]) -> None:
    """Input from nowhere, output to the log; a notebook's streams belong to threads that are not here."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, standard in ((nowhere, 0), (log.fileno(), 1), (log.fileno(), 2)):
        os.dup2(source, standard)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - this process's, to its end
    sys.stdout, sys.stderr = (
        open(standard, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for standard in (1, 2)
    )
