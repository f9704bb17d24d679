"""Simulated transport: messages take modelled time on a simulated clock, between the same algorithms and base ports.

Every host has a link, one lane each way. A message takes its turn on the sender's lane, and from when its first byte
arrives, a latency later, its turn on the receiver's; it is there when its last byte is. It streams: an idle pair of
links of the same speed carries it in latency + size / speed, not twice that. The master's processor takes time for each
message, one after another, while its link goes on.

K masters hold a slice of v each, on a host of its own, and do the same at the same time: one stands for all. Its
messages have 1/K of the numbers, and a node's lane carries K of them for each.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hsa2c.dpsgd.codec import Encoded, Encoding
from hsa2c.dpsgd.ports import BaseMasterPort, BaseWorkerPort, Kind, Limits, Message
from hsa2c.dpsgd.simulated_clock import Process, SimulatedClock
from hsa2c.dpsgd.transport import Pulled, Vector

_TICK_S = 0.02  # how long the master sleeps before it asks its watch again
_HEADER = 64  # bytes of every message (`hsa2c.dpsgd.mpi`)


@dataclass(frozen=True, kw_only=True)
class Link:
    """How fast a host's link is, each way."""

    bytes_per_s: float = float("inf")
    latency_s: float = 0.0
    """From host to host, one way: the first byte's."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Bytes on the wire at all masters together, whatever the arrays of the simulation hold. None: as they are."""

    v: int | None = None
    delta: int | None = None
    state: int | None = None
    text: int | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """Seconds of processor time of one master."""

    message_s: float = 0.0
    """For each message, whichever way it goes."""
    push_s: float = 0.0
    """To take in a delta and to add it to the sum."""
    keep_s: float = 0.0
    """To take in an optimiser's state."""
    answer_s: float = 0.0
    """To send v."""


class Lane:
    """One direction of a link: a message after another.

    Attributes:
        busy_s: Seconds that it has carried something.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self.busy_s = 0.0

    def take(self, now: float, size: float) -> tuple[float, float]:
        """When a message that is there now begins and ends to be carried."""
        begins_at = max(now, self._free_at)
        takes_s = size / self._bytes_per_s
        self.busy_s += takes_s
        self._free_at = begins_at + takes_s
        return begins_at, self._free_at


class Host:
    """A host's two lanes. With `slices`, each message is so many times as long here."""

    def __init__(self, link: Link, *, slices: int = 1) -> None:
        self.out = Lane(link.bytes_per_s / slices)
        self.into = Lane(link.bytes_per_s / slices)


class SimulatedMaster(BaseMasterPort):
    """The master's end of `connect`.

    Attributes:
        host: Its link.
        worked_s: Processor time so far.
    """

    def __init__(self, network: _Network, nodes: int, limits: Limits, *, spares: int) -> None:
        # While the master works it does not listen, which is what silence is counted in.
        super().__init__(nodes, limits, spares=spares, clock=lambda: network.clock.now - self.worked_s)
        self.host = Host(network.master_link)
        self.worked_s = 0.0
        self.workers: list[SimulatedWorker] = []
        self._network = network
        self._inbox: list[tuple[float, int, Message]] = []
        self._arrived = 0
        self._process: Process | None = None
        self._snapshot: tuple[int, Vector] | None = None

    def arrive(self, at: float, message: Message) -> None:
        """A message will be there at a time; its first byte is now."""
        self._arrived += 1
        heapq.heappush(self._inbox, (at, self._arrived, message))
        if self._process is not None:
            self._network.clock.wake(self._process, at)

    def _receive(self) -> Message | None:
        clock = self._network.clock
        self._process = clock.current()
        began_at = clock.now
        give_up_at = clock.now + _TICK_S
        while not self._inbox or self._inbox[0][0] > clock.now:
            if clock.now >= give_up_at:
                self._slept_s += clock.now - began_at
                return None
            clock.wait(min(give_up_at, self._inbox[0][0]) if self._inbox else give_up_at)
        self._slept_s += clock.now - began_at
        message = heapq.heappop(self._inbox)[2]
        work = self._network.work
        if message.kind is Kind.PUSH:
            self._work(work.push_s)
        elif message.vector is not None:
            self._work(work.keep_s)
        self._work(work.message_s)
        return message

    def _work(self, seconds: float) -> None:
        if seconds:
            self._network.clock.sleep(seconds)
            self.worked_s += seconds

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        size = 0
        if pulled is not None:
            # v goes on changing under the reader: one copy for all nodes that pull the same t.
            if self._snapshot is None or self._snapshot[0] != pulled.t:
                self._snapshot = (pulled.t, pulled.v.copy())
            pulled = Pulled(self._snapshot[1], pulled.t, pulled.rate_scale)
            size = self._network.size_of(Kind.V, pulled.v)
            self._work(self._network.work.answer_s)
        self._work(self._network.work.message_s)
        self._network.to_node(self, self.workers[node], _HEADER + size, pulled, is_answer=True)

    def _say_stop(self) -> None:
        for worker in self.workers:
            self._network.to_node(self, worker, _HEADER, None, is_answer=False)


