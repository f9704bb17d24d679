"""A process that forks a node's actor-learners: at the start, and again when one has died.

A node that has called MPI_Init or started a thread must not fork. This process does neither: it is forked once, while
the node still may, waits for the node's word and sleeps otherwise. It ends with the node, and its children with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from hsa2c.errors import NodeError
from hsa2c.node.lifetime import die_with_parent, leave_signals_to_the_master

Live = Callable[[int, socket.socket], None]

_REQUEST = struct.Struct("=cq")
_ANSWER = struct.Struct("=q")
_FORK, _FATE, _PART = b"H", b"F", b"P"
_ALIVE = 1 << 32  # no exit status is that
_FATE_S = 1.0  # how long one may take to end whose connection has
_HEED_S = 10.0  # the node's patience with this process, beside what it asked it to wait for


class ForkServer:
    """The node's handle on the process.

    Args:
        live: What a forked process does, given its index and its end of a connection to the node; it may return.
        what: What a forked process is called in messages.
    """

    def __init__(self, live: Live, what: str = "actor-learner") -> None:
        self._what = what
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        node = os.getpid()
        self.pid = _fork(lambda: _serve(theirs, live, self._requests, node))
        theirs.close()

    def fork(self, index: int) -> tuple[int, socket.socket]:
        """Fork a process; gives its process id, and the node's end of the connection to it.

        Raises:
            NodeError: The fork server has died, or the system lets it start no more processes.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = self._ask(_FORK, index, _HEED_S, [theirs.fileno()])
                if pid < 0:
                    raise NodeError(f"{self._what} {index} cannot be started: {os.strerror(-pid)} (see ulimit -u)")
                return pid, ours
            except BaseException:
                ours.close()
                raise

    def fate(self, pid: int) -> int | None:
        """The exit code of a process that seems to have ended, minus the signal's number if one ended it; None if it
        has not ended.

        Raises:
            NodeError: The fork server has died.
        """
        status = self._ask(_FATE, pid, _FATE_S + _HEED_S)
        return None if status == _ALIVE else os.waitstatus_to_exitcode(status)

    def part(self, patience_s: float) -> None:
        """Wait until all processes have ended, kill those that have not in time, and end the fork server. Twice is
        fine.
        """
        if self.pid == 0:
            return
        with contextlib.suppress(NodeError):
            self._ask(_PART, int(1000 * patience_s), patience_s + _HEED_S)
        self._requests.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # it has answered, or it never will
        os.waitpid(self.pid, 0)
        self.pid = 0

    def _ask(self, what: bytes, number: int, patience_s: float, fds: list[int] | None = None) -> int:
        try:
            self._requests.settimeout(patience_s)
            socket.send_fds(self._requests, [_REQUEST.pack(what, number)], fds or [])
            answer = self._requests.recv(_ANSWER.size)
        except OSError:
            answer = b""
        if not answer:
            raise NodeError(f"the process that forks the {self._what}s (pid {self.pid}) has died or hangs")
        return int(_ANSWER.unpack(answer)[0])


def _fork(be: Callable[[], None]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(BaseException):
        try:
            be()
            code = 0
        except BaseException:
            traceback.print_exc()
    os._exit(code)  # the parent's exit handlers and buffers, inherited by the fork, are not ours to run


def _serve(requests: socket.socket, live: Live, foreign: socket.socket, node: int) -> None:
    """The fork server, from its first to its last instruction."""
    die_with_parent(node)
    foreign.close()
    leave_signals_to_the_master()
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    statuses: dict[int, int | None] = {}
    while True:
        request, fds, *_ = socket.recv_fds(requests, _REQUEST.size, 1)
        if not request:
            _end(statuses, 0.0)
            return
        what, number = _REQUEST.unpack(request)
        if what == _FORK:
            try:
                answer = _fork_process(requests, live, number, fds[0])
                statuses[answer] = None
            except OSError as error:  # no more processes, or no memory
                answer = -(error.errno or 1)
            os.close(fds[0])
        elif what == _FATE:
            answer = _fate(statuses, number, _FATE_S)
        else:
            answer = _end(statuses, number / 1000)
        requests.send(_ANSWER.pack(answer))


def _fork_process(requests: socket.socket, live: Live, index: int, connection: int) -> int:
    fork_server = os.getpid()

    def be() -> NoReturn:
        die_with_parent(fork_server)
        requests.close()
        live(index, socket.socket(fileno=connection))
        os._exit(0)

    return _fork(be)


def _fate(statuses: dict[int, int | None], pid: int, patience_s: float) -> int:
    deadline = time.monotonic() + patience_s
    while statuses[pid] is None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            statuses[pid] = status
        elif time.monotonic() > deadline:
            return _ALIVE
        else:
            time.sleep(0.002)
    return statuses[pid] or 0


def _end(statuses: dict[int, int | None], patience_s: float) -> int:
    deadline = time.monotonic() + patience_s
    for pid in statuses:
        if _fate(statuses, pid, max(0.0, deadline - time.monotonic())) == _ALIVE:
            os.kill(pid, signal.SIGKILL)
            _fate(statuses, pid, _HEED_S)
    return 0
