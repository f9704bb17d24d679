"""A follower: Algorithm 1 on a slice, at the lead's word."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import Monitor, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import TransportError
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.several_masters.link import LOOK_S, MasterLink, pack, unpack
from hsa2c.transport.waiting import Patience

_TELL_S = 1.0  # between two signs of life of a follower


class FollowerMonitor(Monitor):
    """A follower's monitor: it does what the lead says, and writes nothing. Nodes take the lead's rate scale.

    Args:
        lead: To the lead.
        port: The follower's own.
        v: Its slice.
        z: The slice's velocity.
    """

    def __init__(self, lead: MasterLink, port: BaseMasterPort, v: Vector, z: Vector) -> None:
        self._lead = lead
        self._port = port
        self._v, self._z = v, z
        self._stop_said = False
        self._told_at = 0.0

    def stopping(self) -> bool:
        """See `Monitor.stopping`."""
        while (message := self._lead.poll()) is not None:
            if message.kind is Kind.PULL:
                self._lead.send(Kind.SLICE, vector=pack(self._v, self._z))
            elif message.kind is Kind.CALL:
                self._port.call(message.since, self)
            elif message.kind is Kind.STOP:
                self._stop_said = True
            else:
                raise TransportError(f"master {message.node}: {message.kind.name}, unasked")
        if time.monotonic() - self._told_at > _TELL_S:
            self._lead.send(Kind.TELL)
            self._told_at = time.monotonic()
        return self._stop_said


def follow(
    lead: MasterLink,
    make_port: Callable[[int], BaseMasterPort],
    make_step: Callable[[int], GlobalStep],
    M: int,
    *,
    limits: Limits,
    max_delay: int | None = None,
) -> bool:
    """Be a follower: Algorithm 1 on a slice, from the one that the lead gives to the one that it is given back.

    Args:
        lead: To the lead.
        make_port: Gives the port, for a slice of so many numbers.
        make_step: Gives line 3, for a slice of so many numbers.
        M: As for `master`.
        limits: Patience.
        max_delay: As for `master`.

    Returns:
        Whether all may leave MPI in good order, says the lead.

    Raises:
        TransportError: The lead is lost or does not answer, or no node is heard.
        NodeError: No node is left.
    """
    first = _wait_for(lead, Kind.SLICE, limits.start_s)
    v, z = (half.copy() for half in unpack(first))
    port, step = make_port(v.size), make_step(v.size)
    np.copyto(step.z, z)
    monitor = FollowerMonitor(lead, port, v, step.z)
    if port.assemble(monitor):
        master(v, step, port, monitor, M, max_delay=max_delay, t=first.since)
        lead.send(Kind.LEAVE, vector=pack(v, step.z), number=float(port.unscathed))
    return bool(_wait_for(lead, Kind.STOPPED, limits.start_s).number)


def _wait_for(lead: MasterLink, kind: Kind, limit_s: float) -> Message:
    """The lead's next message of this kind; what it asked before has no meaning any more."""
    patience = Patience(limit_s)
    while patience.left_s() > 0:
        message = lead.poll()
        if message is None:
            time.sleep(LOOK_S)
        elif message.kind is kind:
            return message
    raise TransportError(f"no {kind.name} from the lead in {limit_s:.0f} s")
