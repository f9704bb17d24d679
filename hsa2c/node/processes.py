"""A node's actor-learner processes, seen from their parent: forked, given orders, heard, replaced where one is lost."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hsa2c.errors import NodeError, ProblemError
from hsa2c.node.fork_server import ForkServer
from hsa2c.node.orders import FAILED, MAX_MESSAGE, READY, UNFIT, Reports, to_json


@dataclass
class ActorLearner:
    """One actor-learner process, seen from its parent."""

    index: int
    pid: int
    socket: socket.socket

    def __str__(self) -> str:
        return f"actor-learner {self.index} (pid {self.pid})"


class Processes:
    """p processes, each at the other end of a socket.

    Attributes:
        replacing: Whether one that is lost is replaced; it is an error otherwise, as while they start.
        coming: Indices of those who replace others and have not built their problem.

    Args:
        life: What each does, with its index and its socket.
        p: How many.
        reports: Where is told who was lost and who has come.
        deaths: So many lost within `deaths_s`, and it is an error.
        deaths_s: See `deaths`.
        suspect: What may have ended them, for that error; empty where nothing stands out.
    """

    def __init__(
        self,
        life: Callable[[int, socket.socket], None],
        p: int,
        reports: Reports,
        *,
        deaths: int,
        deaths_s: float,
        suspect: str = "",
    ) -> None:
        self.replacing = False
        self.coming: set[int] = set()
        self._p = p
        self._reports = reports
        self._deaths, self._deaths_s, self._suspect = deaths, deaths_s, suspect
        self._deaths_at: list[float] = []
        self._order = b""  # the present round's
        self._selector = selectors.DefaultSelector()
        self._fork_server = ForkServer(life)
        self._processes: list[ActorLearner] = []

    def start(self) -> None:
        """Fork them."""
        for index in range(self._p):
            self._processes.append(self._fork(index))

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        return [process.pid for process in self._processes]

    def order(self, order: bytes) -> None:
        """Let all begin a round; whoever comes later in it gets the same order."""
        self._order = order
        for process in self._processes:
            if process.index not in self.coming:
                self._send(process, order)

    def rest(self) -> None:
        """The round is over."""
        self._order = b""

    def close(self, finish_s: float) -> None:
        """End them: asked first, killed after `finish_s`."""
        for process in self._processes:
            # Shut down, not only closed: another pool's processes may hold copies of this socket, from their fork.
            with contextlib.suppress(OSError):
                process.socket.shutdown(socket.SHUT_RDWR)
            process.socket.close()
        self._fork_server.part(finish_s)
        self._selector.close()

    def _fork(self, index: int) -> ActorLearner:
        process = ActorLearner(index, *self._fork_server.fork(index))
        self._selector.register(process.socket, selectors.EVENT_READ, process)
        return process

    def _send(self, process: ActorLearner, order: bytes) -> None:
        with contextlib.suppress(OSError):  # it has died: the next look at its socket tells
            process.socket.send(order)

    def hear(self, patience_s: float) -> list[tuple[ActorLearner, bytes, bytes]]:
        """All that the processes have said and nobody has heard yet: who, kind, body."""
        return [heard for key, _ in self._selector.select(patience_s) for heard in self._hear_all_of(key.data)]

    def _hear_all_of(self, process: ActorLearner) -> Iterator[tuple[ActorLearner, bytes, bytes]]:
        """What one has said, up to its death if it has died."""
        while True:
            try:
                message = process.socket.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:  # there is no more
                return
            except ConnectionResetError:  # it died before it read its order
                message = b""
            kind, body = message[:1], message[1:]
            if kind == UNFIT:  # as the next one would be, in its place
                raise ProblemError(f"{process}: {body.decode(errors='replace')}")
            if not message or kind == FAILED:
                self._replace(process, body)
                return
            if kind == READY and process.index in self.coming:
                self.coming.discard(process.index)
                self._reports.add(to_json({"back": f"{process} goes on"}))
                if self._order:
                    self._send(process, self._order)
            else:
                yield process, kind, body

    def _replace(self, process: ActorLearner, traceback: bytes) -> None:
        """Start another process in the place of one that has failed with a traceback, or died without."""
        how = self._death(process)
        why = f"{process} failed" if traceback else f"{process} {how}"
        details = traceback.decode(errors="replace")
        now = time.monotonic()
        self._deaths_at = [at for at in self._deaths_at if now - at < self._deaths_s] + [now]
        if not self.replacing:
            raise NodeError("\n".join(filter(None, (why, details))))
        if len(self._deaths_at) >= self._deaths:
            headline = f"{len(self._deaths_at)} actor-learners lost within {self._deaths_s:.0f} s; the last: {why}"
            if self._suspect:
                headline += f"; look at {self._suspect}"
            raise NodeError("\n".join(filter(None, (headline, details))))
        self._selector.unregister(process.socket)
        process.socket.close()
        new = self._fork(process.index)
        self._processes[process.index] = new
        self.coming.add(new.index)
        fault = {"message": f"{why}; {new} takes its place", "traceback": details or None, "pids": self.pids}
        self._reports.add(to_json({"fault": fault}))

    def _death(self, process: ActorLearner) -> str:
        """How a process has ended, in words; its fork server then knows that it need not keep it any longer."""
        code = self._fork_server.fate(process.pid)
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended without a word (exit code {code})"
