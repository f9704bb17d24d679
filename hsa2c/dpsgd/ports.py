"""What every transport's ports have in common: who waits for v, who was silent, who has left."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hsa2c.dpsgd.transport import MasterPort, Pulled, Push, Vector, Watch, WorkerPort
from hsa2c.errors import NodeError, TransportError

_LONGEST_FAILURE = 100_000  # bytes of a traceback; its end says most
_LONGEST_LISTEN_S = 1.0  # a transport listens for milliseconds: more means that this process was suspended


class Kind(enum.IntEnum):
    """What a message is. The numbers are on the wire."""

    PULL = 1
    PUSH = 2
    TELL = 3
    KEEP = 4
    LEAVE = 5
    FAIL = 6
    V = 7
    STOPPED = 8  # answers a pull: the master has stopped
    STOP = 9  # unasked, in the middle of updates: finish early


@dataclass(frozen=True, slots=True)
class Message:
    """From a node to the master; `vector` and `text` are valid until the next message."""

    kind: Kind
    node: int
    since: int = 0
    vector: Vector | None = None
    text: bytes = b""
    number: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long one waits for another, in seconds. A node at work tells something every `CrewLimits.tell_s`."""

    start_s: float = 600.0
    """Until every node has pulled for the first time."""
    silence_s: float = 60.0
    """The master's patience with a node, and a node's with the master."""


class BaseMasterPort(MasterPort):
    """A master's port on top of `_receive`, `_answer` and `_say_stop` of a transport."""

    def __init__(self, nodes: int, limits: Limits) -> None:
        self._nodes = nodes
        self._limits = limits
        # Silence is counted in time spent listening: while the master is busy or suspended, messages wait unheard.
        self._listened_s = 0.0
        self._heard_at_s = [0.0] * nodes
        self._waiting: list[int] = []
        self._gone: set[int] = set()
        self._patience_s = limits.start_s

    def assemble(self, watch: Watch) -> bool:
        """See `MasterPort.assemble`."""
        self._patience_s = self._limits.start_s
        while len(self._waiting) < self._nodes and not watch.stopping():
            self._next(watch)
        self._patience_s = self._limits.silence_s
        self._heard_at_s = [self._listened_s] * self._nodes
        return len(self._waiting) == self._nodes

    def collect(self, M: int, *, serving: Vector, t: int, watch: Watch) -> Iterator[Push]:
        """See `MasterPort.collect`."""
        collected = 0
        while not watch.stopping():
            while self._waiting:
                self._answer(self._waiting.pop(0), Pulled(serving, t, watch.rate_scale()))
            if collected == M:
                return
            push = self._next(watch)
            if push is not None:
                collected += 1
                yield push

    def drain(self, *, watch: Watch) -> Iterator[Push]:
        """See `MasterPort.drain`."""
        self._say_stop()
        while len(self._gone) < self._nodes:
            while self._waiting:
                self._answer(self._waiting.pop(0), None)
            push = self._next(watch)
            if push is not None:
                yield push

    def _next(self, watch: Watch) -> Push | None:
        """Take one message, or none if none comes."""
        began_at = time.monotonic()
        message = self._receive()
        self._listened_s += min(time.monotonic() - began_at, _LONGEST_LISTEN_S)
        if message is not None:
            self._heard_at_s[message.node] = self._listened_s
        self._check_silence()
        return None if message is None else self._sort(message, watch)

    def _sort(self, message: Message, watch: Watch) -> Push | None:
        """Give back a push; what the algorithm need not see is dealt with here."""
        if message.kind is Kind.FAIL:
            who = f"node {message.node}: "
            raise NodeError(who + message.text.decode(errors="replace").removeprefix(who))
        if message.kind is Kind.PULL:
            self._waiting.append(message.node)
        elif message.kind is Kind.LEAVE:
            self._gone.add(message.node)
        if message.text:
            watch.heard(message.node, message.text)
        if message.kind is Kind.PUSH:
            assert message.vector is not None
            return Push(message.node, message.vector, message.since, message.number)
        if message.vector is not None:
            watch.kept(message.node, message.vector)
        return None

    def _check_silence(self) -> None:
        for node, heard_at_s in enumerate(self._heard_at_s):
            silent_s = self._listened_s - heard_at_s
            if silent_s > self._patience_s and node not in self._gone:
                raise TransportError(f"node {node}: silent for {silent_s:.0f} s (limit {self._patience_s:.0f} s)")

    def _receive(self) -> Message | None:
        """The next message, or None after a few milliseconds without one."""
        raise NotImplementedError

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        """Send v as it is now, or (None) that the master has stopped."""
        raise NotImplementedError

    def _say_stop(self) -> None:
        """Tell every node to finish early."""
        raise NotImplementedError


class BaseWorkerPort(WorkerPort):
    """A worker's port on top of `_send`, `_receive_answer` and `stopping` of a transport."""

    def __init__(self, node: int, limits: Limits) -> None:
        self._node = node
        self._limits = limits
        self._last_t: int | None = None
        self._waited_s = 0.0

    def pull(self) -> Pulled | None:
        """See `WorkerPort.pull`."""
        began_at = time.monotonic()
        self._send(Kind.PULL)
        # The first answer comes when every other node is there.
        limit_s = self._limits.start_s if self._last_t is None else self._limits.silence_s
        arrived, pulled = self._receive_answer(limit_s)
        if not arrived:
            raise TransportError(
                f"node {self._node}: no reply from the master in {limit_s:.0f} s (pull, last t={self._last_t})"
            )
        if pulled is not None:
            self._last_t = pulled.t
        self._waited_s = time.monotonic() - began_at
        return pulled

    def push(self, delta: Vector, *, since: int, report: bytes) -> None:
        """See `WorkerPort.push`."""
        self._send(Kind.PUSH, since=since, vector=delta, text=report, number=self._waited_s)

    def tell(self, report: bytes) -> None:
        """See `Listener.tell`."""
        self._send(Kind.TELL, text=report)

    def keep(self, state: Vector) -> None:
        """See `Listener.keep`."""
        self._send(Kind.KEEP, vector=state)

    def leave(self, state: Vector) -> None:
        """See `WorkerPort.leave`."""
        self._send(Kind.LEAVE, vector=state)

    def fail(self, message: str) -> None:
        """See `WorkerPort.fail`."""
        self._send(Kind.FAIL, text=message.encode(errors="replace")[-_LONGEST_FAILURE:])

    def _send(
        self, kind: Kind, *, since: int = 0, vector: Vector | None = None, text: bytes = b"", number: float = 0.0
    ) -> None:
        """Send one message; its arrays may be reused afterwards."""
        raise NotImplementedError

    def _receive_answer(self, limit_s: float) -> tuple[bool, Pulled | None]:
        """Whether an answer to a pull came within the limit, and the answer."""
        raise NotImplementedError
