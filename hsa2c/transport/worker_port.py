"""A node's end, whatever carries the messages."""

from __future__ import annotations

import time
from collections.abc import Callable

from hsa2c.dpsgd.protocols import Pulled, Vector, WorkerPort
from hsa2c.errors import TransportError
from hsa2c.transport.codec import Encoded, Encoding, Feedback, plain
from hsa2c.transport.messages import Kind, Limits

_LONGEST_FAILURE = 100_000  # bytes of a traceback; its end says most


_SHOW_LIFE_S = 5.0  # between two words of a node that waits for v


class BaseWorkerPort(WorkerPort):
    """A worker's port on top of `_post`, `_receive_answer` and `stopping` of a transport.

    Args:
        node: Which node this is.
        limits: Patience.
        encoding: Of deltas. What rounding takes from one is added to the next.
        master: The master's name in errors.
        clock: Wall-clock, in seconds.
    """

    def __init__(
        self,
        node: int,
        limits: Limits,
        encoding: Encoding = Encoding.FLOAT32,
        *,
        master: str = "the master",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._node = node
        self._limits = limits
        self._feedback = Feedback(encoding)
        self._master = master
        self._last_t: int | None = None
        self._asked_at = 0.0
        self.pushed_s = 0.0
        """How long the last push took."""
        self.waited_s = 0.0
        """How long the last push and the pull after it took."""

    def pull(self) -> Pulled | None:
        """See `WorkerPort.pull`."""
        self.ask()
        return self.answer()

    def ask(self) -> None:
        """The first half of a pull."""
        self._asked_at = self._clock()
        self._send(Kind.PULL, since=-1 if self._last_t is None else self._last_t)

    def answer(self, show_life: Callable[[], None] | None = None) -> Pulled | None:
        """The second half of a pull.

        Args:
            show_life: Called now and then while nothing comes; None: tells the master that this node is there, for with
                many nodes, or a slow network, an answer may be longer on its way than a silent node is waited for.
        """
        # The first answer comes when every other node is there.
        limit_s = self._limits.start_s if self._last_t is None else self._limits.silence_s
        left_s, wait_s = limit_s, min(limit_s, _SHOW_LIFE_S)
        arrived, pulled = self._receive_answer(wait_s)
        while not arrived and (left_s := left_s - wait_s) > 0:
            show_life() if show_life else self.tell(b"")
            wait_s = min(left_s, _SHOW_LIFE_S)
            arrived, pulled = self._receive_answer(wait_s)
        if not arrived:
            raise TransportError(
                f"node {self._node}: no reply from {self._master} in {limit_s:.0f} s (pull, last t={self._last_t})"
            )
        if pulled is not None:
            self._last_t = pulled.t
        self.waited_s = self.pushed_s + self._clock() - self._asked_at
        return pulled

    def push(self, delta: Vector, *, since: int, report: bytes) -> None:
        """See `WorkerPort.push`."""
        began_at = self._clock()
        self.begin_push(delta, since=since, report=report)()
        self.pushed_s = self._clock() - began_at

    def begin_push(self, delta: Vector, *, since: int, report: bytes) -> Callable[[], None]:
        """The first half of a push; what it gives back is the second, and must be called before anything else."""
        encoded = self._feedback.encode(delta)
        return self._post(Kind.PUSH, since=since, vector=encoded, text=report, number=self.waited_s)

    def tell(self, report: bytes) -> None:
        """See `Listener.tell`."""
        self._send(Kind.TELL, text=report)

    def keep(self, state: Vector) -> None:
        """See `Listener.keep`."""
        self._send(Kind.KEEP, vector=plain(state))

    def leave(self, state: Vector) -> None:
        """See `WorkerPort.leave`."""
        self._send(Kind.LEAVE, vector=plain(state))

    def fail(self, message: str) -> None:
        """See `WorkerPort.fail`."""
        self._send(Kind.FAIL, text=message.encode(errors="replace")[-_LONGEST_FAILURE:])

    def _send(
        self, kind: Kind, *, since: int = 0, vector: Encoded | None = None, text: bytes = b"", number: float = 0.0
    ) -> None:
        """Send one message; its arrays may be reused afterwards."""
        self._post(kind, since=since, vector=vector, text=text, number=number)()

    def _post(
        self, kind: Kind, *, since: int = 0, vector: Encoded | None = None, text: bytes = b"", number: float = 0.0
    ) -> Callable[[], None]:
        """Begin to send one message; its arrays may be reused when what this gives back has been called."""
        raise NotImplementedError

    def _receive_answer(self, limit_s: float) -> tuple[bool, Pulled | None]:
        """Whether an answer to a pull came within the limit, and the answer.

        Args:
            limit_s: Seconds of waiting; those in which this process was stopped need not count.
        """
        raise NotImplementedError
