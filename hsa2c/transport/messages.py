"""The messages between nodes and masters, and how long one waits for another."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hsa2c.dpsgd.protocols import Vector


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
    DIED = 10  # never sent: what the transport says of a node that is gone
    V_STEP = 11  # answers a pull: what is new in v since this node's last one
    V_SAME = 12  # answers a pull: nothing is
    SLICE = 19  # between masters: v and z of a slice
    CALL = 20  # between masters: let a spare work (`hsa2c.transport.several_masters`)


@dataclass(frozen=True, slots=True)
class Message:
    """From a node to the master; `vector` and `text` are valid until the next message."""

    kind: Kind
    node: int
    since: int = 0
    vector: Vector | None = None
    text: bytes = b""
    number: float = 0.0
    size: int = 0
    """In bytes, on the wire; 0 where there is none."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long one waits for another, in seconds. A node at work tells something every `PoolLimits.tell_s`."""

    start_s: float = 600.0
    """Until every node has pulled for the first time."""
    silence_s: float = 60.0
    """The master's patience when it hears nobody, and a node's with the master."""
    absence_s: float = 15.0
    """After so long a silence of one node it is not waited for, until it is heard again."""
    refusals: int = 10
    """Deltas in a row of one node that are not finite: then the run cannot go on."""
    quick_s: float = 30.0
    """A node that fails three times, each time sooner than this after it began, is not replaced again."""
