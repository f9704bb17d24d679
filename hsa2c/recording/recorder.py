"""Writes down what reaches the master, and in which order: around its port, and beside its monitor as another one.

Algorithm 1 cannot tell. What is recorded is what its result depends on (`hsa2c.recording.format`): each delta as it
came, how many made a step, and checksums of v after each; and, for nodes whose work can be repeated, which v each of
them was sent. `hsa2c.recording.replay` repeats it.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

from hsa2c.dpsgd.protocols import MasterPort, Monitor, Pulled, Push, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.recording.format import Frame, Kind, Writer, checksum, pack_sums, packed
from hsa2c.transport.codec import Encoding
from hsa2c.transport.master_port import NOT_FINITE


class Recorder(Monitor):
    """One recording. What cannot be written ends it with a word, and never the run.

    Args:
        path: Of the file.
        v: The global parameter at the start, float32 [dim].
        step: Line 3, with its velocity z at the start.
        M: As for `master`.
        max_delay: As for `master`.
        t: Global steps before.
        states: Optimisers' states at the start, float32 [state_dim]; node k has that of k modulo their number.
        encoding: In which deltas come.
        v_encoding: In which steps of v go to the nodes.
        about: What else a reader should know, as JSON values.
        limit_bytes: How long the file may become.
        tell: Is told, in words, when the recording ends before the run.
    """

    def __init__(
        self,
        path: Path,
        *,
        v: Vector,
        step: GlobalStep,
        M: int,
        max_delay: int | None,
        t: int,
        states: Sequence[Vector] = (),
        encoding: Encoding,
        v_encoding: Encoding,
        about: Mapping[str, Any],
        limit_bytes: float,
        tell: Callable[[str], None],
    ) -> None:
        self._path = path
        self._step = step
        self._encoding = encoding
        self._tell = tell
        self._t = t
        self._m = self._quorum = 0
        self._arrived = 0  # checksum of the delta that came last
        self._gradients: Counter[int] = Counter()  # of each node since its last delta
        self._counted: set[int] = set()  # whose are known: those that report them
        self._writer: Writer | None = None
        master = {"M": M, "rho": float(step.rho), "mu": float(step.mu), "mean_of": step.mean_of}
        master |= {"dim": v.size, "max_delay": max_delay}
        codes = {"encoding": encoding.name, "v_encoding": v_encoding.name}
        try:
            self._writer = Writer(path, limit_bytes)
        except OSError as error:
            self._stop(f"{path.name}: {error.strerror or error}")
        self._write(Kind.ABOUT, payload=json.dumps({**about, **master, **codes}).encode())
        self._write(Kind.V, t=t, payload=v.data)
        self._write(Kind.Z, t=t, payload=step.z.data)
        for number, state in enumerate(states):
            self._write(Kind.STATE, node=number, t=t, payload=state.data)

    def around(self, port: MasterPort, monitor: Monitor) -> tuple[MasterPort, Monitor]:
        """The same port and monitor, recorded."""
        return RecordingPort(port, self), Monitors(self, monitor)

    # What the port sees.

    def arrived(self, push: Push) -> None:
        """A delta comes to line 2."""
        if self._writer is None:
            return
        self._m += 1
        self._arrived = checksum(push.delta)
        self._write_delta(Kind.DELTA, push, self._arrived, count=self._take_gradients(push.node))

    def quorum(self, quorum: int) -> None:
        """What the master was told last when it asked how many deltas make a step."""
        self._quorum = quorum

    def draining(self) -> None:
        """Stop is said."""
        self._write(Kind.DRAIN, t=self._t, count=self._m, since=self._quorum)

    # What the monitor sees.

    def heard(self, node: int, report: bytes) -> None:
        """A report: what of it a repetition needs."""
        for item in json.loads(report) if self._writer else ():
            if "ready" in item:
                self._counted.add(node)
            if "ready" in item or "fault" in item:
                self._write(Kind.NOTE, node=node, t=self._t, payload=json.dumps(item).encode())
            self._gradients[node] += item.get("applied", 0) + item.get("refused_gradients", 0)

    def answered(self, node: int, pulled: Pulled, has: int) -> None:
        """A node gets v."""
        self._write(Kind.ANSWER, node=node, t=pulled.t, since=has, number=pulled.rate_scale)

    def received(self, push: Push, tau: int) -> None:
        """The delta that came last is in the sum: it must be what it was, or somebody has written into it."""
        if self._writer is not None and (now := checksum(push.delta)) != self._arrived:
            self._write_delta(Kind.CHANGED, push, now)

    def refused(self, node: int, why: str) -> None:
        """A delta, or an optimiser's state, was not used."""
        gradients = self._take_gradients(node) if why == NOT_FINITE else 0
        self._write(Kind.REFUSED, node=node, t=self._t, count=gradients, payload=why.encode())

    def stepped(self, t: int, v: Vector) -> None:
        """Line 3 is done."""
        if self._writer is not None:
            z = checksum(self._step.z) if self._step.mu else 0
            self._write(Kind.STEP, t=t, count=self._m, since=self._quorum, payload=pack_sums(checksum(v), z))
        self._t, self._m = t, 0

    # The file.

    def close(self, why: str) -> None:
        """The run ends: say why, and close the file; a second call does nothing."""
        self._write(Kind.END, last=True, t=self._t, payload=why.encode())
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _take_gradients(self, node: int) -> int:
        """How many since the last time; -1 where nobody counts."""
        gradients = self._gradients.pop(node, 0)
        return gradients if gradients or node in self._counted else -1

    def _write_delta(self, kind: Kind, push: Push, delta_sum: int, *, count: int = 0) -> None:
        kept = packed(push.delta, self._encoding)
        where: dict[str, Any] = {"node": push.node, "t": self._t, "since": push.since}
        self._write(
            kind,
            payload_sum=delta_sum if kept.encoding is Encoding.FLOAT32 else None,
            **where,
            count=count,
            code=int(kept.encoding),
            payload=kept.data.data,
        )

    def _write(self, kind: Kind, *, last: bool = False, payload_sum: int | None = None, **fields: Any) -> None:
        if self._writer is None:
            return
        try:
            if self._writer.write(Frame(kind=kind, **fields), last=last, payload_sum=payload_sum):
                return
            why = f"{self._path.name} has {self._writer.size / 2**30:.2f} GiB, and output.record_gib allows no more"
        except OSError as error:
            why = f"{self._path.name}: {error.strerror or error}"
        self._stop(why)

    def _stop(self, why: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):  # the same as before: the file has no last word then
                writer.write(Frame(kind=Kind.END, t=self._t, code=1, payload=why.encode()), last=True)
            writer.close()
        self._tell(f"recording ends: {why}; training goes on")


