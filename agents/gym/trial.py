"""Code of the user's, tried in a process of its own: native code that ends its process must not end the command."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable

from hsa2c.errors import ConfigError
from hsa2c.node.lifetime import die_with_parent, ending

_SURVIVED = 77  # exit code of a child that has seen the end of its trial


def survive(trial: Callable[[], object], what: str, limit_s: float | None) -> None:
    """Call it in a forked process, silently; what it raises is not looked at.

    Nothing is tried where other threads of Python run, for a fork could hang then.

    Args:
        trial: Is called.
        what: The beginning of the complaint.
        limit_s: Seconds after which its process is ended, and nothing is said; None: never.

    Raises:
        ConfigError: It ended its process.
    """
    if threading.active_count() > 1:
        return
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_with_parent(parent)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            with contextlib.suppress(BaseException):
                trial()
            code = _SURVIVED
        finally:
            os._exit(code)
    in_time = _ends(child, limit_s)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if in_time and code != _SURVIVED:
        raise ConfigError(f"{what} ends its process {ending(code)}")


def _ends(child: int, limit_s: float | None) -> bool:
    """Wait for a process, and kill it if that takes too long."""
    process = os.pidfd_open(child)
    try:
        in_time = bool(select.select([process], [], [], limit_s)[0])
        if not in_time:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        return in_time
    finally:
        os.close(process)
