"""No process outlives the one that needs it, whatever kills that one (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_OF_THE_MASTER = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def leave_signals_to_the_master() -> None:
    """Ignore Ctrl-C and a batch system's warnings, which reach every process of a group: the master answers them."""
    for name in _OF_THE_MASTER:
        signal.signal(name, signal.SIG_IGN)


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Ask the kernel to send `signum` to this process when its parent's thread ends; call it first thing.

    Args:
        parent: The parent's process id. If that is no longer the parent, it died before the request: exit at once.
        signum: What to be sent.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:  # pragma: no cover - Linux always has it
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)
