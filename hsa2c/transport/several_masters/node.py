"""A node's port to several masters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from hsa2c.dpsgd.protocols import Pulled, Vector, WorkerPort
from hsa2c.transport.several_masters.link import LOOK_S
from hsa2c.transport.several_masters.slices import parts
from hsa2c.transport.worker_port import BaseWorkerPort


class ShardedWorkerPort(WorkerPort):
    """A node's port to several masters, made of one to each.

    Args:
        ports: To the lead, then to the others in order.
        dim: Length of v.
    """

    def __init__(self, ports: Sequence[BaseWorkerPort], dim: int) -> None:
        self.ports = ports
        self._lead, *self._others = ports
        self._parts = parts(dim, len(ports))
        self._v = np.empty(dim, np.float32)
        self._ts = [0] * len(ports)

    def stopping(self) -> bool:
        """See `Listener.stopping`."""
        return any(port.stopping() for port in self.ports)

    def pull(self) -> Pulled | None:
        """See `WorkerPort.pull`. Its t is the lead's."""
        self.ask()
        return self.answer()

    def ask(self) -> None:
        """The first half of a pull: all are asked before the first is waited for."""
        for port in self.ports:
            port.ask()

    def answer(self) -> Pulled | None:
        """The second half of a pull."""
        answers = [port.answer(lambda: self.tell(b"")) for port in self.ports]
        if None in answers:
            self._hear_of_the_end([p for p, answer in zip(self.ports, answers, strict=True) if answer is not None])
            return None
        pulled = [answer for answer in answers if answer is not None]
        for part, answer in zip(self._parts, pulled, strict=True):
            self._v[part] = answer.v
        self._ts = [answer.t for answer in pulled]
        self._lead.waited_s = max(port.waited_s for port in self.ports)
        return Pulled(self._v, self._ts[0], pulled[0].rate_scale)

    def _hear_of_the_end(self, going_on: list[BaseWorkerPort]) -> None:
        """Some masters have stopped, these will in a moment: a node leaves when it has heard it from all."""
        while going_on:
            time.sleep(LOOK_S)
            going_on = [port for port in going_on if port.pull() is not None]

    def push(self, delta: Vector, *, since: int, report: bytes) -> None:
        """See `WorkerPort.push`."""
        if not np.isfinite(delta.sum()):
            delta = np.full_like(delta, np.nan)  # each master refuses what is not finite: all do, or none
        age = self._ts[0] - since
        began_at = time.monotonic()
        sent: list[Callable[[], None]] = []
        for port, part, t in zip(self.ports, self._parts, self._ts, strict=True):
            sent.append(port.begin_push(delta[part], since=t - age, report=report if port is self._lead else b""))
        for wait in sent:
            wait()
        self._lead.pushed_s = time.monotonic() - began_at

    def tell(self, report: bytes) -> None:
        """See `Listener.tell`; to the other masters it is a sign of life."""
        self._lead.tell(report)
        for port in self._others:
            port.tell(b"")

    def keep(self, state: Vector) -> None:
        """See `Listener.keep`."""
        self._lead.keep(state)

    def leave(self, state: Vector) -> None:
        """See `WorkerPort.leave`."""
        self._lead.leave(state)
        for port in self._others:
            port.leave(np.zeros(0, np.float32))

    def fail(self, message: str) -> None:
        """See `WorkerPort.fail`."""
        for port in self.ports:
            port.fail(message)
