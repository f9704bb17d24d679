"""A command that a signal ends within seconds, whatever it is doing: another process waits for it.

Python hears a signal between two of its own instructions. Native code may keep it from that for many seconds: one call
of a library may hold Python's lock for so long, and then no thread of the same process could answer either.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from types import FrameType

from hsa2c.errors import EXIT_FAILED
from hsa2c.node.lifetime import die_with_parent, end_as, ending
from hsa2c.signals import STOPPING, catch

_HEARING_S = 2.0  # after a signal: what cleans up takes a second
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_NO_BAR = b"\r\x1b[2K\x1b[?25h"  # of a progress bar, its line away and the cursor back


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
    os._exit(_end_of(child, prog, unblocked))


def _end_of(child: int, prog: str, unblocked: Iterable[int]) -> int:
    """Wait for it, and pass signals on; gives back the exit code."""
    asked: list[int] = []

    def send(signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    def pass_on(signum: int, _: FrameType | None) -> None:
        if not asked:
            signal.setitimer(signal.ITIMER_REAL, _HEARING_S)
        asked.append(signum)
        send(signum)

    catch(pass_on)
    signal.signal(signal.SIGALRM, lambda *_: send(signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if asked and code == -signal.SIGKILL:
        with contextlib.suppress(OSError):
            os.write(2, (_NO_BAR if os.isatty(2) else b"") + f"{prog}: interrupted\n".encode())
        return 128 + asked[0]
    if not asked and (-code in _CRASHES or 3 <= code <= 128):  # no command ends so: code of others did
        with contextlib.suppress(OSError):
            os.write(
                2, f"{prog}: its process was ended {ending(code)}, by an environment or a library of its\n".encode()
            )
        return EXIT_FAILED
    return end_as(code)
