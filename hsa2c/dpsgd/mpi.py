"""MPI transport: the first ranks are masters, mostly one; after them, in order, nodes. The only module that imports
mpi4py.

Where the library has ULFM (Open MPI's ``mpiexec --with-ft ulfm``), the death of a rank is an error that the next call
returns, and the others go on. A node that is lost can be replaced on the master's host by one that MPI spawns, which is
rank 0 of a world of its own, joined to the master's.

A message is one contiguous buffer of bytes: a header of eight int64, then numbers (`hsa2c.dpsgd.codec`), then text.
Only what answers a pull has its numbers in a message of their own, after the header's: they are the same for many
nodes, while the rate in the header is not, and arrive where they are needed. All goes by upper-case calls, so nothing
is pickled. Nobody blocks inside MPI, where waiting burns a core: everything is probed and tested now and then
(`hsa2c.dpsgd.backoff`).

Import this after the node's actor-learners were forked: a process that has called MPI_Init must not fork.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mpi4py
import numpy as np
import numpy.typing as npt

mpi4py.rc.initialize = False
mpi4py.rc.finalize = False
# Whoever starts MPI looks at the world that it gets; each of forty ranks need not say it.
warnings.filterwarnings("ignore", "suspicious MPI execution environment", RuntimeWarning)

from mpi4py import MPI  # noqa: E402

from hsa2c.dpsgd.backoff import LAST_S, Backoff, expecting, unhurried  # noqa: E402
from hsa2c.dpsgd.codec import Encoded, Encoding, plain  # noqa: E402
from hsa2c.dpsgd.patience import Patience  # noqa: E402
from hsa2c.dpsgd.ports import BaseMasterPort, BaseWorkerPort, Kind, Limits, Message  # noqa: E402
from hsa2c.dpsgd.serving import Serving, What, follow  # noqa: E402
from hsa2c.dpsgd.sharded import Link  # noqa: E402
from hsa2c.dpsgd.transport import Pulled, Vector  # noqa: E402
from hsa2c.errors import TransportError  # noqa: E402

Bytes = npt.NDArray[np.uint8]

_MAGIC = 0x48534132_4320_0002  # "HSA2C ", version 2 of the frame
_HEADER = 64
_TEXT_LIMIT = 1 << 20
_HUGE = 4 << 20
_KINDS = frozenset(Kind) - {Kind.DIED}
_APART = frozenset({Kind.V, Kind.V_STEP})  # whose numbers are a message of their own
_ANSWERS = {What.WHOLE: Kind.V, What.STEP: Kind.V_STEP, What.SAME: Kind.V_SAME}
_TAG, _NUMBERS_TAG = 0, 2
_TO_MASTERS_TAG = 3
_ENCODINGS = frozenset(Encoding)
_MOST_SENDS = 4  # for each node: what answers a pull is two messages
_MASTER_TICK_S = 5e-3
_DIED = "its process has died"


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
    """Leave MPI in good order: every rank calls it, or none. Not after a rank has died or was spawned: it may hang."""
    MPI.Finalize()


def abort(code: int) -> None:
    """End every rank of the job now."""
    MPI.COMM_WORLD.Abort(code)


def library() -> str:
    """The MPI library in use, in words."""
    said = MPI.Get_library_version().split("\n")[0].split(",")[0].strip("\x00 ")
    return " ".join(said.replace("Version:", "").split())  # "MPICH Version:\t4.0.2"


def survives() -> bool:
    """Whether the library can go on after the death of a rank (ULFM); mpiexec must have been asked to as well."""
    try:
        MPI.COMM_WORLD.Get_failed()
    except (MPI.Exception, NotImplementedError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Frame:
    """What a buffer of bytes says; `number` is v's rate scale or a push's wait in seconds.

    The numbers' bytes are a view of it, and empty where they come apart.
    """

    kind: Kind
    since: int
    number: float
    numbers: Encoded
    text: bytes


def encode(
    buffer: Bytes,
    run_id: int,
    kind: int,
    *,
    since: int = 0,
    number: float = 0.0,
    vector: Encoded | None,
    text: bytes,
) -> Bytes:
    """Write a message into `buffer`; gives back the part of it that is to be sent."""
    floats = 0 if vector is None else vector.dim
    encoding = Encoding.FLOAT32 if vector is None else vector.encoding
    end = _HEADER + (0 if vector is None or kind in _APART else vector.data.size)
    if end + len(text) > buffer.size:
        raise TransportError(f"a message of {end + len(text)} bytes, more than {buffer.size}")
    header = buffer[:_HEADER].view(np.int64)
    header[:] = (_MAGIC, run_id, kind, since, floats, len(text), 0, encoding)
    buffer[48:56].view(np.float64)[0] = number
    if vector is not None and end > _HEADER:
        buffer[_HEADER:end] = vector.data
    buffer[end : end + len(text)] = np.frombuffer(text, dtype=np.uint8)
    return buffer[: end + len(text)]


def decode(data: Bytes, run_id: int, who: str) -> Frame:
    """Read a message.

    Raises:
        TransportError: It is not a whole message of this run.
    """
    if data.size < _HEADER:
        raise TransportError(f"{who}: a message of {data.size} bytes, shorter than a header")
    magic, run, kind, since, floats, letters, _, code = (int(x) for x in data[:_HEADER].view(np.int64))
    if magic != _MAGIC or run != run_id:
        raise TransportError(f"{who}: a message of another run or version (run id {run:#x}, here {run_id:#x})")
    if code not in _ENCODINGS:
        raise TransportError(f"{who}: numbers in an unknown encoding, {code}")
    encoding = Encoding(code)
    end = _HEADER + (0 if kind in _APART else encoding.size(floats))
    if floats < 0 or letters < 0 or data.size != end + letters:
        raise TransportError(f"{who}: a message of {data.size} bytes that says it has {end + letters}")
    if kind not in _KINDS:
        raise TransportError(f"{who}: a message of unknown kind {kind}")
    number = float(data[48:56].view(np.float64)[0])
    return Frame(Kind(kind), since, number, Encoded(encoding, floats, data[_HEADER:end]), data[end:].tobytes())


def _sleep(backoff: Backoff, most_s: float | None = None) -> None:
    sleep_s = backoff.next_s()
    time.sleep(sleep_s if most_s is None else min(most_s, sleep_s))


def _wait(done: Callable[[], bool], limit_s: float, what: str, backoff: Backoff | None = None) -> float:
    """Wait until it is done; gives back how long."""
    began_at = time.monotonic()
    patience = Patience(limit_s)
    backoff = backoff or Backoff()
    while not done():
        if patience.left_s() <= 0:
            raise TransportError(f"{what}: not done after {limit_s:.0f} s")
        _sleep(backoff)
    return time.monotonic() - began_at


def _probe(comm: MPI.Comm, source: int, tag: int = _TAG) -> tuple[MPI.Message, MPI.Status] | None:
    status = MPI.Status()
    message = comm.Improbe(source=source, tag=tag, status=status)
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
    return _memory(_HEADER + 4 * floats, _TEXT_LIMIT)


def _memory(size: int, more: int = 0) -> Bytes:
    # numpy asks for huge pages where an array has 4 MiB. From those the kernel copies a delta to another process in two
    # thirds of the time.
    room = size + more
    return np.empty(max(room, _HUGE) if size >= _HUGE // 4 else room, dtype=np.uint8)[:room]


@dataclass(frozen=True, slots=True)
class _Peer:
    """Where a node is."""

    comm: MPI.Comm
    rank: int


_Found = tuple[int, _Peer, tuple[MPI.Message, MPI.Status]]


def _in_words(error: MPI.Exception, other: str) -> str:
    """What went wrong in dealing with another rank."""
    if error.Get_error_class() in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING):
        return f"{other} has died"
    return f"MPI: {error}"


class MPIMaster(BaseMasterPort):
    """The master's end, rank 0; with several masters, the end of rank `master`.

    Args:
        nodes: So many ranks after the masters' are workers.
        dim: Length of v, or of this master's slice of it.
        state_dim: Length of a node's optimiser state.
        run_id: Number that all messages of this run carry.
        limits: Patience.
        spares: Ranks after them that wait to replace one.
        replacement: Command that starts node n on this host in the place of a lost one, given n; None if none can be.
        encoding: Of what is new in v.
        masters: Ranks that are masters.
        master: Which of them this is.
        overlapping: Nodes go on while they wait for an answer, so that it may be late: when nothing comes, the master
            soon looks every 20 ms only. 500 looks a second take 4 % of a core.
    """

    def __init__(
        self,
        nodes: int,
        dim: int,
        state_dim: int,
        run_id: int,
        limits: Limits,
        *,
        spares: int = 0,
        replacement: Callable[[int], Sequence[str]] | None = None,
        encoding: Encoding = Encoding.FLOAT32,
        masters: int = 1,
        master: int = 0,
        overlapping: bool = False,
    ) -> None:
        super().__init__(nodes, limits, spares=spares, leads=master == 0)
        self._masters = masters
        self._run_id = run_id
        self._dim = dim
        self._state_dim = state_dim
        self._inbox = _buffer(max(dim, state_dim))
        self._peers = {node: _Peer(MPI.COMM_WORLD, node + masters) for node in range(nodes + spares)}
        self._dead_ranks: set[int] = set()  # of the world
        self._died: deque[tuple[int, str]] = deque()
        self._sending: deque[tuple[int, MPI.Request, Bytes]] = deque()
        # What was under way to the dead: MPI may still look there.
        self._graveyard: list[tuple[MPI.Request, Bytes]] = []
        self._serving = Serving(encoding)
        self._decoded: Vector | None = None
        self._spawning = None if replacement is None else _Spawning(replacement)
        self._backoff = unhurried if overlapping else Backoff
        self._idle = self._backoff()  # since the last message

    def _receive(self) -> Message | None:
        began_at = time.monotonic()
        found = self._next_message()
        # Not only what the back-off sleeps: where cores are few, MPI gives its own away while it looks in vain.
        self._slept_s += time.monotonic() - began_at
        if found is None or isinstance(found, Message):
            return found
        node, peer, message = found
        who = f"node {node}"
        try:
            data = _take(message, self._inbox, self._limits.silence_s, who)
        except MPI.Exception:
            self._bury(node)
            return None
        if self._peers.get(node) != peer:  # the last words of one that has died: it may have a successor by now
            return None
        frame = decode(data, self._run_id, who)
        kind = frame.kind
        expected = {Kind.PUSH: self._dim, Kind.KEEP: self._state_dim, Kind.LEAVE: self._state_dim}.get(kind)
        if frame.numbers.dim != (expected or 0):
            raise TransportError(f"{who}: {kind.name} with {frame.numbers.dim} numbers, must be {expected or 0}")
        vector = None if expected is None else self._decode(frame.numbers)
        return Message(kind, node, frame.since, vector, frame.text, frame.number, data.size)

    def _decode(self, numbers: Encoded) -> Vector:
        """Valid until the next message."""
        if numbers.encoding is Encoding.FLOAT32:
            return numbers.decode()
        if self._decoded is None or self._decoded.size != numbers.dim:
            self._decoded = np.empty(numbers.dim, np.float32)
        return numbers.decode(self._decoded)

    def _next_message(self) -> Message | _Found | None:
        deadline = time.monotonic() + _MASTER_TICK_S
        while True:
            if self._died:
                node, why = self._died.popleft()
                return Message(Kind.DIED, node, text=why.encode())
            self._welcome()
            if (found := self._probe_world() or self._probe_spawned()) is not None:
                self._idle = self._backoff()
                return found
            self._look_after_sends()
            _sleep(self._idle, LAST_S if self._sending else None)  # MPI goes on with what it sends when it is asked
            if time.monotonic() > deadline:  # after the sleep: the next call looks at once
                return None

    def _probe_world(self) -> _Found | None:
        try:
            # Open MPI looks among the messages that it has, and only then for more: what that brings, a second call
            # sees. Without it, each message would wait for the sleep after it has come.
            found = _probe(MPI.COMM_WORLD, MPI.ANY_SOURCE) or _probe(MPI.COMM_WORLD, MPI.ANY_SOURCE)
        except MPI.Exception as error:
            self._count_the_dead(error)
            return None
        if found is None:
            return None
        rank = found[1].Get_source()
        return rank - self._masters, _Peer(MPI.COMM_WORLD, rank), found

    def _probe_spawned(self) -> _Found | None:
        for node, peer in self._peers.items():
            if peer.comm is not MPI.COMM_WORLD:
                try:
                    found = _probe(peer.comm, peer.rank)
                except MPI.Exception:
                    self._bury(node)
                    return None
                if found is not None:
                    return node, peer, found
        return None

    def _count_the_dead(self, error: MPI.Exception) -> None:
        """Some rank of the world has died: find out which, and let calls for any source work again."""
        if error.Get_error_class() not in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING):
            raise TransportError(f"MPI: {error}") from None
        world = MPI.COMM_WORLD
        world.Ack_failed()
        failed = world.Get_failed()
        ranks = MPI.Group.Translate_ranks(failed, list(range(failed.Get_size())), world.Get_group())
        for rank in set(ranks) - self._dead_ranks:
            self._dead_ranks.add(rank)
            self.unscathed = False
            node = rank - self._masters  # below 0: another master, whose link tells
            peer = self._peers.get(node)
            if peer is not None and peer.comm is world:
                self._bury(node)

    def _bury(self, node: int) -> None:
        """Its death is the next message."""
        self._forget(node)
        self._died.append((node, _DIED))

    def _welcome(self) -> None:
        """Take in what the thread that spawns has brought."""
        if self._spawning is None or (came := self._spawning.come()) is None:
            return
        node, result = came
        if isinstance(result, str):
            self._died.append((node, result))
        else:
            self._peers[node] = _Peer(result, 0)

    def _forget(self, node: int) -> None:
        self._peers.pop(node, None)
        self.unscathed = False

    def _replace(self, node: int) -> bool:
        if self._spawning is None:
            return False
        self.unscathed = False
        self._spawning.start(node)
        return True

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        if pulled is None:
            self._send(node, Kind.STOPPED)
            return
        answer = self._serving.answer(pulled.v, pulled.t, self._has[node])
        numbers, kind = answer.numbers, _ANSWERS[answer.what]
        head = np.empty(_HEADER, dtype=np.uint8)
        encode(head, self._run_id, kind, since=pulled.t, number=pulled.rate_scale, vector=numbers, text=b"")
        self._isend(node, head)
        self._v_bytes[node] = head.size
        if numbers is not None:
            self._isend(node, numbers.data, _NUMBERS_TAG)
            self._v_bytes[node] += numbers.data.size

    def _say_stop(self) -> None:
        for node in list(self._peers):
            self._send(node, Kind.STOP)

    def _send(self, node: int, kind: Kind) -> None:
        data = np.empty(_HEADER, dtype=np.uint8)
        number = float(self.unscathed)  # whether all may leave MPI in good order
        self._isend(node, encode(data, self._run_id, kind, number=number, vector=None, text=b""))

    def _isend(self, node: int, data: Bytes, tag: int = _TAG) -> None:
        peer = self._peers.get(node)
        if peer is None:  # it has died, and the base class will hear of it next
            return
        try:
            request = peer.comm.Isend([data, MPI.BYTE], dest=peer.rank, tag=tag)
        except MPI.Exception:
            self._bury(node)
        else:
            self._sending.append((node, request, data))
            if len(self._sending) > _MOST_SENDS * len(self._peers):  # a master that is never idle
                for _ in range(len(self._sending)):
                    self._look_after_sends()

    def _look_after_sends(self) -> None:
        """Let go of what has gone out, up to the first that has not: that one is last in the queue then.

        MPI may sleep for a millisecond when it is asked for something that is not done: once is enough.
        """
        while self._sending:
            node, request, data = self._sending.popleft()
            try:
                if request.Test():
                    continue
            except MPI.Exception:
                self._graveyard.append((request, data))
                continue
            if node in self._peers:
                self._sending.append((node, request, data))
                return
            self._graveyard.append((request, data))

    def flush(self) -> None:
        """Wait until everything sent to nodes that live has gone."""
        patience = Patience(self._limits.silence_s)
        backoff = Backoff()
        while self._sending:
            self._look_after_sends()
            if patience.left_s() <= 0:
                raise TransportError(f"master: sending: not done after {self._limits.silence_s:.0f} s")
            _sleep(backoff)


class _Spawning:
    """Starts nodes on this host: a thread of its own waits for MPI, one node after the other."""

    def __init__(self, command: Callable[[int], Sequence[str]]) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._came: deque[tuple[int, MPI.Comm | str]] = deque()

    def start(self, node: int) -> None:
        """Begin to start this node."""
        threading.Thread(target=self._spawn, args=(node,), name=f"spawn-{node}", daemon=True).start()

    def come(self) -> tuple[int, MPI.Comm | str] | None:
        """A node that has come: what joins it to the master, or why it did not come."""
        return self._came.popleft() if self._came else None

    def _spawn(self, node: int) -> None:
        with self._lock:
            try:
                program, *arguments = self._command(node)
                comm = MPI.COMM_SELF.Spawn(program, args=arguments, maxprocs=1)
            except Exception as error:
                self._came.append((node, f"cannot be replaced: {error}"))
            else:
                self._came.append((node, comm))


class MPIWorker(BaseWorkerPort):
    """A node's end, rank `node` + `masters`; arguments as for `MPIMaster`.

    Args:
        spawned: This node was started in the place of another: the master is in its parents' world.
        encoding: Of deltas.
    """

    def __init__(
        self,
        node: int,
        dim: int,
        state_dim: int,
        run_id: int,
        limits: Limits,
        *,
        spawned: bool = False,
        encoding: Encoding = Encoding.FLOAT32,
        masters: int = 1,
        master: int = 0,
    ) -> None:
        super().__init__(node, limits, encoding, master="the master" if masters == 1 else f"master {master}")
        self._master_rank = master
        self._comm: MPI.Comm = MPI.Comm.Get_parent() if spawned else MPI.COMM_WORLD
        self.unscathed = not spawned
        """Whether no rank has died and none was spawned, as far as the master has said; see `finish`."""
        self._run_id = run_id
        self._dim = dim
        self._outbox = _buffer(max(dim, state_dim))
        self._v = _memory(4 * dim).view(np.float32)  # as of the last pull
        self._control = np.empty(_HEADER, dtype=np.uint8)
        self._stop_said = False
        self._sending_s: dict[Kind, float] = {}  # how long the last message of a kind took
        self._waiting_s = 0.0  # and the last answer

    def stopping(self) -> bool:
        """See `Listener.stopping`."""
        if not self._stop_said and (frame := self._poll()) is not None:
            if frame.kind is not Kind.STOP:
                raise TransportError(f"node {self._node}: {frame.kind.name} from {self._master}, unasked")
            self._stop_said = True
        return self._stop_said

    def _say_master_died(self, error: MPI.Exception) -> TransportError:
        return TransportError(f"node {self._node}: {_in_words(error, self._master)}")

    def _post(
        self, kind: Kind, *, since: int = 0, vector: Encoded | None = None, text: bytes = b"", number: float = 0.0
    ) -> Callable[[], None]:
        data = encode(self._outbox, self._run_id, kind, since=since, number=number, vector=vector, text=text)
        try:
            request = self._comm.Isend([data, MPI.BYTE], dest=self._master_rank, tag=_TAG)
        except MPI.Exception as error:
            raise self._say_master_died(error) from None

        def wait() -> None:
            what = f"node {self._node}: sending {kind.name} to {self._master}"
            try:
                took_s = _wait(request.Test, self._limits.silence_s, what, expecting(self._sending_s.get(kind, 0.0)))
            except MPI.Exception as error:
                raise self._say_master_died(error) from None
            self._sending_s[kind] = took_s

        return wait

    def _receive_answer(self, limit_s: float) -> tuple[bool, Pulled | None]:
        began_at = time.monotonic()
        patience = Patience(limit_s)
        backoff = expecting(self._waiting_s)
        while patience.left_s() > 0:
            frame = self._poll()
            if frame is None:
                _sleep(backoff)
            elif frame.kind is Kind.STOP:
                self._stop_said = True
            elif frame.kind is Kind.STOPPED:
                self.unscathed = self.unscathed and frame.number == 1.0
                return True, None
            else:
                self._waiting_s = time.monotonic() - began_at
                self._take_in(frame)
                return True, Pulled(self._v, frame.since, frame.number)
        return False, None

    def _take_in(self, frame: Frame) -> None:
        """Bring v up to date with an answer."""
        who, numbers = f"node {self._node}", frame.numbers
        if frame.kind is Kind.V:
            if numbers.encoding is not Encoding.FLOAT32:
                raise TransportError(f"{who}: the whole v in {numbers.encoding.name}, must be FLOAT32")
            self._receive_numbers(self._v.view(np.uint8))
        elif self._last_t is None or (frame.kind is Kind.V_SAME and frame.since != self._last_t):
            raise TransportError(
                f"{who}: {frame.kind.name} of t={frame.since} from {self._master}, last t={self._last_t}"
            )
        elif frame.kind is Kind.V_STEP:
            data = np.empty(numbers.encoding.size(numbers.dim), dtype=np.uint8)
            self._receive_numbers(data)
            follow(self._v, Encoded(numbers.encoding, numbers.dim, data))

    def _receive_numbers(self, data: Bytes) -> None:
        what = f"node {self._node}: receiving {data.size} bytes of v"
        status = MPI.Status()
        try:
            request = self._comm.Irecv([data, MPI.BYTE], source=self._master_rank, tag=_NUMBERS_TAG)
            _wait(lambda: request.Test(status), self._limits.silence_s, what)
        except MPI.Exception as error:
            raise self._say_master_died(error) from None
        if status.Get_count(MPI.BYTE) != data.size:
            raise TransportError(f"{what}: there were {status.Get_count(MPI.BYTE)}")

    def _poll(self) -> Frame | None:
        who = f"node {self._node}"
        try:
            found = _probe(self._comm, self._master_rank)
            if found is None:
                return None
            data = _take(found, self._control, self._limits.silence_s, who)
        except MPI.Exception as error:
            raise self._say_master_died(error) from None
        frame = decode(data, self._run_id, who)
        if frame.kind in _APART and frame.numbers.dim != self._dim:
            raise TransportError(f"{who}: v has {frame.numbers.dim} numbers, must be {self._dim}")
        return frame


class MPILink(Link):
    """What joins two masters; see `hsa2c.dpsgd.sharded`.

    Args:
        rank: The other's.
        run_id: Number that all messages of this run carry.
        limits: Patience.
    """

    def __init__(self, rank: int, run_id: int, limits: Limits) -> None:
        self._rank = rank
        self._run_id = run_id
        self._limits = limits
        self._sending: list[tuple[MPI.Request, Bytes]] = []
        self._other = f"master {rank}"

    def send(
        self, kind: Kind, *, since: int = 0, vector: Vector | None = None, text: bytes = b"", number: float = 0.0
    ) -> None:
        """See `Link.send`."""
        room = np.empty(_HEADER + 4 * (0 if vector is None else vector.size) + len(text), dtype=np.uint8)
        numbers = None if vector is None else plain(vector)
        data = encode(room, self._run_id, kind, since=since, number=number, vector=numbers, text=text)
        try:
            request = MPI.COMM_WORLD.Isend([data, MPI.BYTE], dest=self._rank, tag=_TO_MASTERS_TAG)
        except MPI.Exception as error:
            raise TransportError(_in_words(error, self._other)) from None
        self._sending.append((request, data))

    def poll(self) -> Message | None:
        """See `Link.poll`."""
        try:
            self._sending = [(request, data) for request, data in self._sending if not request.Test()]
            found = _probe(MPI.COMM_WORLD, self._rank, _TO_MASTERS_TAG)
            if found is None:
                return None
            data = np.empty(found[1].Get_count(MPI.BYTE), dtype=np.uint8)
            _take(found, data, self._limits.silence_s, self._other)
        except MPI.Exception as error:
            raise TransportError(_in_words(error, self._other)) from None
        frame = decode(data, self._run_id, self._other)
        return Message(frame.kind, self._rank, frame.since, frame.numbers.decode(), frame.text, frame.number)

    def flush(self) -> None:
        """Wait until everything sent has gone."""
        try:
            done = lambda: all(request.Test() for request, _ in self._sending)  # noqa: E731
            _wait(done, self._limits.silence_s, f"sending to {self._other}")
        except MPI.Exception as error:
            raise TransportError(_in_words(error, self._other)) from None
