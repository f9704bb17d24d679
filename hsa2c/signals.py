"""What a signal that asks to stop does to a command, from its first instruction to its last.

While a command loads what it needs, it ends at once; while it works, an exception takes it through all that cleans up.
Either way it says one line, and its exit code is 128 plus the signal's number. Who has more to do catches the signals
itself: the launcher (`hsa2c.run.launcher`), the master (`hsa2c.run.monitor`).

A signal that was ignored when the process started stays ignored, as ``nohup``, ``trap '' INT`` and a shell's
background jobs want it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""The signals that ask to stop."""

_CLEANING_S = 1.0  # for so long after the first signal a second one does not cut short what cleans up


class Interrupted(KeyboardInterrupt):
    """A signal has asked this command to stop.

    Attributes:
        signum: Which.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def catch(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers, names: Iterable[signal.Signals] = STOPPING
) -> dict[signal.Signals, Any]:
    """Let a handler have these signals, less those that are ignored; gives back their handlers before.

    Another thread than the main one catches none: Python hands signals to that one alone.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {name: signal.signal(name, handler) for name in names if signal.getsignal(name) != signal.SIG_IGN}


def handlers() -> dict[signal.Signals, Any]:
    """The present handlers, for `restore`; none in another thread than the main one."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {name: signal.getsignal(name) for name in STOPPING}


def restore(handlers: Mapping[signal.Signals, Any]) -> None:
    """Undo `catch`."""
    for name, handler in handlers.items():
        signal.signal(name, signal.SIG_DFL if handler is None else handler)


def to_default() -> None:
    """Let the kernel end this process by these signals, wherever it is, less those that are ignored."""
    catch(signal.SIG_DFL)


def catch_again() -> None:
    """Put the handlers that Python knows of back in the place of what a library has installed: MPI_Init catches HUP."""
    for name in STOPPING:
        if (handler := signal.getsignal(name)) is not None:
            signal.signal(name, handler)


@contextlib.contextmanager
def raising() -> Iterator[Callable[[], None]]:
    """While a command works, a signal raises `Interrupted`; a second one that comes late ends the process.

    Gives a function that raises once more: Python drops an exception that is raised in a finaliser.

    Raises:
        Interrupted: Also in place of an error that it has become on its way through the libraries of others.
    """
    heard: list[int] = []
    heard_at = 0.0

    def hear(signum: int, _: FrameType | None) -> None:
        nonlocal heard_at
        if heard:
            if time.monotonic() - heard_at > _CLEANING_S:
                os._exit(128 + heard[0])
            return
        heard.append(signum)
        heard_at = time.monotonic()
        raise Interrupted(signum)

    def look() -> None:
        if heard:
            raise Interrupted(heard[0])

    before = catch(hear)
    try:
        yield look
    except Exception as error:
        if heard:
            raise Interrupted(heard[0]) from error
        raise
    finally:
        restore(before)
