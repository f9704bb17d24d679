"""Simulated transport: messages take modelled time on a simulated clock, between the same algorithms and base ports.

Every host has a link, one lane each way. A node and the master are joined by a connection, which carries one message
after another each way. The connections that are in use share the master's lane, none faster than its node's link;
evenly and without loss, if `Link` does not say otherwise. A message is there a latency after its last byte was sent,
and seen when the process next looks, as it does every few milliseconds. It streams: idle links of the same speed carry
it in latency + size / speed, not twice that. The master's processor takes time for each message, one after another,
while its link goes on.

K masters hold a slice of v each, on a host of its own, and do the same at the same time: one stands for all. Its
messages have 1/K of the numbers, and a node's link carries K of them for each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from random import Random

import numpy as np

from hsa2c.dpsgd.protocols import Pulled, Vector
from hsa2c.simulation.clock import Process, SimulatedClock
from hsa2c.simulation.links import Lane, Link, Sizes, Work
from hsa2c.transport.codec import Encoded, Encoding
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.worker_port import BaseWorkerPort

_TICK_S = 0.02  # how long the master sleeps before it asks its monitor again
_HEADER = 64  # bytes of every message (`hsa2c.transport.mpi.master`)


class Connection:
    """One direction of what joins a node and the master: a message after another.

    Args:
        network: What it is a part of.
        lane: The master's.
    """

    def __init__(self, network: _Network, lane: Lane) -> None:
        self._network = network
        self._lane = lane
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()  # the first is under way
        self._seen_at = 0.0  # the last of those that were sent

    def send(self, size: int, arrive: Callable[[], None]) -> None:
        """Send so many bytes after what was sent before; `arrive` is called when they are seen."""
        self._waiting.append((size, arrive))
        if len(self._waiting) == 1:
            self._lane.carry(size, self._sent)

    def _sent(self) -> None:
        network = self._network
        at = network.clock.now + network.node_link.latency_s + network.looks()
        self._seen_at = max(at, self._seen_at)  # never before what came before it
        network.clock.call_at(self._seen_at, self._waiting.popleft()[1])
        if self._waiting:
            self._lane.carry(self._waiting[0][0], self._sent)


class SimulatedMaster(BaseMasterPort):
    """The master's end of `connect`.

    Attributes:
        into: Its link, from the nodes.
        out: To the nodes.
        worked_s: Processor time so far.
    """

    def __init__(self, network: _Network, nodes: int, limits: Limits, *, spares: int) -> None:
        # While the master works it does not listen, which is what silence is counted in.
        super().__init__(nodes, limits, spares=spares, clock=lambda: network.clock.now - self.worked_s)
        self.into, self.out = network.lane(1), network.lane(2)
        self.worked_s = 0.0
        self.workers: list[SimulatedWorker] = []
        self._network = network
        self._inbox: deque[Message] = deque()
        self._process: Process | None = None
        self._snapshot: tuple[int, Vector] | None = None

    def arrive(self, message: Message) -> None:
        """A message is there."""
        self._inbox.append(message)
        if self._process is not None:
            self._network.clock.wake(self._process)

    def _receive(self) -> Message | None:
        clock = self._network.clock
        self._process = clock.current()
        began_at = clock.now
        give_up_at = clock.now + _TICK_S
        while not self._inbox:
            if clock.now >= give_up_at:
                self._slept_s += clock.now - began_at
                return None
            clock.wait(give_up_at)
        self._slept_s += clock.now - began_at
        message = self._inbox.popleft()
        work = self._network.work
        vector_s = 0.0 if message.vector is None else work.push_s if message.kind is Kind.PUSH else work.keep_s
        self._work(vector_s + work.message_s)
        return message

    def _work(self, seconds: float) -> None:
        if seconds:
            self._network.clock.sleep(seconds)
            self.worked_s += seconds

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        work, size, answer_s = self._network.work, 0, 0.0
        if pulled is not None:
            # v goes on changing under the reader: one copy for all nodes that pull the same t.
            if self._snapshot is None or self._snapshot[0] != pulled.t:
                self._snapshot = (pulled.t, pulled.v.copy())
            pulled = Pulled(self._snapshot[1], pulled.t, pulled.rate_scale)
            size = self._network.size_of(Kind.V, pulled.v)
            answer_s = work.answer_s
        self._work(answer_s + work.message_s)
        self.workers[node].back.send(_HEADER + size, partial(self.workers[node].arrive, pulled, is_answer=True))

    def _say_stop(self) -> None:
        for worker in self.workers:
            worker.back.send(_HEADER, partial(worker.arrive, None, is_answer=False))


class SimulatedWorker(BaseWorkerPort):
    """A node's end of `connect`.

    Attributes:
        there: What carries its messages to the master.
        back: The master's to it.
    """

    def __init__(
        self, network: _Network, node: int, limits: Limits, master: SimulatedMaster, encoding: Encoding
    ) -> None:
        super().__init__(node, limits, encoding, clock=network.clock)
        self.there, self.back = Connection(network, master.into), Connection(network, master.out)
        self._network = network
        self._target = master
        self._answers: list[Pulled | None] = []
        self._stop_said = False
        self._process: Process | None = None

    def stopping(self) -> bool:
        """See `Listener.stopping`."""
        self._process = self._network.clock.current()  # whoever asks wants to be woken when it changes
        return self._stop_said

    def arrive(self, pulled: Pulled | None, *, is_answer: bool) -> None:
        """A message is there."""
        if is_answer:
            self._answers.append(pulled)
            self._stop_said = self._stop_said or pulled is None
        else:
            self._stop_said = True
        if self._process is not None:
            self._network.clock.wake(self._process)

    def _post(
        self, kind: Kind, *, since: int = 0, vector: Encoded | None = None, text: bytes = b"", number: float = 0.0
    ) -> Callable[[], None]:
        network = self._network
        copy = None if vector is None else vector.decode(np.empty(vector.dim, np.float32))
        size = _HEADER + network.size_of(kind, copy) + network.size_of_text(kind, text)
        self.there.send(size, partial(self._target.arrive, Message(kind, self._node, since, copy, text, number)))
        return lambda: None

    def _receive_answer(self, limit_s: float) -> tuple[bool, Pulled | None]:
        clock = self._network.clock
        self._process = clock.current()
        give_up_at = clock.now + limit_s
        while not self._answers:
            if clock.now >= give_up_at:
                return False, None
            clock.wait(give_up_at)
        return True, self._answers.pop(0)


@dataclass(frozen=True)
class _Network:
    """What carries messages; see the module."""

    clock: SimulatedClock
    node_link: Link
    master_link: Link
    notice_s: float
    masters: int
    sizes: Sizes
    work: Work
    seed: int

    @cached_property
    def random(self) -> Random:
        """Of when a process looks."""
        return Random(self.seed)

    def lane(self, number: int) -> Lane:
        """One of a master's."""
        return Lane(
            self.clock,
            self.master_link.bytes_per_s,
            self.node_link.bytes_per_s / self.masters,
            self.node_link,
            seed=1000 * self.seed + number,
        )

    def looks(self) -> float:
        """Seconds until a process looks: at any moment of its interval."""
        return 2 * self.notice_s * self.random.random() if self.notice_s else 0.0

    def size_of(self, kind: Kind, vector: Vector | None) -> int:
        """Bytes of a message's vector at one master."""
        if vector is None:
            return 0
        size = {Kind.V: self.sizes.v, Kind.PUSH: self.sizes.delta}.get(kind, self.sizes.state)
        return -(-(vector.nbytes if size is None else size) // self.masters)

    def size_of_text(self, kind: Kind, text: bytes) -> int:
        """Bytes of a message's text: that of a report may be modelled."""
        if self.sizes.text is not None and kind in (Kind.PUSH, Kind.TELL):
            return self.sizes.text
        return len(text)


def connect(
    clock: SimulatedClock,
    nodes: int,
    limits: Limits | None = None,
    *,
    spares: int = 0,
    node_link: Link | None = None,
    master_link: Link | None = None,
    notice_s: float = 0.0,
    masters: int = 1,
    sizes: Sizes | None = None,
    work: Work | None = None,
    encoding: Encoding = Encoding.FLOAT32,
    seed: int = 0,
) -> tuple[SimulatedMaster, list[SimulatedWorker]]:
    """A master's port and `nodes` + `spares` workers' ports, each for one process of the clock.

    Args:
        clock: What tells the time.
        nodes: Nodes that work.
        limits: Patience.
        spares: Nodes that wait until one is lost.
        node_link: Of each node; the default takes no time.
        master_link: Of each master, its latency unused; None: as a node's.
        notice_s: How long a message that is there waits, on the average, until the process looks.
        masters: How many hold a slice of v each.
        sizes: Bytes on the wire.
        work: Processor time of each master, for its slice.
        encoding: Of deltas: what rounding does to them. How long they are on the wire, `sizes` says.
        seed: Of what is random.
    """
    limits, link = limits or Limits(), node_link or Link()
    network = _Network(clock, link, master_link or link, notice_s, masters, sizes or Sizes(), work or Work(), seed)
    master = SimulatedMaster(network, nodes, limits, spares=spares)
    master.workers = [SimulatedWorker(network, node, limits, master, encoding) for node in range(nodes + spares)]
    return master, master.workers
