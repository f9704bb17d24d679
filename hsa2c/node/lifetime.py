"""No process outlives the one that needs it, whatever kills that one (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # now: a child that was forked among threads is to load nothing
_OF_THE_MASTER = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def leave_signals_to_the_master() -> None:
    """Ignore Ctrl-C and a batch system's warnings, which reach every process of a group: the master answers them."""
    for name in _OF_THE_MASTER:
        signal.signal(name, signal.SIG_IGN)


def kill_session(leader: int) -> None:
    """Kill a process that has a session of its own, and all that it and its children have started in it.

    Args:
        leader: A child of this process that has not been waited for: so nobody else has its number.
    """
    killed: set[int] = set()
    while new := {leader, *_members(leader)} - killed:  # one that is killed may have forked meanwhile
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= new


def _members(session: int) -> set[int]:
    members = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, after_name = stat.read_text(errors="replace").rpartition(")")
            if int(after_name.split()[3]) == session:
                members.add(int(stat.parent.name))
    return members


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Ask the kernel to send `signum` to this process when its parent's thread ends; call it first thing.

    Args:
        parent: The parent's process id. If that is no longer the parent, it died before the request: exit at once.
        signum: What to be sent.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:  # pragma: no cover - Linux always has it
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def end_as(code: int) -> int:
    """End as another process did whose exit code is negative where a signal ended it; gives back any other code."""
    if code < 0:
        with contextlib.suppress(OSError):  # KILL has no other way
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def ending(code: int) -> str:
    """How a process has ended, in words: "by SIGSEGV", or "with exit code 3"."""
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def leave_signals_to_the_launcher() -> None:
    """Ignore Ctrl-C and the end of the terminal: the launcher answers them, and asks for a stop by USR1."""
    for name in (signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)


def hear_the_launcher() -> None:
    """In the master, where it was forked from a process that leaves signals to it: USR1 asks it to stop."""
    leave_signals_to_the_launcher()
    for name in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(name, signal.SIG_DFL)


def begin_as_job(launcher: int) -> None:
    """Before the first instruction of a process that `launcher` asks to stop by USR1, and that ends after it."""
    die_with_parent(launcher, signal.SIGTERM)
    leave_signals_to_the_launcher()
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # also where the launcher's own is ignored


def begin_as_fork_server(launcher: int) -> None:
    """Before the first instruction of a process from which nodes are to be forked."""
    die_with_parent(launcher)
    leave_signals_to_the_master()
