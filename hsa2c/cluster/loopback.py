"""Keeps what another program listens on from being reached from outside this machine (Linux 5.7 or later).

PRRTE's mpiexec opens a port on all interfaces, for daemons on other hosts, also where there are none, and refuses to
start when it is told to use loopback alone. Its parent may take copies of its sockets (pidfd_getfd) and bind those that
listen to the loopback device: then only this machine's processes can connect. Open MPI's TCP transport listens on all
interfaces in every rank, whichever it is told to use; a rank binds its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PIDFD_GETFD = 438
_SETTLED_S = 0.2  # mpiexec opens its ports within milliseconds of each other
_LOOK_S = 0.01


def confine(pid: int, limit_s: float = 5.0, *, enough: Callable[[], bool] = lambda: False) -> list[int]:
    """Wait until a child process listens, and let only this machine's processes connect.

    Args:
        pid: The child.
        limit_s: How long to wait, in seconds.
        enough: Whether to wait no longer.

    Returns:
        Ports that others can still reach: the system does not let a parent at its child's sockets.
    """
    deadline = time.monotonic() + limit_s
    confined: set[int] = set()
    settled_at = deadline
    while not enough() and time.monotonic() < min(deadline, settled_at) and Path(f"/proc/{pid}").exists():
        try:
            new = {port for port, device in listening(pid, confining=True) if device == "lo"} - confined
        except PermissionError:
            return _open_ports(pid)
        if new:
            confined |= new
            settled_at = time.monotonic() + _SETTLED_S
        time.sleep(_LOOK_S)
    return []


def listening(pid: int, *, confining: bool = False) -> list[tuple[int, str]]:
    """Where a process, a child or this one, listens: ports, each with the device or address it is bound to, "" for all.

    Args:
        pid: The process.
        confining: Bind those that are bound to none to the loopback device.

    Raises:
        PermissionError: The system does not let this process at the child's sockets.
    """
    found = []
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for copy in sockets(pid):
            if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                continue
            host, port = copy.getsockname()[:2]
            if ipaddress.ip_address(host).is_unspecified:
                if confining:
                    copy.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
                host = copy.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode()
            found.append((port, host))
    return found


def sockets(pid: int) -> Iterator[socket.socket]:
    """Copies of a process's internet sockets, each closed after its turn."""
    process = os.pidfd_open(pid)
    try:
        for entry in list(Path(f"/proc/{pid}/fd").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                if not str(entry.readlink()).startswith("socket:"):
                    continue
                copy = _copy(process, int(entry.name)) if pid != os.getpid() else os.dup(int(entry.name))
                with socket.socket(fileno=copy) as mine:
                    if mine.family in (socket.AF_INET, socket.AF_INET6) and mine.type == socket.SOCK_STREAM:
                        yield mine
    finally:
        os.close(process)


def _copy(process: int, descriptor: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    copy: int = libc.syscall(_PIDFD_GETFD, process, descriptor, 0)
    if copy >= 0:
        return copy
    if ctypes.get_errno() == errno.EBADF:
        raise FileNotFoundError(errno.EBADF, "closed meanwhile")
    raise PermissionError(ctypes.get_errno(), "pidfd_getfd")


def _open_ports(pid: int) -> list[int]:
    """The same from the kernel's tables, which anybody may read."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = str(entry.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    ports = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].partition(":")
                if fields[3] == "0A" and fields[9] in inodes and not address.strip("0"):
                    ports.append(int(port, 16))
    return sorted(set(ports))
