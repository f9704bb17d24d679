"""The lead's side: the other masters, as it sees them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import NodeError, TransportError
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.several_masters.link import LOOK_S, MasterLink, pack, unpack
from hsa2c.transport.several_masters.slices import parts
from hsa2c.transport.waiting import LONGEST_LOOK_S


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
            link.send(Kind.SLICE, since=t, vector=pack(v[part], z[part]))

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
            v, z = unpack(message)
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
            time.sleep(LOOK_S)
        self._put_together()

    def dismiss(self, unscathed: bool) -> bool:
        """The last word to them: whether all leave MPI in good order, the lead and each of them. Gives it back."""
        unscathed = unscathed and all(self._left.values())
        for link in self._links.values():
            link.send(Kind.STOPPED, number=float(unscathed))
        return unscathed
