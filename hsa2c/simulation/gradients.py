"""The gradients of many simulated actor-learners, computed by a few real processes.

A simulated update lasts from when it reads u to when it changes u, and its gradient is needed only then. So those of
all updates under way are computed side by side. What comes out does not depend on how many processes do it, or how
fast: each problem lives in one of them, and is asked for one gradient after the other. The gradient that is needed
first is computed first.

Vectors lie in anonymous shared memory, one for each learner: first its u_hat, then the gradient in the same place.
Numbers and reports go through pipes, and nothing is pickled.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import mmap
import multiprocessing
import os
import signal
import struct
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch

from hsa2c import signals
from hsa2c.dpsgd.problem import Problem
from hsa2c.errors import NodeError, ProblemError
from hsa2c.node.lifetime import die_with_parent, leave_signals_to_the_master
from hsa2c.node.optimiser import check_gradient
from hsa2c.node.orders import MAX_MESSAGE, to_json
from hsa2c.simulation import forking
from hsa2c.simulation.durations import Durations, time_gradients

_FORK = multiprocessing.get_context("fork")
_REQUEST = struct.Struct("=cqd")  # what, learner, when it is needed (or for how many seconds)
_REPLY = struct.Struct("=cq?q")  # what, learner, whether its next gradient gathers, for how many it gathered
_GRADIENT, _TIMES, _FAILED = b"G", b"T", b"F"
_LOOK_S = 0.2  # how often one who waits asks whether that is still wanted
_PIPE_BYTES = 1 << 20  # room for the reports of hundreds of gradients that nobody has asked for yet


class Computed(NamedTuple):
    """A gradient."""

    g: torch.Tensor
    """float32 [dim], valid until the learner's next one begins."""
    report: bytes
    """What its problem reports, a JSON object."""


class Gradients:
    """The problems of all learners, and the processes in which they live.

    Make it before anything starts a thread: it forks.

    Args:
        makes: For each learner, what makes its problem: called in its process when its first gradient is due.
        dim: Length of u.
        processes: How many compute; learner k lives in the one with the number k modulo `processes`.
        limit_s: Seconds after which a process that is waited for, and says nothing, is taken to hang.

    Attributes:
        abandoned: Asked now and then by one who waits: whether nobody wants gradients any more.
        failure: Why there are no more gradients; None while there are.
        waited_s: Seconds that were spent waiting for gradients.
        known_gathered_for: `Problem.gathered_for`; None before the first gradient.
    """

    def __init__(
        self, makes: Sequence[Callable[[], Problem]], dim: int, processes: int, *, limit_s: float = 600.0
    ) -> None:
        self.abandoned: Callable[[], bool] = lambda: False
        self.failure: str | None = None
        self.waited_s = 0.0
        self._limit_s = limit_s
        self._memory = mmap.mmap(-1, 4 * dim * len(makes))
        whole = torch.frombuffer(self._memory, dtype=torch.float32)
        self._vectors = list(whole.view(len(makes), dim).unbind())
        self._gathers = [True] * len(makes)
        self.known_gathered_for: int | None = None
        self._computed: dict[int, bytes] = {}
        self._times: list[Durations] = []
        self._processes: list[_Computing] = []
        try:
            for number in range(processes):
                self._processes.append(_fork(number, makes, self._vectors))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Of the processes that compute."""
        return [computing.process.pid or 0 for computing in self._processes]

    def gathers(self, learner: int) -> bool:
        """Whether a learner's next gradient begins with gathering data (`Problem.gathers`); of its first: yes."""
        return self._gathers[learner]

    def gathered_for(self, learner: int) -> int:
        """For how many gradients the data of one gathering are, of every learner; waits for this one's if need be."""
        if self.known_gathered_for is None:
            self._wait(self._processes[learner % len(self._processes)], lambda: self.known_gathered_for is not None)
        return self.known_gathered_for or 0

    def begin(self, learner: int, u: torch.Tensor, until: float) -> None:
        """Let the gradient of a learner be computed at u, float32 [dim], as it is now.

        Args:
            learner: Which.
            u: See above.
            until: When it is needed, about: of two that wait for a process, the earlier one is computed first.
        """
        if not self._over():
            self._vectors[learner].copy_(u)
            self._ask(learner, _GRADIENT, learner, until)

    def end(self, learner: int) -> Computed | None:
        """The gradient that began last; None where nobody wants it, or something has failed."""
        computing = self._processes[learner % len(self._processes)]
        if not self._wait(computing, lambda: learner in self._computed):
            return None
        return Computed(self._vectors[learner], self._computed.pop(learner))

    def measure(self, learner: int, u: torch.Tensor, seconds: float) -> Durations:
        """How long the gradients of a problem like a learner's take, with as many processes at work as there are.

        Raises:
            HSA2CError: None could be computed.
        """
        self._times.clear()
        self._vectors[learner].copy_(u)
        for number in range(len(self._processes)):
            self._ask(number, _TIMES, learner, seconds)
        for number, computing in enumerate(self._processes):
            self._wait(computing, lambda number=number: len(self._times) > number)  # type: ignore[misc]
        if len(self._times) < len(self._processes):
            raise NodeError(self.failure or "stopped while the time of an update was measured")
        return Durations.mean(self._times)

    def close(self) -> None:
        """End the processes; twice is fine."""
        while self._processes:
            computing = self._processes.pop()
            computing.process.kill()  # whatever it computes nobody waits for
            computing.requests.close()
            computing.replies.close()
            computing.process.join()
            computing.process.close()

    def _over(self) -> bool:
        return self.failure is not None or self.abandoned()

    def _ask(self, number: int, what: bytes, learner: int, seconds: float) -> None:
        """A pipe holds thousands of requests: this waits for nobody."""
        computing = self._processes[number % len(self._processes)]
        try:
            computing.requests.send_bytes(_REQUEST.pack(what, learner, seconds))
        except OSError:
            self._died(computing)

    def _wait(self, computing: _Computing, done: Callable[[], bool]) -> bool:
        """Hear what processes say until something is done; False if it will not be."""
        began_at = heard_at = time.monotonic()
        while not done() and not self._over():
            ready = wait([each.replies for each in self._processes], _LOOK_S)
            for each in self._processes:
                if each.replies in ready:
                    self._hear(each)
            now = time.monotonic()
            heard_at = now if computing.replies in ready else heard_at
            if now - heard_at > self._limit_s:
                self.failure = f"{computing.name} hangs: no gradient in {self._limit_s:.0f} s"
        self.waited_s += time.monotonic() - began_at
        return done()

    def _hear(self, computing: _Computing) -> None:
        try:
            message = computing.replies.recv_bytes()
        except (EOFError, OSError):
            self._died(computing)
            return
        what, learner, gathers, gathered_for = _REPLY.unpack_from(message)
        body = message[_REPLY.size :]
        if what == _FAILED:
            self.failure = f"learner {learner}: {body.decode(errors='replace')}"
        elif what == _TIMES:
            self._times.append(Durations(**json.loads(body)))
        else:
            self._gathers[learner], self.known_gathered_for = gathers, gathered_for
            self._computed[learner] = body

    def _died(self, computing: _Computing) -> None:
        computing.process.join(1.0)
        code = computing.process.exitcode
        how = (
            "died"
            if code is None
            else f"was ended by {signal.Signals(-code).name}"
            if code < 0
            else f"exit code {code}"
        )
        self.failure = self.failure or f"{computing.name} has failed: {how}"


