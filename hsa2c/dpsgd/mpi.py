"""MPI transport: rank 0 is the master, rank n + 1 is node n. The only module that imports mpi4py.

A message is one contiguous buffer of bytes: a header of eight int64, then float32s, then text. It goes by upper-case
calls only, so nothing is pickled. Nobody blocks inside MPI, where waiting burns a core: everything is probed and tested
with a back-off from 50 us to a few milliseconds.

Import this after the node's actor-learners were forked: a process that has called MPI_Init must not fork.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import mpi4py
import numpy as np
import numpy.typing as npt

mpi4py.rc.initialize = False
mpi4py.rc.finalize = False

from mpi4py import MPI  # noqa: E402

from hsa2c.dpsgd.ports import BaseMasterPort, BaseWorkerPort, Kind, Limits, Message  # noqa: E402
from hsa2c.dpsgd.transport import Pulled, Vector  # noqa: E402
from hsa2c.errors import TransportError  # noqa: E402

Bytes = npt.NDArray[np.uint8]

_MAGIC = 0x48534132_4320_0001  # "HSA2C ", version 1 of the frame
_HEADER = 64
_TEXT_LIMIT = 1 << 20
_KINDS = frozenset(Kind)
_FIRST_SLEEP_S = 50e-6
_LAST_SLEEP_S = 2e-3
_MASTER_TICK_S = 5e-3


def start() -> tuple[int, int]:
    """Initialise MPI in this process.

    Returns:
        This rank and the number of ranks.
    """
    if not MPI.Is_initialized():
        MPI.Init()
    world = MPI.COMM_WORLD
    return world.Get_rank(), world.Get_size()


def finish() -> None:
    """Leave MPI in good order: every rank calls it, or none."""
    MPI.Finalize()


def abort(code: int) -> None:
    """End every rank of the job now."""
    MPI.COMM_WORLD.Abort(code)


def library() -> str:
    """The MPI library in use, in words."""
    return MPI.Get_library_version().split("\n")[0].split(",")[0].strip("\x00 ")


@dataclass(frozen=True, slots=True)
class Frame:
    """What a buffer of bytes says; `vector` is a view of it, `number` v's rate scale or a push's wait in seconds."""

    kind: Kind
    since: int
    number: float
    vector: Vector
    text: bytes


def encode(
    buffer: Bytes,
    run_id: int,
    kind: int,
    *,
    since: int = 0,
    number: float = 0.0,
    vector: Vector | None,
    text: bytes,
) -> Bytes:
    """Write a message into `buffer`; gives back the part of it that is to be sent."""
    floats = 0 if vector is None else vector.size
    end = _HEADER + 4 * floats
    if end + len(text) > buffer.size:
        raise TransportError(f"a message of {end + len(text)} bytes, more than {buffer.size}")
    header = buffer[:_HEADER].view(np.int64)
    header[:] = (_MAGIC, run_id, kind, since, floats, len(text), 0, 0)
    buffer[48:56].view(np.float64)[0] = number
    if vector is not None:
        buffer[_HEADER:end].view(np.float32)[:] = vector
    buffer[end : end + len(text)] = np.frombuffer(text, dtype=np.uint8)
    return buffer[: end + len(text)]


def decode(data: Bytes, run_id: int, who: str) -> Frame:
    """Read a message.

    Raises:
        TransportError: It is not a whole message of this run.
    """
    if data.size < _HEADER:
        raise TransportError(f"{who}: a message of {data.size} bytes, shorter than a header")
    magic, run, kind, since, floats, letters, _, _ = (int(x) for x in data[:_HEADER].view(np.int64))
    if magic != _MAGIC or run != run_id:
        raise TransportError(f"{who}: a message of another run or version (run id {run:#x}, here {run_id:#x})")
    end = _HEADER + 4 * floats
    if floats < 0 or letters < 0 or data.size != end + letters:
        raise TransportError(f"{who}: a message of {data.size} bytes that says it has {end + letters}")
    if kind not in _KINDS:
        raise TransportError(f"{who}: a message of unknown kind {kind}")
    number = float(data[48:56].view(np.float64)[0])
    return Frame(Kind(kind), since, number, data[_HEADER:end].view(np.float32), data[end:].tobytes())


class _Backoff:
    """Sleeps that grow while nothing happens."""

    def __init__(self, last_s: float = _LAST_SLEEP_S) -> None:
        self._sleep_s = _FIRST_SLEEP_S
        self._last_s = last_s

    def __call__(self) -> None:
        time.sleep(self._sleep_s)
        self._sleep_s = min(2 * self._sleep_s, self._last_s)


def _wait(done: Callable[[], bool], limit_s: float, what: str) -> None:
    deadline = time.monotonic() + limit_s
    backoff = _Backoff()
    while not done():
        if time.monotonic() > deadline:
            raise TransportError(f"{what}: not done after {limit_s:.0f} s")
        backoff()


def _probe(source: int) -> tuple[MPI.Message, MPI.Status] | None:
    status = MPI.Status()
    message = MPI.COMM_WORLD.Improbe(source=source, tag=0, status=status)
    return None if message is None else (message, status)


def _take(found: tuple[MPI.Message, MPI.Status], buffer: Bytes, limit_s: float, who: str) -> Bytes:
    """Receive a probed message into `buffer`; gives back the part of it that was filled."""
    message, status = found
    size = status.Get_count(MPI.BYTE)
    if size > buffer.size:
        raise TransportError(f"{who}: a message of {size} bytes, more than {buffer.size}")
    request = message.Irecv([buffer[:size], MPI.BYTE])
    _wait(request.Test, limit_s, f"{who}: receiving {size} bytes")
    return buffer[:size]


def _buffer(floats: int) -> Bytes:
    # The master touches its largest buffer only as far as a message goes: untouched pages cost nothing.
    return np.empty(_HEADER + 4 * floats + _TEXT_LIMIT, dtype=np.uint8)


class MPIMaster(BaseMasterPort):
    """The master's end, rank 0.

    Args:
        nodes: Ranks 1 to `nodes` are workers.
        dim: Length of v.
        state_dim: Length of a node's optimiser state.
        run_id: Number that all messages of this run carry.
        limits: Patience.
    """

    def __init__(self, nodes: int, dim: int, state_dim: int, run_id: int, limits: Limits) -> None:
        super().__init__(nodes, limits)
        self._run_id = run_id
        self._dim = dim
        self._state_dim = state_dim
        self._inbox = _buffer(max(dim, state_dim))
        self._sending: list[tuple[MPI.Request, Bytes]] = []
        self._snapshot: tuple[tuple[int, float], Bytes] | None = None

    def _receive(self) -> Message | None:
        self._sending = [(request, data) for request, data in self._sending if not request.Test()]
        found = self._next_message()
        if found is None:
            return None
        rank = found[1].Get_source()
        who = f"node {rank - 1}"
        frame = decode(_take(found, self._inbox, self._limits.silence_s, who), self._run_id, who)
        kind = frame.kind
        expected = {Kind.PUSH: self._dim, Kind.KEEP: self._state_dim, Kind.LEAVE: self._state_dim}.get(kind)
        if frame.vector.size != (expected or 0):
            raise TransportError(f"{who}: {kind.name} with {frame.vector.size} numbers, must be {expected or 0}")
        return Message(
            kind, rank - 1, frame.since, None if expected is None else frame.vector, frame.text, frame.number
        )

    @staticmethod
    def _next_message() -> tuple[MPI.Message, MPI.Status] | None:
        deadline = time.monotonic() + _MASTER_TICK_S
        backoff = _Backoff()
        while (found := _probe(MPI.ANY_SOURCE)) is None and time.monotonic() < deadline:
            backoff()
        return found

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        if pulled is None:
            self._send(node, Kind.STOPPED)
            return
        # v goes on changing while it is sent: one copy for all nodes that pull the same t at the same rate.
        what = (pulled.t, pulled.rate_scale)
        if self._snapshot is None or self._snapshot[0] != what:
            data = np.empty(_HEADER + 4 * self._dim, dtype=np.uint8)
            encode(data, self._run_id, Kind.V, since=pulled.t, number=pulled.rate_scale, vector=pulled.v, text=b"")
            self._snapshot = (what, data)
        self._isend(node, self._snapshot[1])

    def _say_stop(self) -> None:
        for node in range(self._nodes):
            self._send(node, Kind.STOP)

    def _send(self, node: int, kind: Kind) -> None:
        data = np.empty(_HEADER, dtype=np.uint8)
        self._isend(node, encode(data, self._run_id, kind, vector=None, text=b""))

    def _isend(self, node: int, data: Bytes) -> None:
        self._sending.append((MPI.COMM_WORLD.Isend([data, MPI.BYTE], dest=node + 1, tag=0), data))

    def flush(self) -> None:
        """Wait until everything sent has gone."""
        for request, _ in self._sending:
            _wait(request.Test, self._limits.silence_s, "master: sending")
        self._sending = []


class MPIWorker(BaseWorkerPort):
    """A node's end, rank `node` + 1; arguments as for `MPIMaster`."""

    def __init__(self, node: int, dim: int, state_dim: int, run_id: int, limits: Limits) -> None:
        super().__init__(node, limits)
        self._run_id = run_id
        self._dim = dim
        self._outbox = _buffer(max(dim, state_dim))
        self._inbox = _buffer(dim)
        self._control = np.empty(_HEADER, dtype=np.uint8)
        self._stop_said = False

    def stopping(self) -> bool:
        """See `Listener.stopping`."""
        # A buffer of its own: the crew still needs v, which lies in the other one.
        if not self._stop_said and (frame := self._poll(self._control)) is not None:
            if frame.kind is not Kind.STOP:
                raise TransportError(f"node {self._node}: {frame.kind.name} from the master, unasked")
            self._stop_said = True
        return self._stop_said

    def _send(
        self, kind: Kind, *, since: int = 0, vector: Vector | None = None, text: bytes = b"", number: float = 0.0
    ) -> None:
        data = encode(self._outbox, self._run_id, kind, since=since, number=number, vector=vector, text=text)
        request = MPI.COMM_WORLD.Isend([data, MPI.BYTE], dest=0, tag=0)
        _wait(request.Test, self._limits.silence_s, f"node {self._node}: sending {kind.name} to the master")

    def _receive_answer(self, limit_s: float) -> tuple[bool, Pulled | None]:
        deadline = time.monotonic() + limit_s
        backoff = _Backoff()
        while time.monotonic() < deadline:
            frame = self._poll(self._inbox)
            if frame is None:
                backoff()
            elif frame.kind is Kind.STOP:
                self._stop_said = True
            elif frame.kind is Kind.STOPPED:
                return True, None
            else:
                return True, Pulled(frame.vector, frame.since, frame.number)
        return False, None

    def _poll(self, buffer: Bytes) -> Frame | None:
        found = _probe(0)
        if found is None:
            return None
        who = f"node {self._node}"
        data = _take(found, buffer, self._limits.silence_s, who)
        frame = decode(data, self._run_id, who)
        if frame.kind is Kind.V and frame.vector.size != self._dim:
            raise TransportError(f"{who}: v has {frame.vector.size} numbers, must be {self._dim}")
        return frame
