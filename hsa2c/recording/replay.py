"""Repeats a recorded run serially: the same deltas in the same order, through the same Algorithm 1, to the same v.

After each global step v must be what it was, bit for bit: sums of float32 depend on their order, and nothing else here
could make a difference. Where it is not, something wrote into v, into the sum or into a delta that should not have.

`hsa2c.recording.recompute` repeats the nodes' own work, too, where that can be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import MasterPort, Monitor, Push, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import HSA2CError
from hsa2c.recording.format import Ending, Frame, Kind, Recording, checksum
from hsa2c.transport.master_port import NOT_FINITE

Look = Callable[[int, Vector, Vector], "str | None"]
"""Gets t, v and z after a global step; gives back what is wrong with them."""


class Recomputing(Protocol):
    """The nodes' own work, repeated beside the master's (`hsa2c.recording.recompute.Nodes`)."""

    given_up: dict[int, str]
    """Why, by node."""

    def see(self, frame: Frame, serving: Vector | None) -> None:
        """Take in what happened beside deltas; `serving` is v at that time."""

    def compare(self, frame: Frame, delta: Vector, t: int) -> int:
        """Compute a delta that came, anew; gives back how many were computed.

        Raises:
            DifferenceError: It is another one.
        """


class DifferenceError(HSA2CError):
    """The first place where the repetition is not the run; the message says which step, delta and node."""


class _OverError(Exception):
    """The recording ends where the run went on."""


@dataclass(kw_only=True)
class Outcome:
    """What a repetition came to.

    Attributes:
        t: Global steps done, those before the recording included.
        v: The global parameter then, float32 [dim].
        steps: Global steps repeated.
        deltas: Deltas that were added in them.
        refused: Deltas that the run had not used.
        nodes: Whose deltas they are.
        recomputed: Deltas that were computed anew, and were the same.
        given_up: Nodes whose deltas were not, or no longer, computed anew, and why.
        last_word: What its last frame says; empty without one.
        cut: Whether the run went on after the recording's end.
        difference: The first, in words; None if there is none.
    """

    t: int
    v: Vector
    steps: int = 0
    deltas: int = 0
    refused: int = 0
    nodes: set[int] = field(default_factory=set)
    recomputed: int = 0
    given_up: dict[int, str] = field(default_factory=dict)
    last_word: str = ""
    cut: bool = False
    difference: str | None = None


def replay(
    recording: Recording,
    *,
    nodes: Recomputing | None = None,
    look: Look = lambda *_: None,
    progress: Callable[[], None] = lambda: None,
) -> Outcome:
    """Repeat a run, to its end or to the first difference.

    Args:
        recording: Its beginning has been read; it is read to its end.
        nodes: Computes deltas anew, too; None: they are those that came.
        look: Compares v and z with what else is known of them.
        progress: Called after each frame.
    """
    about, v = recording.about, recording.v.copy()
    step = GlobalStep(about["rho"], about["mu"], v.size, mean_of=about["mean_of"])
    step.z[:] = recording.z
    outcome = Outcome(t=recording.t, v=v)
    port = _ReplayPort(recording, nodes, outcome, progress)
    monitor = _ReplayMonitor(port, step, look, outcome)
    try:
        master(v, step, port, monitor, about["M"], max_delay=about["max_delay"], t=recording.t)
        port.end()
    except _OverError:
        outcome.cut = True
    except DifferenceError as difference:
        outcome.difference = str(difference)
    if outcome.difference is None and recording.ending is Ending.DAMAGED:
        outcome.difference = f"after step {outcome.t}: the recording is damaged at byte {recording.offset:,}"
    if recording.last is not None:
        outcome.last_word = recording.last.text()
        outcome.cut = outcome.cut or bool(recording.last.code)
    if nodes is not None:
        outcome.given_up = dict(nodes.given_up)
    return outcome


class _ReplayPort(MasterPort):
    """Gives the master what came, when it came."""

    def __init__(
        self, recording: Recording, nodes: Recomputing | None, outcome: Outcome, progress: Callable[[], None]
    ) -> None:
        self._recording = recording
        self._frames = self._take(progress)
        self._nodes = nodes
        self._outcome = outcome
        self._dim = recording.dim
        self._m = 0
        self.step: Frame | None = None
        """The step, or the end, that the master is led to next."""

    def _take(self, progress: Callable[[], None]) -> Iterator[Frame]:
        for frame in self._recording.frames():
            yield frame
            progress()

    def assemble(self, monitor: Monitor) -> bool:
        """See `MasterPort.assemble`; nobody has to come."""
        return True

    def collect(self, M: int, *, serving: Vector, t: int, monitor: Monitor) -> Iterator[Push]:
        """See `MasterPort.collect`: the deltas of one step, however many made it."""
        self._m = 0
        yield from self._until((Kind.STEP, Kind.DRAIN), serving, t)

    def quorum(self, M: int) -> int:
        """See `MasterPort.quorum`: as it was."""
        return self.step.since if self.step is not None else 1

    def drain(self, *, monitor: Monitor) -> Iterator[Push]:
        """See `MasterPort.drain`: what was still on its way."""
        yield from self._until((Kind.STEP,), None, self._outcome.t)

    def end(self) -> None:
        """Nothing may follow.

        Raises:
            DifferenceError: Something does.
        """
        for frame in self._frames:
            if frame.kind in (Kind.DELTA, Kind.STEP):
                raise DifferenceError(f"after step {self._outcome.t}: a {frame.kind.name} follows the last step")

    def _until(self, kinds: tuple[Kind, ...], serving: Vector | None, t: int) -> Iterator[Push]:
        for frame in self._frames:
            self._check(frame, t)
            if frame.kind in kinds:
                if frame.count != self._m:
                    raise DifferenceError(at_step(t, f"{self._m} deltas are recorded, and {frame.count} were added"))
                self.step = frame
                return
            if frame.kind is Kind.DELTA:
                self._m += 1
                yield self._push(frame, t)
            elif frame.kind is Kind.REFUSED:
                self._outcome.refused += frame.text() == NOT_FINITE
            if self._nodes is not None and frame.kind is not Kind.DELTA:
                self._nodes.see(frame, serving)
        last = self._recording.last
        if self._recording.ending is not Ending.WHOLE or last is None or last.code or self._m or Kind.DRAIN in kinds:
            raise _OverError
        # Stop was said, nothing was on its way, and there is no last step.

    def _check(self, frame: Frame, t: int) -> None:
        """Whether a frame is whole, and where it should be."""
        place = self._m + (frame.kind is not Kind.CHANGED)
        delta = f"the delta of node {frame.node} at the v of step {frame.since}, number {place} of the step,"
        if frame.kind is Kind.CHANGED:
            raise DifferenceError(
                at_step(t, f"{delta} was overwritten between its arrival and the end of its addition")
            )
        if frame.damaged:
            what = delta if frame.kind is Kind.DELTA else f"what is recorded of node {frame.node} ({frame.kind.name})"
            raise DifferenceError(at_step(t, f"{what} has another checksum than when it came"))
        if frame.kind is Kind.DELTA and frame.t != t:
            raise DifferenceError(at_step(t, f"{delta} came at step {frame.t + 1} in the run"))

    def _push(self, frame: Frame, t: int) -> Push:
        delta = frame.vector(self._dim)
        if delta is None:
            raise DifferenceError(at_step(t, f"the delta of node {frame.node} is not of {self._dim} numbers"))
        if self._nodes is not None:
            self._outcome.recomputed += self._nodes.compare(frame, delta, t)
        self._outcome.deltas += 1
        self._outcome.nodes.add(frame.node)
        return Push(frame.node, delta, frame.since)


class _ReplayMonitor(Monitor):
    """Looks whether v is what it was."""

    def __init__(self, port: _ReplayPort, step: GlobalStep, look: Look, outcome: Outcome) -> None:
        self._port = port
        self._step = step
        self._look = look
        self._outcome = outcome

    def stepped(self, t: int, v: Vector) -> None:
        """See `Monitor.stepped`."""
        frame = self._port.step
        assert frame is not None
        if frame.t != t:
            raise DifferenceError(at_step(t - 1, f"in the run it was step {frame.t}"))
        if (sums := frame.sums()) is None:
            raise DifferenceError(at_step(t - 1, "its checksums are missing"))
        of_v, of_z = sums
        of = f"the sum of {frame.count} deltas"
        if checksum(v) != of_v:
            raise DifferenceError(at_step(t - 1, f"v is not what it was after {of}"))
        if self._step.mu and checksum(self._step.z) != of_z:
            raise DifferenceError(at_step(t - 1, f"the velocity z is not what it was after {of}"))
        self._outcome.t = t
        self._outcome.steps += 1
        if wrong := self._look(t, v, self._step.z):
            raise DifferenceError(f"after step {t}: {wrong}")


def at_step(t: int, what: str) -> str:
    """About the step that comes after t."""
    return f"step {t + 1}: {what}"
