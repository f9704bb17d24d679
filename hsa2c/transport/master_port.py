"""What every transport's ports have in common: who waits for v, who is silent or lost, who has left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from hsa2c.dpsgd.protocols import MasterPort, Monitor, Pulled, Push, Vector
from hsa2c.errors import NodeError, TransportError
from hsa2c.transport.codec import finite
from hsa2c.transport.membership import Place, Places
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.waiting import LONGEST_LOOK_S

NOT_FINITE = "its delta is not finite"
"""Why a delta is refused."""

_QUICK_FAILURES = 3  # soon after each other, and a node is not replaced again
_SILENCE_CHECK_S = 0.05  # of listening, between two looks at every node: thousands of nodes take a while


class BaseMasterPort(MasterPort):
    """A master's port on top of `_receive`, `_answer` and `_say_stop` of a transport, and `_replace` if it can.

    Args:
        nodes: Nodes 0 to `nodes` - 1 work.
        limits: Patience.
        spares: Nodes from `nodes` on that are there as well, and wait until one is lost.
        leads: Whether this master says which spare begins. One of several that does not waits for `call`: each would
            choose by what it has heard so far, and the chosen would wait for the others for ever.
        clock: Wall-clock, in seconds.
    """

    def __init__(
        self,
        nodes: int,
        limits: Limits,
        *,
        spares: int = 0,
        leads: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._nodes = nodes
        self._limits = limits
        self._leads = leads
        everybody = range(nodes + spares)
        self._places = Places({node: Place.WORKS if node < nodes else Place.SPARE for node in everybody})
        self._waiting: list[int] = []  # for v
        self._waiting_spares: list[int] = []
        self._has = dict.fromkeys(everybody, -1)  # the t of the v that a node had when it pulled
        self._v_bytes = dict.fromkeys(everybody, 0)  # of the answer, where the transport counts them
        self._training = False
        self._draining = False
        self.synchronous = False
        """Whether a pull is answered only after a global step: all nodes then work at the same v, and tau is 0."""
        # Silence is counted in time spent listening: while the master is busy or suspended, messages wait unheard.
        self._listened_s = 0.0
        self._slept_s = 0.0  # in `_receive`, with no message there
        self._check_silence_at_s = 0.0
        self._heard_at_s = dict.fromkeys(everybody, 0.0)
        self._began_at_s = dict.fromkeys(everybody, 0.0)
        self._worked_at_s = 0.0  # when last anybody did
        self._quick_failures = dict.fromkeys(everybody, 0)
        self._refused_in_a_row = dict.fromkeys(everybody, 0)
        self.unscathed = True
        """Whether no process has died and none was started in the place of one, as far as the transport can tell."""

    def assemble(self, monitor: Monitor) -> bool:
        """See `MasterPort.assemble`."""
        while len(self._waiting) < self._nodes and not monitor.stopping():
            self._next(monitor)
        self._training = len(self._waiting) == self._nodes
        self._heard_at_s = dict.fromkeys(self._heard_at_s, self._listened_s)
        self._began_at_s = dict.fromkeys(self._began_at_s, self._listened_s)
        return self._training

    def collect(self, M: int, *, serving: Vector, t: int, monitor: Monitor) -> Iterator[Push]:
        """See `MasterPort.collect`."""
        collected = 0
        while not monitor.stopping():
            while self._waiting and not (self.synchronous and collected):
                node, pulled = self._waiting.pop(0), Pulled(serving, t, monitor.rate_scale())
                self._answer(node, pulled)
                monitor.answered(node, pulled, self._has[node])
            if collected >= self.quorum(M):
                return
            push = self._next(monitor)
            if push is not None:
                collected += 1
                yield push

    def quorum(self, M: int) -> int:
        """See `MasterPort.quorum`."""
        # A silent node that is heard again after a spare has begun in its place is one more than there should be.
        return max(1, min(M, -(-M * self._places.count[Place.WORKS] // self._nodes)))

    def drain(self, *, monitor: Monitor) -> Iterator[Push]:
        """See `MasterPort.drain`."""
        self._draining = True
        for spare in self._in(Place.SPARE):
            self._places[spare] = Place.WORKS  # it must hear of the end, and leave
            self._heard_at_s[spare] = self._listened_s
        self._waiting += self._waiting_spares
        self._say_stop()
        while self._places.count[Place.WORKS]:
            while self._waiting:
                self._answer(self._waiting.pop(0), None)
            push = self._next(monitor)
            if push is not None:
                yield push

    def call(self, spare: int, monitor: Monitor) -> None:
        """Let a spare work: the leading master has found that it is needed."""
        if self._places[spare] is Place.SPARE:
            if spare in self._waiting_spares:
                self._waiting_spares.remove(spare)
                self._waiting.append(spare)
            self._begin(spare, monitor, "begins")

    # Messages.

    def _next(self, monitor: Monitor) -> Push | None:
        """Take one message, or none if none comes."""
        began_at = self._clock()
        message = self._receive()
        self._listened_s += min(self._clock() - began_at, LONGEST_LOOK_S)
        monitor.slept(self._slept_s)
        self._slept_s = 0.0
        push = None
        if message is not None and message.kind in (Kind.FAIL, Kind.DIED):
            who = f"node {message.node}: "
            self._lose(message.node, message.text.decode(errors="replace").removeprefix(who), monitor)
        elif message is not None:
            self._note(message, monitor)
            push = self._sort(message, monitor)
        self._check_silence(monitor)
        return push

    def _note(self, message: Message, monitor: Monitor) -> None:
        """A sign of life, perhaps of one that was given up."""
        node, place = message.node, self._places[message.node]
        self._heard_at_s[node] = self._listened_s
        if place is Place.SILENT:
            self._places[node] = Place.WORKS
            monitor.found(node, "is heard again")
        elif place in (Place.COMES, Place.LOST) and message.kind is Kind.PULL:
            self._begin(node, monitor, "begins, in place of the one that was lost")

    def _begin(self, node: int, monitor: Monitor, how: str) -> None:
        self._places[node] = Place.WORKS
        self._began_at_s[node] = self._heard_at_s[node] = self._listened_s
        self._refused_in_a_row[node] = 0
        monitor.found(node, how)

    def _sort(self, message: Message, monitor: Monitor) -> Push | None:
        """Give back a push; what the algorithm need not see is dealt with here."""
        node = message.node
        if message.kind is Kind.PULL:
            self._has[node] = message.since
            (self._waiting_spares if self._places[node] is Place.SPARE else self._waiting).append(node)
        elif message.kind is Kind.LEAVE:
            self._places[node] = Place.LEFT
        if message.text:
            monitor.heard(node, message.text)
        if message.kind is Kind.PUSH:
            assert message.vector is not None
            push = Push(node, message.vector, message.since, message.number, message.size, self._v_bytes.get(node, 0))
            return self._checked(push, monitor)
        if message.vector is not None and finite(message.vector):
            monitor.kept(node, message.vector)
        elif message.vector is not None:
            monitor.refused(node, "its optimiser's state is not finite")
        return None

    def _checked(self, push: Push, monitor: Monitor) -> Push | None:
        """A delta that holds NaN or infinity would make v so, and every node's u after it."""
        if finite(push.delta):
            self._refused_in_a_row[push.node] = 0
            return push
        self._refused_in_a_row[push.node] += 1
        in_a_row = self._refused_in_a_row[push.node]
        monitor.refused(push.node, NOT_FINITE)
        if in_a_row >= self._limits.refusals:
            raise NodeError(f"node {push.node}: {in_a_row} deltas in a row are not finite")
        return None

    # Nodes that are lost.

    def _lose(self, node: int, why: str, monitor: Monitor) -> None:
        """Go on without a node that has failed or died; another takes its place if there is a way."""
        place = self._places[node]
        if place in (Place.LEFT, Place.LOST):
            return  # it died after it had failed, or left
        if not self._training and place is not Place.SPARE:
            raise NodeError(f"node {node}: {why}")
        self._places[node] = Place.LOST
        self._waiting = [other for other in self._waiting if other != node]
        self._waiting_spares = [other for other in self._waiting_spares if other != node]
        self._forget(node)
        last = not self._in(Place.WORKS, Place.SILENT, Place.COMES)
        if not last or self._draining:
            monitor.lost(node, why)
        if self._draining or place is Place.SPARE:
            return
        if self._substitute(node, monitor):
            if last:
                monitor.lost(node, why)
        elif last:
            raise NodeError(f"node {node}: {why}")

    def _substitute(self, node: int, monitor: Monitor) -> bool:
        """Whether another node will take this one's place."""
        quick = self._listened_s - self._began_at_s[node] < self._limits.quick_s
        self._quick_failures[node] = self._quick_failures[node] + 1 if quick else 0
        if not self._leads and self._in(Place.SPARE):
            return True  # perhaps; if not, the leading master says how it goes on
        if self._call_spare(node, monitor):
            return True
        if self._quick_failures[node] >= _QUICK_FAILURES or not self._replace(node):
            return False
        self._places[node] = Place.COMES
        self._began_at_s[node] = self._listened_s
        return True

    def _call_spare(self, node: int, monitor: Monitor) -> bool:
        """Whether a spare takes this one's place."""
        if not self._waiting_spares:
            return False
        spare = self._waiting_spares.pop(0)
        self._waiting.append(spare)
        self._begin(spare, monitor, f"begins, in place of node {node}")
        return True

    def _check_silence(self, monitor: Monitor) -> None:
        if self._listened_s < self._check_silence_at_s:
            return
        self._check_silence_at_s = self._listened_s + _SILENCE_CHECK_S
        limits = self._limits
        for node in self._in(Place.WORKS):
            silent_s = self._listened_s - self._heard_at_s[node]
            if not self._training and silent_s > limits.start_s:
                raise TransportError(_silence(node, silent_s, limits.start_s))
            if self._training and silent_s > limits.absence_s:
                self._places[node] = Place.SILENT
                monitor.lost(node, f"silent for {silent_s:.0f} s")
                if self._leads and not self._draining:  # a host without power tells nobody that its nodes are gone
                    self._call_spare(node, monitor)
        if self._in(Place.WORKS):
            self._worked_at_s = self._listened_s
        elif self._training and (silent := self._in(Place.SILENT)):
            node = max(silent, key=lambda node: self._heard_at_s[node])
            silent_s = self._listened_s - self._heard_at_s[node]
            if silent_s > limits.silence_s:
                raise TransportError(_silence(node, silent_s, limits.silence_s))
        elif self._training and not self._draining and self._listened_s - self._worked_at_s > limits.start_s:
            raise TransportError(f"no node is left, and none came in {limits.start_s:.0f} s")

    def _in(self, *places: Place) -> list[int]:
        """Who is there."""
        return [node for node, place in self._places.items() if place in places]

    # What a transport does.

    def _receive(self) -> Message | None:
        """The next message, or None after a few milliseconds without one; what it sleeps is added to `_slept_s`."""
        raise NotImplementedError

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        """Send v as it is now, or (None) that the master has stopped."""
        raise NotImplementedError

    def _say_stop(self) -> None:
        """Tell every node to finish early."""
        raise NotImplementedError

    def _forget(self, node: int) -> None:
        """Hear no more of the process that was this node."""

    def _replace(self, node: int) -> bool:
        """Start another node in the place of one that was lost, if that can be done here."""
        return False


def _silence(node: int, silent_s: float, limit_s: float) -> str:
    return f"node {node}: silent for {silent_s:.0f} s (limit {limit_s:.0f} s)"
