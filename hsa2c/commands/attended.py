"""A command that a signal ends within seconds, whatever it is doing: another process waits for it.

Python hears a signal between two of its own instructions. Native code may keep it from that for many seconds: one call
of a library may hold Python's lock for so long, and then no thread of the same process could answer either.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType

from hsa2c.node.lifetime import die_with_parent, end_as
from hsa2c.signals import STOPPING, catch

_HEARING_S = 2.0  # after a signal: what cleans up takes a second
_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar has hidden it


def attend(prog: str) -> None:
    """Go on as a child process; this one passes signals on to it, and ends as it does. It returns in the child alone.

    Call it while there is one thread, and nothing is written that is not flushed.

    Args:
        prog: The command's name, for the line that a signal makes it say: where the child cannot, this process does.
    """
    parent = os.getpid()
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # each is answered by one process, and once
    child = os.fork()
    if child == 0:
        die_with_parent(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return
    _wait_for(child, prog, unblocked)


def _wait_for(child: int, prog: str, unblocked: set[int | signal.Signals]) -> None:
    """Pass signals on to a child, kill it where it does not hear one in time, and end as it does."""
    asked: list[int] = []

    def pass_on(signum: int, _: FrameType | None) -> None:
        if not asked:
            signal.setitimer(signal.ITIMER_REAL, _HEARING_S)
        asked.append(signum)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    catch(pass_on)
    deaf = False

    def kill(*_: object) -> None:
        nonlocal deaf
        deaf = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if deaf and code == -signal.SIGKILL:
        with contextlib.suppress(OSError):
            os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + f"{prog}: interrupted\n".encode())
        os._exit(128 + asked[0])
    os._exit(end_as(code))
