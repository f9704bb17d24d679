"""Links between masters that are threads, and a lead's monitor for tests."""

from __future__ import annotations

import queue

import numpy as np

from hsa2c.dpsgd.protocols import Vector
from hsa2c.transport.messages import Kind, Message
from hsa2c.transport.several_masters import Followers, MasterLink
from tests.dpsgd.monitors import Record


class QueueLink(MasterLink):
    """One end of `linked`."""

    def __init__(self, me: int, inbox: queue.SimpleQueue[Message], outbox: queue.SimpleQueue[Message]) -> None:
        self._me = me
        self._inbox, self._outbox = inbox, outbox

    def send(
        self, kind: Kind, *, since: int = 0, vector: Vector | None = None, text: bytes = b"", number: float = 0.0
    ) -> None:
        self._outbox.put(Message(kind, self._me, since, None if vector is None else np.array(vector), text, number))

    def poll(self) -> Message | None:
        try:
            return self._inbox.get_nowait()
        except queue.Empty:
            return None


def linked(number: int) -> tuple[QueueLink, QueueLink]:
    """The lead's end of a link to master `number`, and the other end."""
    there: queue.SimpleQueue[Message] = queue.SimpleQueue()
    back: queue.SimpleQueue[Message] = queue.SimpleQueue()
    return QueueLink(0, back, there), QueueLink(number, there, back)


class Leading(Record):
    """A record at the lead: it listens to the followers, and tells them to stop.

    Attributes:
        gathered: v as it was gathered in the middle of the run.
    """

    followers: Followers

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.gathered: list[Vector] = []

    def stopping(self) -> bool:
        self.followers.attend()
        self.followers.ask()
        if self.followers.gathered():
            self.gathered.append(self.followers.v.copy())
        stopping = super().stopping()
        if stopping:
            self.followers.stop()
        return stopping