class RecordingPort(MasterPort):
    """A master's port whose deltas are recorded.

    Args:
        port: The one that does the work.
        recorder: Where they go.
    """

    def __init__(self, port: MasterPort, recorder: Recorder) -> None:
        self._port = port
        self._recorder = recorder

    def assemble(self, monitor: Monitor) -> bool:
        """See `MasterPort.assemble`."""
        return self._port.assemble(monitor)

    def collect(self, M: int, *, serving: Vector, t: int, monitor: Monitor) -> Iterator[Push]:
        """See `MasterPort.collect`."""
        for push in self._port.collect(M, serving=serving, t=t, monitor=monitor):
            self._recorder.arrived(push)
            yield push

    def quorum(self, M: int) -> int:
        """See `MasterPort.quorum`."""
        quorum = self._port.quorum(M)
        self._recorder.quorum(quorum)
        return quorum

    def drain(self, *, monitor: Monitor) -> Iterator[Push]:
        """See `MasterPort.drain`."""
        self._recorder.draining()
        for push in self._port.drain(monitor=monitor):
            self._recorder.arrived(push)
            yield push


class Monitors(Monitor):
    """Several monitors as one.

    Args:
        monitors: Each is told whatever happens, in this order. The last one says when to stop, and at which rate.
    """

    def __init__(self, *monitors: Monitor) -> None:
        for name, of_class in vars(Monitor).items():
            if isinstance(of_class, FunctionType):
                own = [getattr(monitor, name) for monitor in monitors]
                setattr(self, name, own[-1] if name in _ASKED else partial(_tell, own))


_ASKED = {"stopping", "rate_scale"}


def _tell(monitors: Sequence[Callable[..., None]], *what: Any, **named: Any) -> None:
    for tell in monitors:
        tell(*what, **named)
