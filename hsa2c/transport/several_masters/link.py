"""What joins two masters, and the slice that goes over it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import TransportError
from hsa2c.transport.messages import Kind, Message

LOOK_S = 2e-3  # between two looks for a message


class MasterLink(Protocol):
    """What joins the lead and a follower."""

    def send(
        self, kind: Kind, *, since: int = 0, vector: Vector | None = None, text: bytes = b"", number: float = 0.0
    ) -> None:
        """Begin to send a message; its arrays may be reused at once."""

    def poll(self) -> Message | None:
        """The next message from the other, None if there is none now; `Message.node` is the other's number.

        Raises:
            TransportError: The other has died, or what it sent is no message of this run.
        """


def pack(v: Vector, z: Vector) -> Vector:
    """A slice's v and z as one vector."""
    return np.concatenate([v, z])


def unpack(message: Message) -> tuple[Vector, Vector]:
    """The v and z of a slice.

    Raises:
        TransportError: There is no vector, or not one of two equal parts.
    """
    vector = message.vector
    if vector is None or vector.size == 0 or vector.size % 2:
        size = 0 if vector is None else vector.size
        raise TransportError(f"master {message.node}: {message.kind.name} with {size} numbers, must be v and z")
    return vector[: vector.size // 2], vector[vector.size // 2 :]
