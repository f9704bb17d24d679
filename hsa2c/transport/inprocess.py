"""Queue transport: master and workers are threads of one process. For one-node runs, and for tests."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

import numpy as np

from hsa2c.dpsgd.protocols import Pulled, Vector
from hsa2c.transport.codec import Encoded, Encoding
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.worker_port import BaseWorkerPort


class QueueMaster(BaseMasterPort):
    """The master's end of `connect`.

    Attributes:
        tick_s: How long it sleeps before it asks its monitor again.
    """

    def __init__(self, inbox: queue.SimpleQueue[Message], workers: list[QueueWorker], limits: Limits) -> None:
        super().__init__(len(workers), limits)
        self._inbox = inbox
        self._workers = workers
        self._snapshot: tuple[int, Vector] | None = None
        self.tick_s = 0.02

    def _receive(self) -> Message | None:
        began_at = time.monotonic()
        try:
            return self._inbox.get(timeout=self.tick_s)
        except queue.Empty:
            return None
        finally:
            self._slept_s += time.monotonic() - began_at

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        if pulled is not None:
            # v goes on changing under the reader: one copy for all nodes that pull the same t.
            if self._snapshot is None or self._snapshot[0] != pulled.t:
                self._snapshot = (pulled.t, pulled.v.copy())
            pulled = Pulled(self._snapshot[1], pulled.t, pulled.rate_scale)
        self._workers[node].answers.put(pulled)

    def _say_stop(self) -> None:
        for worker in self._workers:
            worker.stop_said = True


class QueueWorker(BaseWorkerPort):
    """A node's end of `connect`."""

    def __init__(
        self, node: int, inbox: queue.SimpleQueue[Message], limits: Limits, encoding: Encoding = Encoding.FLOAT32
    ) -> None:
        super().__init__(node, limits, encoding)
        self.stop_said = False
        self.answers: queue.SimpleQueue[Pulled | None] = queue.SimpleQueue()
        self._to_master = inbox

    def stopping(self) -> bool:
        """See `Listener.stopping`."""
        return self.stop_said

    def _post(
        self, kind: Kind, *, since: int = 0, vector: Encoded | None = None, text: bytes = b"", number: float = 0.0
    ) -> Callable[[], None]:
        # There is no wire: what would arrive over one goes into the queue.
        copy = None if vector is None else vector.decode(np.empty(vector.dim, np.float32))
        self._to_master.put(Message(kind, self._node, since, copy, text, number))
        return lambda: None

    def _receive_answer(self, limit_s: float) -> tuple[bool, Pulled | None]:
        try:
            return True, self.answers.get(timeout=limit_s)
        except queue.Empty:
            return False, None


def connect(
    nodes: int, limits: Limits | None = None, encoding: Encoding = Encoding.FLOAT32
) -> tuple[QueueMaster, list[QueueWorker]]:
    """A master's port and `nodes` workers' ports, joined by queues."""
    limits = limits or Limits()
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    workers = [QueueWorker(node, inbox, limits, encoding) for node in range(nodes)]
    return QueueMaster(inbox, workers, limits), workers