class _Computing(NamedTuple):
    """A process that computes, and the pipes to it and from it."""

    number: int
    process: BaseProcess
    requests: Connection
    replies: Connection

    @property
    def name(self) -> str:
        return f"process {self.number} of those that compute gradients (pid {self.process.pid})"


def _fork(number: int, makes: Sequence[Callable[[], Problem]], vectors: Sequence[torch.Tensor]) -> _Computing:
    its_requests, requests = _FORK.Pipe(duplex=False)
    replies, its_replies = _FORK.Pipe(duplex=False)
    fcntl.fcntl(its_replies.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    process = _FORK.Process(target=_live, args=(makes, vectors, its_requests, its_replies, os.getpid()), daemon=True)
    try:
        forking.start(process, "compute gradients")
    finally:
        its_requests.close()
        its_replies.close()
    return _Computing(number, process, requests, replies)


def _live(
    makes: Sequence[Callable[[], Problem]],
    vectors: Sequence[torch.Tensor],
    requests: Connection,
    replies: Connection,
    parent: int,
) -> None:
    """A process that computes, from its first to its last instruction."""
    die_with_parent(parent)
    leave_signals_to_the_master()
    signals.catch(signal.SIG_DFL, [signal.SIGTERM])
    forking.hear_stops()
    torch.set_num_threads(1)
    learner = -1
    try:
        answer, waiting = _Answers(makes, vectors), list[tuple[float, bytes, int]]()
        while True:
            while not waiting or requests.poll(0):
                what, learner, seconds = _REQUEST.unpack(requests.recv_bytes())
                heapq.heappush(waiting, (seconds, what, learner))
            seconds, what, learner = heapq.heappop(waiting)
            replies.send_bytes(answer.times(learner, seconds) if what == _TIMES else answer.gradient(learner))
    except EOFError:
        pass
    except ProblemError as error:
        replies.send_bytes(_REPLY.pack(_FAILED, learner, False, 0) + str(error).encode(errors="replace"))
    except BaseException:
        said = f"failed\n{traceback.format_exc()}".encode(errors="replace")[-MAX_MESSAGE // 2 :]
        replies.send_bytes(_REPLY.pack(_FAILED, learner, False, 0) + said)


class _Answers:
    """What a process that computes says."""

    def __init__(self, makes: Sequence[Callable[[], Problem]], vectors: Sequence[torch.Tensor]) -> None:
        self._makes, self._vectors = makes, vectors
        self._problems: dict[int, Problem] = {}
        self._scratch: dict[str, object] = {}

    def times(self, learner: int, seconds: float) -> bytes:
        """Of gradients of another problem that is made like a learner's."""
        durations = time_gradients(self._makes[learner](), self._vectors[learner].clone(), seconds)
        return _REPLY.pack(_TIMES, learner, False, 0) + to_json(durations._asdict())

    def gradient(self, learner: int) -> bytes:
        """A learner's, at its vector and in its place."""
        problem = self._problems.get(learner)
        if problem is None:
            problem = self._problems[learner] = self._makes[learner]()
            problem.share(self._scratch)
        _compute(problem, self._vectors[learner])
        head = _REPLY.pack(_GRADIENT, learner, problem.gathers, problem.gathered_for)
        return head + to_json(problem.report())


def _compute(problem: Problem, vector: torch.Tensor) -> None:
    """Put the gradient at a vector in its place.

    Raises:
        ProblemError: There is none, or it does not fit.
    """
    g = problem.gradient(vector, lambda: False)
    if g is None:
        raise ProblemError(f"the gradient of {type(problem).__name__} is None: must be one, if not interrupted")
    check_gradient(g, vector.numel())
    vector.copy_(g)