class SimulatedWorker(BaseWorkerPort):
    """A node's end of `connect`."""

    def __init__(
        self, network: _Network, node: int, limits: Limits, master: SimulatedMaster, encoding: Encoding
    ) -> None:
        super().__init__(node, limits, encoding, clock=network.clock)
        self.host = Host(network.node_link, slices=network.masters)
        self._network = network
        self._target = master
        self._answers: list[Pulled | None] = []
        self._stop_said = False
        self._process: Process | None = None

    def stopping(self) -> bool:
        """See `Listener.stopping`."""
        self._process = self._network.clock.current()  # whoever asks wants to be woken when it changes
        return self._stop_said

    def arrive(self, pulled: Pulled | None, is_answer: bool) -> None:
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
        network.to_master(self, self._target, size, Message(kind, self._node, since, copy, text, number))
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


@dataclass(frozen=True, kw_only=True)
class _Network:
    """What carries messages; see the module."""

    clock: SimulatedClock
    node_link: Link
    master_link: Link
    latency_s: float
    masters: int
    sizes: Sizes
    work: Work

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

    def to_master(self, source: SimulatedWorker, target: SimulatedMaster, size: int, message: Message) -> None:
        """Carry a message."""
        begins_at, sent_at = source.host.out.take(self.clock.now, size)

        def first_byte() -> None:
            _, taken_at = target.host.into.take(self.clock.now, size)
            target.arrive(max(taken_at, sent_at + self.latency_s), message)

        self.clock.call_at(begins_at + self.latency_s, first_byte)

    def to_node(
        self, source: SimulatedMaster, target: SimulatedWorker, size: int, pulled: Pulled | None, *, is_answer: bool
    ) -> None:
        """Carry an answer, or the word to stop."""
        begins_at, sent_at = source.host.out.take(self.clock.now, size)

        def first_byte() -> None:
            _, taken_at = target.host.into.take(self.clock.now, size)
            self.clock.call_at(max(taken_at, sent_at + self.latency_s), target.arrive, pulled, is_answer)

        self.clock.call_at(begins_at + self.latency_s, first_byte)


def connect(
    clock: SimulatedClock,
    nodes: int,
    limits: Limits | None = None,
    *,
    spares: int = 0,
    node_link: Link | None = None,
    master_link: Link | None = None,
    masters: int = 1,
    sizes: Sizes | None = None,
    work: Work | None = None,
    encoding: Encoding = Encoding.FLOAT32,
) -> tuple[SimulatedMaster, list[SimulatedWorker]]:
    """A master's port and `nodes` + `spares` workers' ports, each for one process of the clock.

    Args:
        clock: What tells the time.
        nodes: Nodes that work.
        limits: Patience.
        spares: Nodes that wait until one is lost.
        node_link: Of each node; the default takes no time.
        master_link: Of each master, its latency unused; None: as a node's.
        masters: How many hold a slice of v each.
        sizes: Bytes on the wire.
        work: Processor time of each master, for its slice.
        encoding: Of deltas: what rounding does to them. How long they are on the wire, `sizes` says.
    """
    limits = limits or Limits()
    node_link = node_link or Link()
    network = _Network(
        clock=clock,
        node_link=node_link,
        master_link=master_link or node_link,
        latency_s=node_link.latency_s,
        masters=masters,
        sizes=sizes or Sizes(),
        work=work or Work(),
    )
    master = SimulatedMaster(network, nodes, limits, spares=spares)
    master.workers = [SimulatedWorker(network, node, limits, master, encoding) for node in range(nodes + spares)]
    return master, master.workers
