"""Several masters: each has a slice of v, and runs Algorithm 1 on it with the same nodes; for any transport.

    node                        lead (master 0)              followers (masters 1, 2, ...)
                                v, z of each slice ------------>
      pull  --------------------> slice 0 of v
      pull  ------------------------------------------------------> slice k of v
      push  --------------------> slice 0 of w
      push  ------------------------------------------------------> slice k of w
                                pull (for a checkpoint) -------->
                                <------------------------------- v, z of the slice
                                call (a spare is to work) ------>
                                stop --------------------------->
                                <------------------------------- leave: v, z, the last ones
                                stopped ------------------------>

A master knows its slice only: no two are in step, and the slices that a node puts together may be of different t, as if
parts of v had come a step sooner or later. Theory calls that a delay; each slice's own t goes with its part of the
delta, so that every master counts its own tau.

The lead alone has the monitor: curves, checkpoints, signals. A node reports to it. Each master finds by itself which
nodes are lost, and the rule of M holds in each; but which spare begins is the lead's decision.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import Monitor, Pulled, Vector, WorkerPort
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import ConfigError, NodeError, TransportError
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.waiting import LONGEST_LOOK_S, Patience
from hsa2c.transport.worker_port import BaseWorkerPort

_LOOK_S = 2e-3  # between two looks for a message
_TELL_S = 1.0  # between two signs of life of a follower


def parts(dim: int, masters: int) -> list[slice]:
    """Each master's slice of a vector of length `dim`: contiguous, in order, their lengths at most one apart.

    Raises:
        ConfigError: There are more masters than numbers.
    """
    if masters > dim:
        raise ConfigError(f"cluster.masters = {masters}: v has {dim} numbers, must be at most {dim}")
    ends = [dim * k // masters for k in range(masters + 1)]
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


# A node.


class ShardedWorkerPort(WorkerPort):
    """A node's port to several masters, made of one to each.

    Args:
        ports: To the lead, then to the others in order.
        dim: Length of v.
    """

    def __init__(self, ports: Sequence[BaseWorkerPort], dim: int) -> None:
        self._ports = ports
        self._lead, *self._others = ports
        self._parts = parts(dim, len(ports))
        self._v = np.empty(dim, np.float32)
        self._ts = [0] * len(ports)

    def stopping(self) -> bool:
        """See `Listener.stopping`."""
        return any(port.stopping() for port in self._ports)

    def pull(self) -> Pulled | None:
        """See `WorkerPort.pull`. Its t is the lead's."""
        self.ask()
        return self.answer()

    def ask(self) -> None:
        """The first half of a pull: all are asked before the first is waited for."""
        for port in self._ports:
            port.ask()

    def answer(self) -> Pulled | None:
        """The second half of a pull."""
        answers = [port.answer(lambda: self.tell(b"")) for port in self._ports]
        if None in answers:
            self._hear_of_the_end([p for p, answer in zip(self._ports, answers, strict=True) if answer is not None])
            return None
        pulled = [answer for answer in answers if answer is not None]
        for part, answer in zip(self._parts, pulled, strict=True):
            self._v[part] = answer.v
        self._ts = [answer.t for answer in pulled]
        self._lead.waited_s = max(port.waited_s for port in self._ports)
        return Pulled(self._v, self._ts[0], pulled[0].rate_scale)

    def _hear_of_the_end(self, going_on: list[BaseWorkerPort]) -> None:
        """Some masters have stopped, these will in a moment: a node leaves when it has heard it from all."""
        while going_on:
            time.sleep(_LOOK_S)
            going_on = [port for port in going_on if port.pull() is not None]

    def push(self, delta: Vector, *, since: int, report: bytes) -> None:
        """See `WorkerPort.push`."""
        if not np.isfinite(delta.sum()):
            delta = np.full_like(delta, np.nan)  # each master refuses what is not finite: all do, or none
        age = self._ts[0] - since
        began_at = time.monotonic()
        sent: list[Callable[[], None]] = []
        for port, part, t in zip(self._ports, self._parts, self._ts, strict=True):
            sent.append(port.begin_push(delta[part], since=t - age, report=report if port is self._lead else b""))
        for wait in sent:
            wait()
        self._lead.pushed_s = time.monotonic() - began_at

    def tell(self, report: bytes) -> None:
        """See `Listener.tell`; to the other masters it is a sign of life."""
        self._lead.tell(report)
        for port in self._others:
            port.tell(b"")

    def keep(self, state: Vector) -> None:
        """See `Listener.keep`."""
        self._lead.keep(state)

    def leave(self, state: Vector) -> None:
        """See `WorkerPort.leave`."""
        self._lead.leave(state)
        for port in self._others:
            port.leave(np.zeros(0, np.float32))

    def fail(self, message: str) -> None:
        """See `WorkerPort.fail`."""
        for port in self._ports:
            port.fail(message)


# Between masters.


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


def _pack(v: Vector, z: Vector) -> Vector:
    return np.concatenate([v, z])


