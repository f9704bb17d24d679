"""An actor-learner process, from its first to its last instruction."""

from __future__ import annotations

import contextlib
import select
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.worker import actor_learner
from hsa2c.errors import ProblemError
from hsa2c.node.layout import Access, Layout
from hsa2c.node.memory import SharedVectors
from hsa2c.node.orders import DONE, FAILED, MAX_MESSAGE, ORDER, PROGRESS, READY, RESTS, UNFIT, to_json
from hsa2c.node.overlap import Clock, Overlap

MakeProblem = Callable[[int], Problem]


T = TypeVar("T")


_REFUSALS = 100  # gradients in a row that are not finite: then something is wrong for good


def live(make_problem: MakeProblem, shared: SharedVectors, layout: Layout, index: int, orders: socket.socket) -> None:
    """An actor-learner process, from its first to its last instruction."""
    torch.set_num_threads(1)  # p processes with a thread for each core would be in each other's way: ten times slower
    try:
        _work(_checked(make_problem(index)), shared, layout, orders, index)
    except ProblemError as error:
        with contextlib.suppress(OSError):
            orders.send(UNFIT + str(error).encode(errors="replace")[: MAX_MESSAGE // 2])
    except BaseException:
        with contextlib.suppress(OSError):
            orders.send(FAILED + traceback.format_exc().encode(errors="replace")[-MAX_MESSAGE // 2 :])


def _checked(problem: Any) -> Problem:
    """A problem with all its members.

    Raises:
        ProblemError: It lacks one.
    """
    own = type(problem)
    lacks = [name for name in ("gradient", "report", "close") if not callable(getattr(own, name, None))]
    if lacks or own.gradient is Problem.gradient:
        raise ProblemError(f"{own.__name__} has no {(lacks or ['gradient'])[0]}: a problem must have one")
    return cast("Problem", problem)


def _work(problem: Problem, shared: SharedVectors, layout: Layout, orders: socket.socket, index: int) -> None:
    overlap = Overlap(shared.applied)
    access = overlap.measured(layout.attach(shared.u, shared.state, problem))
    talking = Talking(problem, orders, overlap.take)
    step = talking.timed("optimiser", _Refusing(access, talking.refuse, shared.applied[index : index + 1]))
    wait = talking.timed("waiting", lambda: orders.recv(ORDER.size))
    orders.send(READY)
    with contextlib.closing(problem):
        while order := wait():
            B, rate_scale, running = ORDER.unpack(order)
            access.scale_rate(rate_scale)
            actor_learner(access.read, talking, step, B, lambda: shared.interrupted)
            while running and not shared.interrupted:
                talking.send_unless_unheard(DONE)
                access.scale_rate(shared.rate_scale)
                actor_learner(access.read, talking, step, shared.local_updates, lambda: shared.interrupted)
            talking.send(RESTS if running else DONE)


class _Refusing:
    """A step on u that is counted, and not taken where the gradient is not finite."""

    def __init__(self, access: Access, refuse: Callable[[], None], applied: npt.NDArray[np.int64]) -> None:
        self._access = access
        self._refuse = refuse
        self._applied = applied
        self._in_a_row = 0

    def __call__(self, g: Any) -> None:
        if self._access.finite(g):
            self._in_a_row = 0
            self._access.step(g)
            self._applied += 1
            return
        self._in_a_row += 1
        self._refuse()
        if self._in_a_row >= _REFUSALS:
            raise FloatingPointError(f"{_REFUSALS} gradients in a row are not finite")


class Talking(Problem):
    """A problem that reports when a round takes long, and where its process spends its time.

    It reports between two updates, and within one wherever the problem asks whether it is interrupted: what is counted
    is then told about when it happens, though a rollout takes many seconds on a busy core.
    """

    def __init__(
        self,
        problem: Problem,
        orders: socket.socket,
        overlaps: Callable[[], Mapping[int, int]] = dict,
        every_s: float = 1.0,
    ) -> None:
        self._problem = problem
        self._orders = orders
        self._room = select.poll()
        self._room.register(orders, select.POLLOUT)
        self._overlaps = overlaps
        self._clock = Clock()
        self._every_s = every_s
        self._told_at = time.monotonic()
        self._seconds = {"optimiser": 0.0, "waiting": 0.0}
        self._refused = 0

    def refuse(self) -> None:
        """Count a gradient that was not finite."""
        self._refused += 1

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
        """Send what happened since the last time: the problem's report, and under ``pool_s`` the seconds around it.

        ``process_s`` and ``overlap`` are what `hsa2c.node.overlap` says of the process and of its updates.
        """
        own = self._problem.report()
        try:
            report = {
                **own,
                "pool_s": self._seconds,
                "process_s": self._clock.take(self._seconds["waiting"]),
                "overlap": self._overlaps(),
            }
            if self._refused:
                report["refused_gradients"] = self._refused
            message = kind + to_json(report)
        except (TypeError, ValueError) as error:
            name = type(self._problem).__name__
            raise ProblemError(f"the report of {name} must be JSON values by name: {error}") from None
        self._refused = 0
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        if len(message) > MAX_MESSAGE:  # the parent would read the first part of it
            raise ValueError(f"a report of {len(message)} bytes: must be at most {MAX_MESSAGE}")
        self._orders.send(message)

    def send_unless_unheard(self, kind: bytes) -> None:
        """Send, but where so much waits for the parent that this would have to wait, too, say it with the next one.

        A parent that waits for the network, perhaps for a minute, hears nobody, and no process is to stop for that.
        """
        if self._room.poll(0):
            self.send(kind)

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any | None:
        """See `Problem`.

        Raises:
            ProblemError: There is none, though nothing has interrupted it: it would be asked for one for ever.
        """
        self._clock.start(self._seconds["waiting"])
        stopped = False

        def asked() -> bool:
            nonlocal stopped
            self._tell_when_due()
            stopped = stopped or interrupted()
            return stopped

        self._tell_when_due()
        g = self._problem.gradient(u_hat, asked)
        if g is None and not (stopped or interrupted()):
            raise ProblemError(
                f"the gradient of {type(self._problem).__name__} is None: must be one, if not interrupted"
            )
        return g

    def _tell_when_due(self) -> None:
        if time.monotonic() - self._told_at >= self._every_s:
            self.send_unless_unheard(PROGRESS)
            self._told_at = time.monotonic()

    def report(self) -> Mapping[str, Any]:
        """See `Problem`."""
        return self._problem.report()

    def close(self) -> None:
        """See `Problem`."""
        self._problem.close()
