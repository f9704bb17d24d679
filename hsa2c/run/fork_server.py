"""One process of a host that loads everything once, and is forked for the master and every node that the host has.

Forty nodes on one machine would otherwise load Python, torch and the application forty times: three seconds of a core
and 150 MB each. mpiexec starts a small stand-in for each instead (`stand_in`). It hands its arguments, its environment
(where MPI's place in the world is) and its output to the fork server, and waits: a process forked there is the node,
and the stand-in ends as that ends. Whichever dies, the other goes too. The master's hands on what asks it to stop.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

from hsa2c import interpreter
from hsa2c.node.lifetime import (
    begin_as_fork_server,
    die_with_parent,
    end_as,
    hear_the_launcher,
    kill_session,
    leave_signals_to_the_master,
)

ADDRESS = "HSA2C_FORK_SERVER"
"""Environment variable: the fork server's socket, for the ranks of this host."""

_MPI_SOCKET = "PMI_FD"  # environment variable: descriptor by which a rank speaks to MPICH's mpiexec

_SOCKET = "fork_server"
_NUMBER = struct.Struct("=i")  # a process id, then its status as os.waitpid gives it
_MAX_REQUEST = 1 << 20
_FAILED = 1


# The launcher's side.


@contextlib.contextmanager
def fork_server(private: Path, command: Sequence[str], environment: dict[str, str], log: IO[bytes]) -> Iterator[str]:
    """Start a fork server for the ranks that `command` will be run as; gives its address.

    Args:
        private: A folder that nobody else may enter.
        command: A rank's: the fork server loads what its arguments ask for.
        environment: Of the fork server.
        log: Where its output goes.
    """
    address = str(private / _SOCKET)
    with listen(address) as listening:  # here, so that nobody waits for a fork server that could not even start
        process = subprocess.Popen(
            interpreter.command("hsa2c.run.fork_server", str(listening.fileno()), *command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(listening.fileno(),),
            preexec_fn=partial(begin_as_fork_server, os.getpid()),  # noqa: PLW1509 - one thread here
        )
    try:
        yield address
    finally:
        kill_session(process.pid)  # its nodes, too, if any are left
        process.wait()


# A rank's side.


def stand_in(address: str, arguments: Sequence[str], *, master: bool = False) -> int:
    """Let the fork server be this rank; gives back its exit code.

    Args:
        address: The fork server's.
        arguments: The rank's.
        master: The rank is the master, which hears what asks it to stop.
    """
    die_with_parent(os.getppid())  # mpiexec, or its daemon on this host
    if not master:
        leave_signals_to_the_master()
    asked = {"arguments": list(arguments), "environment": dict(os.environ), "master": master}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
        try:
            connection.connect(address)
            own = [int(os.environ[_MPI_SOCKET])] if _MPI_SOCKET in os.environ else []
            socket.send_fds(connection, [json.dumps(asked).encode()], [1, 2, *own])
            (pid,) = _NUMBER.unpack(connection.recv(_NUMBER.size))
            if master:
                _hand_on(pid)
            (status,) = _NUMBER.unpack(connection.recv(_NUMBER.size))
        except (OSError, struct.error):
            print("the process that this host's nodes are forked from has ended", file=sys.stderr)
            return _FAILED
    return end_as(os.waitstatus_to_exitcode(status))  # so that mpiexec can say how


def _hand_on(pid: int) -> None:
    """Let a process have TERM and USR1, which mpiexec sends to its ranks."""

    def hand_on(signum: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)

    for name in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, hand_on)


# The fork server.


@dataclass
class _Child:
    """A node's process, and the connection to its stand-in."""

    pid: int
    connection: socket.socket


class _ForkServer:
    """Forks a node for each stand-in that connects, and tells each how its node ended."""

    def __init__(self, listening: socket.socket, be: Callable[[list[str]], int]) -> None:
        self._listening = listening
        self._be = be
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        # A signal's arrival makes a pipe readable, so one wait serves for both.
        self._woken, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(self._woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """For ever: whoever started it ends it."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listening:
                    self._welcome()
                elif key.fileobj == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                    self._bury()
                elif key.data in self._children:  # its stand-in has died, and says nothing else
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(key.data.pid, signal.SIGKILL)
                    self._selector.unregister(key.fileobj)

    def _welcome(self) -> None:
        connection, _ = self._listening.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MAX_REQUEST)
        request, outputs, *_ = socket.recv_fds(connection, _MAX_REQUEST, 3)
        if not request:
            connection.close()
            return
        fork_server_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._live(fork_server_pid, request, outputs)
        for output in outputs:
            os.close(output)
        with contextlib.suppress(OSError):  # its stand-in has died: the selector says so
            connection.send(_NUMBER.pack(pid))
        child = _Child(pid, connection)
        self._children.append(child)
        self._selector.register(connection, selectors.EVENT_READ, child)

    def _live(self, parent: int, request: bytes, outputs: list[int]) -> None:
        """A node, from its first to its last instruction."""
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        self._listening.close()
        for child in self._children:
            child.connection.close()
        for output, standard in zip(outputs[:2], (1, 2), strict=True):
            os.dup2(output, standard)
            os.close(output)
        asked = json.loads(request)
        os.environ.clear()
        os.environ.update(asked["environment"])
        for own in outputs[2:]:
            os.environ[_MPI_SOCKET] = str(own)
        if asked["master"]:
            hear_the_launcher()
        code = _FAILED
        try:
            code = self._be(asked["arguments"])
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _bury(self) -> None:
        """Tell the stand-in of each child that has ended."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = next(child for child in self._children if child.pid == pid)
            self._children.remove(child)
            with contextlib.suppress(OSError):
                child.connection.send(_NUMBER.pack(status))
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.connection)
            child.connection.close()


def listen(address: str) -> socket.socket:
    """A socket to `serve`; from now on stand-ins can connect, and wait for as long as anybody has it open."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(address)
    listening.listen(1024)
    return listening


def serve(listening: socket.socket, be: Callable[[list[str]], int]) -> None:
    """Fork a process for every stand-in, to call `be` with its arguments; for ever: whoever started this ends it."""
    leave_signals_to_the_master()
    gc.collect()
    gc.freeze()  # what was loaded stays where it is, in pages that all share
    _ForkServer(listening, be).serve()


def _main(descriptor: int, command: Sequence[str]) -> None:
    listening = socket.socket(fileno=descriptor)
    from hsa2c.run import process as job

    job.prepare(list(command))
    serve(listening, job.main)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
