"""The p actor-learners of a node: processes that share u and the optimiser's state, and nothing else.

The memory is an anonymous mapping made before the fork: it has no name, so nothing can be left behind, whoever is
killed when. The parent waits on sockets between two rounds; between its first and its last update a process touches no
lock, no queue and no socket.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import multiprocessing
import os
import selectors
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from hsa2c.dpsgd.layout import Layout
from hsa2c.dpsgd.lifetime import die_with_parent
from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.transport import Listener, Vector
from hsa2c.dpsgd.worker import actor_learner
from hsa2c.errors import NodeError

MakeProblem = Callable[[int], Problem]
T = TypeVar("T")

_ORDER = struct.Struct("=qd?")  # B, rate scale, whether to go on until interrupted
_READY, _PROGRESS, _DONE, _RESTS, _FAILED = b"R", b"P", b"D", b"H", b"F"
_MAX_MESSAGE = 128 * 1024  # a sequenced packet must fit the socket's buffer
_POLL_S = 0.05  # how often a waiting parent looks for the master's stop
_FINISH_S = 10.0  # how long a process may take to end when asked


@dataclass(frozen=True, kw_only=True)
class CrewLimits:
    """A crew's clock, in seconds."""

    start_s: float = 300.0
    """Until every process has built its problem."""
    tell_s: float = 1.0
    """Between two signs of life while a round goes on."""
    keep_s: float = 50.0
    """Between two copies of the optimiser's state sent to the master for a checkpoint."""


