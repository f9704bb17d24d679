"""MPI's calls as this project uses them: nobody blocks inside MPI, where waiting burns a core."""

from __future__ import annotations

import time
from collections.abc import Callable

from mpi4py import MPI

from hsa2c.errors import TransportError
from hsa2c.transport.backoff import Backoff
from hsa2c.transport.mpi.frames import Bytes
from hsa2c.transport.waiting import Patience

TAG, NUMBERS_TAG = 0, 2


def sleep(backoff: Backoff, most_s: float | None = None) -> None:
    """Sleep as long as the back-off says, at most `most_s` seconds."""
    sleep_s = backoff.next_s()
    time.sleep(sleep_s if most_s is None else min(most_s, sleep_s))


def wait_until(done: Callable[[], bool], limit_s: float, what: str, backoff: Backoff | None = None) -> float:
    """Wait until it is done; gives back how long."""
    began_at = time.monotonic()
    patience = Patience(limit_s)
    backoff = backoff or Backoff()
    while not done():
        if patience.left_s() <= 0:
            raise TransportError(f"{what}: not done after {limit_s:.0f} s")
        sleep(backoff)
    return time.monotonic() - began_at


def probe(comm: MPI.Comm, source: int, tag: int = TAG) -> tuple[MPI.Message, MPI.Status] | None:
    """A message that has come and its status, if one has; it can then only be received by `take`."""
    status = MPI.Status()
    message = comm.Improbe(source=source, tag=tag, status=status)
    return None if message is None else (message, status)


def take(found: tuple[MPI.Message, MPI.Status], buffer: Bytes, limit_s: float, who: str) -> Bytes:
    """Receive a probed message into `buffer`; gives back the part of it that was filled."""
    message, status = found
    size = status.Get_count(MPI.BYTE)
    if size > buffer.size:
        raise TransportError(f"{who}: a message of {size} bytes, more than {buffer.size}")
    request = message.Irecv([buffer[:size], MPI.BYTE])
    wait_until(request.Test, limit_s, f"{who}: receiving {size} bytes")
    return buffer[:size]


def in_words(error: MPI.Exception, other: str) -> str:
    """What went wrong in dealing with another rank."""
    if error.Get_error_class() in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING):
        return f"{other} has died"
    return f"MPI: {error}"
