"""The door of every command: signals are heard before anything heavy is loaded."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import sys
from types import FrameType

from hsa2c.signals import catch, restore

#: Modules of commands that native code may keep from hearing a signal for many seconds.
ATTENDED = ("hsa2c.commands.evaluate",)

#: Modules of commands whose program serves several applications.
SHARED = ("hsa2c.commands.train", "hsa2c.commands.evaluate")


def enter(
    prog: str, module: str, arguments: list[str] | None = None, *, app: str | None = None, chooses: bool = False
) -> int:
    """Be a command: load its module, which may take seconds, and call its `main`; gives back the exit code.

    Args:
        prog: The command's name, for the line that a signal makes it say.
        module: Where its `main` is.
        arguments: For `main`; None: this process's.
        app: Module of the application, for a command that serves any; None: its own, or that of `chooses`.
        chooses: The command serves the application of ``--app``, or of the run that is named.
    """
    code = rank = 0  # others of the same world leave the line to the first

    def leave(signum: int, _: FrameType | None) -> None:
        # No exception: it would pass through the half-loaded modules of others, some of which swallow it.
        if rank == 0:
            with contextlib.suppress(OSError):
                os.write(2, f"{prog}: interrupted\n".encode())
        os._exit(128 + signum)

    before = catch(leave)
    if attended := module in ATTENDED:
        from hsa2c.commands.attended import attend

        attend(prog)
    from hsa2c import interpreter
    from hsa2c.cluster.world import find_world

    interpreter.settle()  # before more is looked for: python -m has put the current directory first
    rank = find_world().rank
    try:
        code = _call(module, prog, arguments, app=app, chooses=chooses, quiet=rank != 0)
    finally:
        restore(before)
        # All is said: what Python takes apart at its end needs no line and no traceback, and a stop has its exit code.
        atexit.register(catch, signal.SIG_IGN if code > 128 else signal.SIG_DFL)
    if attended:  # a torch that is taken apart in good order could keep it from ending for seconds more
        os._exit(code)
    return code


def _call(module: str, prog: str, arguments: list[str] | None, *, app: str | None, chooses: bool, quiet: bool) -> int:
    """Load the command and call it, once the application is known; see `enter`."""
    how = {} if app is None else {"app": app}
    if app is None and not chooses and module in SHARED:
        from hsa2c.commands.choice import lead

        how = {"app": lead(sys.argv[1:] if arguments is None else arguments)}
    if chooses:
        from hsa2c.commands.choice import choose

        app, arguments = choose(prog, sys.argv[1:] if arguments is None else arguments, quiet=quiet)
        how = {"app": app, "prog": prog}
    return int(importlib.import_module(module).main(arguments, **how))