def _unpack(message: Message) -> tuple[Vector, Vector]:
    """The v and z of a slice.

    Raises:
        TransportError: There is no vector, or not one of two equal parts.
    """
    vector = message.vector
    if vector is None or vector.size == 0 or vector.size % 2:
        size = 0 if vector is None else vector.size
        raise TransportError(f"master {message.node}: {message.kind.name} with {size} numbers, must be v and z")
    return vector[: vector.size // 2], vector[vector.size // 2 :]


class Followers:
    """The other masters, seen from the lead: it gives them their slices, and gathers them for a checkpoint.

    Attributes:
        v: All of v as it was last gathered, float32 [dim]. The slices are of moments a few milliseconds apart, and so
            of perhaps different t: it is what a node sees, too.
        z: The global step's velocity of the same moments, float32 [dim].
        own_v: The lead's own slice; the lead changes it in place, between two calls of the methods here.
        own_z: Its velocity; likewise.

    Args:
        links: To master 1, 2, ...
        v: All of v at the start.
        z: The velocity at the start.
        t: Global steps before.
        limits: Patience.
    """

    def __init__(self, links: Sequence[MasterLink], *, v: Vector, z: Vector, t: int, limits: Limits) -> None:
        self.v, self.z = v, z
        self._links = dict(enumerate(links, start=1))
        self._own_part, *theirs = parts(v.size, 1 + len(links))
        self.own_v, self.own_z = v[self._own_part].copy(), z[self._own_part].copy()
        self._parts = dict(enumerate(theirs, start=1))
        self._limits = limits
        self._stop_said = False
        self._asked = False
        self._came: dict[int, tuple[Vector, Vector]] = {}
        self._left: dict[int, bool] = {}  # and whether all is well with MPI there
        self._looked_at = time.monotonic()
        self._listened_s = 0.0  # as `BaseMasterPort` counts it
        self._heard_at_s: dict[int, float | None] = dict.fromkeys(self._links)
        for number, link in self._links.items():
            part = self._parts[number]
            link.send(Kind.SLICE, since=t, vector=_pack(v[part], z[part]))

    def attend(self) -> None:
        """Take in what they say; call it often.

        Raises:
            TransportError: One has died, is silent for too long, or sent what it must not.
            NodeError: One cannot go on.
        """
        now = time.monotonic()
        self._listened_s += min(now - self._looked_at, LONGEST_LOOK_S)
        self._looked_at = now
        for number, link in self._links.items():
            if number in self._left:
                continue
            while (message := link.poll()) is not None:
                self._heard_at_s[number] = self._listened_s
                self._take(number, message)
            heard_at_s = self._heard_at_s[number]
            silent_s = self._listened_s - (heard_at_s or 0.0)
            limit_s = self._limits.start_s if heard_at_s is None else self._limits.silence_s
            if silent_s > limit_s:
                raise TransportError(f"master {number}: silent for {silent_s:.0f} s (limit {limit_s:.0f} s)")

    def _take(self, number: int, message: Message) -> None:
        if message.kind is Kind.FAIL:
            raise NodeError(f"master {number}: {message.text.decode(errors='replace')}")
        if message.kind in (Kind.SLICE, Kind.LEAVE):
            v, z = _unpack(message)
            if v.size != (size := self.v[self._parts[number]].size):
                raise TransportError(f"master {number}: a slice of {v.size} numbers, must be {size}")
            self._came[number] = v, z
            if message.kind is Kind.LEAVE:
                self._left[number] = bool(message.number)
        elif message.kind is not Kind.TELL:
            raise TransportError(f"master {number}: {message.kind.name}, unasked")

    def ask(self) -> None:
        """Begin to gather, if that is not under way."""
        if not self._asked and not self._stop_said:
            self._asked = True
            self._came.clear()
            for link in self._links.values():
                link.send(Kind.PULL)

    def gathered(self) -> bool:
        """Whether what was asked for has come, since the last call; `v` and `z` are new then."""
        if not self._asked or len(self._came) < len(self._links):
            return False
        self._put_together()
        return True

    def _put_together(self) -> None:
        self._asked = False
        self.v[self._own_part], self.z[self._own_part] = self.own_v, self.own_z
        for number, part in self._parts.items():
            self.v[part], self.z[part] = self._came[number]

    def call(self, spare: int) -> None:
        """Tell them that a spare is to work."""
        for link in self._links.values():
            link.send(Kind.CALL, since=spare)

    def stop(self) -> None:
        """Tell them to stop; again is fine."""
        if not self._stop_said:
            self._stop_said = True
            for link in self._links.values():
                link.send(Kind.STOP)

    def gather_last(self) -> None:
        """Wait until all have stopped and given all that was on its way to them: `v` and `z` are exact then.

        Raises:
            TransportError: See `attend`.
            NodeError: See `attend`.
        """
        while len(self._left) < len(self._links):
            self.attend()
            time.sleep(_LOOK_S)
        self._put_together()

    def dismiss(self, unscathed: bool) -> bool:
        """The last word to them: whether all leave MPI in good order, the lead and each of them. Gives it back."""
        unscathed = unscathed and all(self._left.values())
        for link in self._links.values():
            link.send(Kind.STOPPED, number=float(unscathed))
        return unscathed


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
                self._lead.send(Kind.SLICE, vector=_pack(self._v, self._z))
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
    v, z = (half.copy() for half in _unpack(first))
    port, step = make_port(v.size), make_step(v.size)
    np.copyto(step.z, z)
    monitor = FollowerMonitor(lead, port, v, step.z)
    if port.assemble(monitor):
        master(v, step, port, monitor, M, max_delay=max_delay, t=first.since)
        lead.send(Kind.LEAVE, vector=_pack(v, step.z), number=float(port.unscathed))
    return bool(_wait_for(lead, Kind.STOPPED, limits.start_s).number)


def _wait_for(lead: MasterLink, kind: Kind, limit_s: float) -> Message:
    """The lead's next message of this kind; what it asked before has no meaning any more."""
    patience = Patience(limit_s)
    while patience.left_s() > 0:
        message = lead.poll()
        if message is None:
            time.sleep(_LOOK_S)
        elif message.kind is kind:
            return message
    raise TransportError(f"no {kind.name} from the lead in {limit_s:.0f} s")