class SharedVectors:
    """u, the optimiser's state, the rate and the interrupt flag of a node, in one anonymous shared mapping.

    Attributes:
        u: float32 [size], in the node's layout.
        state: float32 [state_dim], zeros at first.
    """

    def __init__(self, size: int, state_dim: int) -> None:
        rate_at = -(-4 * (size + state_dim) // 8) * 8
        self._memory = mmap.mmap(-1, rate_at + 8 + 1)
        self._rate_scale = np.frombuffer(self._memory, np.float64, count=1, offset=rate_at)
        floats = torch.frombuffer(self._memory, dtype=torch.float32, count=size + state_dim)
        self.u = floats[:size]
        self.state = floats[size:]

    @property
    def rate_scale(self) -> float:
        """Factor on the local learning rate, for processes that do not stop for an exchange."""
        return float(self._rate_scale[0])

    @rate_scale.setter
    def rate_scale(self, value: float) -> None:
        self._rate_scale[0] = value

    @property
    def interrupted(self) -> bool:
        """Whether the node's processes are to finish early."""
        return self._memory[-1] != 0

    @interrupted.setter
    def interrupted(self, value: bool) -> None:
        self._memory[-1] = int(value)


class Reports:
    """Reports of a node's problems, gathered until they are sent: a JSON list."""

    def __init__(self) -> None:
        self._items: list[bytes] = []

    def add(self, report: bytes) -> None:
        """Add one problem's report, a JSON object."""
        self._items.append(report)

    def take(self) -> bytes:
        """All so far, as a JSON list; they are forgotten here."""
        items, self._items = self._items, []
        return b"[" + b",".join(items) + b"]"


class SerialCrew:
    """One actor-learner in this very process: the reference, and the tool of tests.

    Args:
        problem: What to minimise.
        layout: How u lies in memory and is changed.
        state: The optimiser's state to start from, float32 [state_dim].
    """

    def __init__(self, problem: Problem, layout: Layout, *, state: Vector | None = None) -> None:
        self._shared = SharedVectors(layout.size, layout.state_size)
        if state is not None:
            self._shared.state.numpy()[:] = state
        self._problem = problem
        self._layout = layout
        self._access = layout.attach(self._shared.u, self._shared.state, problem)
        self._reports = Reports()

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.Crew.run`."""
        u = self._shared.u.numpy()
        self._layout.enter(v, u)
        self._access.scale_rate(rate_scale)
        actor_learner(self._access.read, self._problem, self._access.step, B, listener.stopping)
        self._reports.add(_to_json(self._problem.report()))
        return self._layout.value(u)

    def report(self) -> bytes:
        """See `hsa2c.dpsgd.worker.Crew.report`."""
        return self._reports.take()

    def state(self) -> Vector:
        """See `hsa2c.dpsgd.worker.Crew.state`."""
        return self._shared.state.numpy()


@dataclass
class _Hand:
    """One actor-learner process, seen from its parent."""

    index: int
    process: multiprocessing.process.BaseProcess
    socket: socket.socket

    def __str__(self) -> str:
        return f"actor-learner {self.index} (pid {self.process.pid})"


class LockFreeCrew:
    """p forked processes that update one u without any lock.

    Make it before anything starts a thread or calls MPI_Init: it forks.

    Args:
        make_problem: Called in each process with its index, 0 to p - 1.
        layout: How u lies in memory and is changed; the local optimiser's state is kept from one `run` to the next.
        p: Processes.
        state: The optimiser's state to start from, float32 [state_dim].
        limits: The crew's clock.
    """

    def __init__(
        self,
        make_problem: MakeProblem,
        layout: Layout,
        p: int,
        *,
        state: Vector | None = None,
        limits: CrewLimits | None = None,
    ) -> None:
        self._shared = SharedVectors(layout.size, layout.state_size)
        if state is not None:
            self._shared.state.numpy()[:] = state
        self._layout = layout
        self._shares_done = 0  # of B updates each, since the last exchange began
        self._resting: set[int] = set()
        self._limits = limits or CrewLimits()
        self._reports = Reports()
        self._kept_at = time.monotonic()
        self._hands: list[_Hand] = []
        self._selector = selectors.DefaultSelector()
        for index in range(p):
            hand = _fork(index, make_problem, self._shared, layout, [h.socket for h in self._hands])
            self._hands.append(hand)
            self._selector.register(hand.socket, selectors.EVENT_READ, hand)

    @property
    def pids(self) -> list[int]:
        """Process ids of the actor-learners."""
        return [hand.process.pid or 0 for hand in self._hands]

    def wait_ready(self) -> None:
        """Return when every process has built its problem.

        Raises:
            NodeError: One could not, or took too long.
        """
        deadline = time.monotonic() + self._limits.start_s

        def check_time() -> None:
            if time.monotonic() > deadline:
                raise NodeError(f"actor-learners not ready after {self._limits.start_s:.0f} s")

        for _ in self._answers(_READY, check_time):
            pass

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.Crew.run`.

        Raises:
            NodeError: An actor-learner raised (its traceback is in the message) or died.
        """
        u = self._order(v, B, rate_scale, running=False)
        for report in self._answers(_DONE, _Attention(self, listener)):
            self._reports.add(report)
        self._keep(listener)
        return self._layout.value(u)

    def start(self, v: Vector, B: int, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningCrew.start`."""
        assert self._layout.in_place
        self._shares_done = 0
        self._resting.clear()
        self._shared.rate_scale = rate_scale
        self._order(v, B, rate_scale, running=True)

    def after_updates(self, *, listener: Listener) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningCrew.after_updates`.

        Raises:
            NodeError: An actor-learner raised (its traceback is in the message) or died.
        """
        self._listen_until(lambda: self._shares_done >= len(self._hands), _Attention(self, listener))
        self._take_in(self._hear(0.0))  # what was done before u is copied counts for this exchange
        self._shares_done = 0
        self._keep(listener)
        return self._shared.u.numpy().copy()  # unlocked: what lies between two updates is P_{b,j} of Eq. 5

    def add(self, difference: Vector, *, rate_scale: float) -> None:
        """See `hsa2c.dpsgd.worker.RunningCrew.add`."""
        self._shared.rate_scale = rate_scale
        u = self._shared.u.numpy()
        u += difference  # unlocked: a lost write is S_b of Eq. 3

    def halt(self) -> Vector:
        """See `hsa2c.dpsgd.worker.RunningCrew.halt`.

        Raises:
            NodeError: As `after_updates`.
        """
        self.interrupt()
        self._listen_until(lambda: False, lambda: None)
        return self._shared.u.numpy().copy()

    def _order(self, v: Vector, B: int, rate_scale: float, *, running: bool) -> Vector:
        u = self._shared.u.numpy()
        self._layout.enter(v, u)
        self._shared.interrupted = False
        for hand in self._hands:
            self._send(hand, _ORDER.pack(B, rate_scale, running))
        return u

    def _keep(self, listener: Listener) -> None:
        if time.monotonic() - self._kept_at >= self._limits.keep_s:
            listener.keep(self.state())
            self._kept_at = time.monotonic()

    def _listen_until(self, enough: Callable[[], bool], attend: Callable[[], None]) -> None:
        """Take in what running processes say, until it is enough or all of them rest."""
        while not enough() and len(self._resting) < len(self._hands):
            self._take_in(self._hear(_POLL_S))
            attend()

    def _take_in(self, messages: list[tuple[_Hand, bytes, bytes]]) -> None:
        for hand, kind, body in messages:
            self._reports.add(body)
            if kind == _DONE:
                self._shares_done += 1
            elif kind == _RESTS:
                self._resting.add(hand.index)

    def report(self) -> bytes:
        """See `hsa2c.dpsgd.worker.Crew.report`."""
        return self._reports.take()

    def state(self) -> Vector:
        """See `hsa2c.dpsgd.worker.Crew.state`."""
        return self._shared.state.numpy()

    def interrupt(self) -> None:
        """Let the round end early: each process stops before its next update."""
        self._shared.interrupted = True

    def close(self) -> None:
        """End the processes: asked first, killed after a while."""
        self.interrupt()
        for hand in self._hands:
            # Shut down, not only closed: another crew's processes may hold copies of this socket, from their fork.
            with contextlib.suppress(OSError):
                hand.socket.shutdown(socket.SHUT_RDWR)
            hand.socket.close()
        deadline = time.monotonic() + _FINISH_S
        for hand in self._hands:
            hand.process.join(max(0.0, deadline - time.monotonic()))
            if hand.process.exitcode is None:
                hand.process.kill()
                hand.process.join()
        self._selector.close()

    def _send(self, hand: _Hand, order: bytes) -> None:
        try:
            hand.socket.send(order)
        except OSError:
            raise self._death(hand) from None

    def _answers(self, last: bytes, attend: Callable[[], None]) -> Iterator[bytes]:
        """Each process's message of kind `last`; `attend` is called again and again meanwhile."""
        outstanding = {hand.index for hand in self._hands}
        while outstanding:
            for hand, kind, body in self._hear(_POLL_S):
                if kind == last:
                    outstanding.discard(hand.index)
                    yield body
                elif kind == _PROGRESS:
                    self._reports.add(body)
            attend()

    def _hear(self, patience_s: float) -> list[tuple[_Hand, bytes, bytes]]:
        """A message of each process that has one: who, kind, body."""
        messages = []
        for key, _ in self._selector.select(patience_s):
            hand: _Hand = key.data
            try:
                message = hand.socket.recv(_MAX_MESSAGE)
            except ConnectionResetError:  # it died before it read its order
                message = b""
            kind, body = message[:1], message[1:]
            if not message:
                raise self._death(hand)
            if kind == _FAILED:
                raise NodeError(f"{hand} failed\n{body.decode(errors='replace')}")
            messages.append((hand, kind, body))
        return messages

    @staticmethod
    def _death(hand: _Hand) -> NodeError:
        hand.process.join(1.0)
        code = hand.process.exitcode
        if code is not None and code < 0:
            return NodeError(f"{hand} was killed by {signal.Signals(-code).name}")
        return NodeError(f"{hand} ended without a word (exit code {code})")


class _Attention:
    """What a node's parent does while its processes work: look for a stop, give signs of life."""

    def __init__(self, crew: LockFreeCrew, listener: Listener) -> None:
        self._crew = crew
        self._listener = listener
        self._told_at = time.monotonic()

    def __call__(self) -> None:
        if self._listener.stopping():
            self._crew.interrupt()
        if time.monotonic() - self._told_at >= self._crew._limits.tell_s:
            self._listener.tell(self._crew.report())
            self._told_at = time.monotonic()


def _fork(
    index: int, make_problem: MakeProblem, shared: SharedVectors, layout: Layout, foreign: list[socket.socket]
) -> _Hand:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = multiprocessing.get_context("fork").Process(
        target=_live,
        args=(index, make_problem, shared, layout, theirs, [ours, *foreign], os.getpid()),
        name=f"actor-learner-{index}",
        daemon=True,
    )
    process.start()
    theirs.close()
    return _Hand(index, process, ours)


def _live(
    index: int,
    make_problem: MakeProblem,
    shared: SharedVectors,
    layout: Layout,
    orders: socket.socket,
    foreign: list[socket.socket],
    parent: int,
) -> NoReturn:
    """An actor-learner process, from its first to its last instruction."""
    die_with_parent(parent)
    # Ctrl-C and a batch system's warnings reach every process of a group: what to do about them is the master's matter.
    for name in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in foreign:
        other.close()
    code = 0
    try:
        _work(make_problem(index), shared, layout, orders)
    except BaseException:
        code = 1
        with contextlib.suppress(OSError):
            orders.send(_FAILED + traceback.format_exc().encode(errors="replace")[-_MAX_MESSAGE // 2 :])
    os._exit(code)  # the parent's exit handlers and buffers, inherited by the fork, are not ours to run


def _work(problem: Problem, shared: SharedVectors, layout: Layout, orders: socket.socket) -> None:
    access = layout.attach(shared.u, shared.state, problem)
    talking = _Talking(problem, orders)
    step = talking.timed("optimiser", access.step)
    wait = talking.timed("waiting", lambda: orders.recv(_ORDER.size))
    orders.send(_READY)
    with contextlib.closing(problem):
        while order := wait():
            B, rate_scale, running = _ORDER.unpack(order)
            access.scale_rate(rate_scale)
            actor_learner(access.read, talking, step, B, lambda: shared.interrupted)
            while running and not shared.interrupted:
                talking.send(_DONE)
                access.scale_rate(shared.rate_scale)
                actor_learner(access.read, talking, step, B, lambda: shared.interrupted)
            talking.send(_RESTS if running else _DONE)


class _Talking:
    """A problem that reports between two updates when a round takes long, and where its process spends its time."""

    def __init__(self, problem: Problem, orders: socket.socket, every_s: float = 1.0) -> None:
        self._problem = problem
        self._orders = orders
        self._every_s = every_s
        self._told_at = time.monotonic()
        self._seconds = {"optimiser": 0.0, "waiting": 0.0}

    def timed(self, what: str, act: Callable[..., T]) -> Callable[..., T]:
        """`act`, whose seconds are reported as `what`."""

        def timed_act(*args: Any) -> T:
            began_at = time.perf_counter()
            try:
                return act(*args)
            finally:
                self._seconds[what] += time.perf_counter() - began_at

        return timed_act

    def send(self, kind: bytes) -> None:
        """Send what happened since the last time: the problem's report, and under ``crew_s`` the seconds around it."""
        report = {**self._problem.report(), "crew_s": self._seconds}
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        message = kind + _to_json(report)
        if len(message) > _MAX_MESSAGE:  # the parent would read the first part of it
            raise ValueError(f"a report of {len(message)} bytes: must be at most {_MAX_MESSAGE}")
        self._orders.send(message)

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any | None:
        if time.monotonic() - self._told_at >= self._every_s:
            self.send(_PROGRESS)
            self._told_at = time.monotonic()
        return self._problem.gradient(u_hat, interrupted)

    def report(self) -> Mapping[str, Any]:
        return self._problem.report()

    def close(self) -> None:
        self._problem.close()


def _to_json(report: Mapping[str, Any]) -> bytes:
    return json.dumps(report, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    """JSON for numpy's scalars."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")
