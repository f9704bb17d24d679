"""What a signal that asks to stop does to a command, from its first instruction to its last.

While a command loads what it needs, it ends at once; while it works, an exception takes it through all that cleans up.
Either way it says one line, and its exit code is 128 plus the signal's number. Who has more to do catches the signals
itself: the launcher (`hsa2c.runtime.launch`), the master (`hsa2c.runtime.watch`).

A signal that was ignored when the process started stays ignored, as ``nohup``, ``trap '' INT`` and a shell's
background jobs want it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
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
    """Let a handler have these signals, less those that are ignored; gives back their handlers before."""
    return {name: signal.signal(name, handler) for name in names if signal.getsignal(name) != signal.SIG_IGN}


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


def enter(prog: str, module: str, arguments: list[str] | None = None) -> int:
    """Be a command: load its module, which may take seconds, and call its `main`; gives back the exit code.

    Args:
        prog: The command's name, for the line that a signal makes it say.
        module: Where its `main` is.
        arguments: For `main`; None: this process's.
    """
    rank = 0  # others of the same world leave the line to the first

    def leave(signum: int, _: FrameType | None) -> None:
        # No exception: it would pass through the half-loaded modules of others, some of which swallow it.
        if rank == 0:
            with contextlib.suppress(OSError):
                os.write(2, f"{prog}: interrupted\n".encode())
        os._exit(128 + signum)

    before = catch(leave)
    from hsa2c.runtime import interpreter
    from hsa2c.runtime.world import find_world

    interpreter.settle()  # before more is looked for: python -m has put the current directory first
    rank = find_world().rank
    code = 0
    try:
        code = int(importlib.import_module(module).main(arguments))
    finally:
        restore(before)
        # All is said: what Python takes apart at its end needs no line and no traceback, and a stop has its exit code.
        atexit.register(catch, signal.SIG_IGN if code > 128 else signal.SIG_DFL)
    return code


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

    before = catch(hear) if threading.current_thread() is threading.main_thread() else {}
    try:
        yield look
    except Exception as error:
        if heard:
            raise Interrupted(heard[0]) from error
        raise
    finally:
        restore(before)
