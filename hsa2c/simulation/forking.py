"""Processes that are forked while a stop may come."""

from __future__ import annotations

import signal
from multiprocessing.process import BaseProcess

from hsa2c import signals
from hsa2c.errors import HSA2CError


def start(process: BaseProcess, purpose: str) -> None:
    """Start a process; a stop waits until that is done, and in the process until it calls `hear_stops`.

    Args:
        process: Not started yet.
        purpose: What for, as the error says: "compute gradients".

    Raises:
        HSA2CError: The system gives no process.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPPING)
    try:
        process.start()
    except OSError as error:
        raise HSA2CError(f"cannot start a process to {purpose}: {error.strerror or error}") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def hear_stops() -> None:
    """In a process of `start`, once nothing of Python would hear a stop: let the kernel deliver it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOPPING)
