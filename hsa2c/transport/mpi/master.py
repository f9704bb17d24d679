"""The master's end over MPI."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from hsa2c.dpsgd.protocols import Pulled, Vector
from hsa2c.errors import TransportError
from hsa2c.transport.backoff import LAST_S, Backoff, unhurried
from hsa2c.transport.codec import Encoded, Encoding
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.mpi.calls import NUMBERS_TAG, TAG, probe, sleep, take
from hsa2c.transport.mpi.frames import HEADER, Bytes, buffer_for, decode, encode
from hsa2c.transport.v_delta import Serving, What
from hsa2c.transport.waiting import Patience

_ANSWERS = {What.WHOLE: Kind.V, What.STEP: Kind.V_STEP, What.SAME: Kind.V_SAME}
_MOST_SENDS = 4  # for each node: what answers a pull is two messages
_MASTER_TICK_S = 5e-3
_DIED = "its process has died"


@dataclass(frozen=True, slots=True)
class _Peer:
    """Where a node is."""

    comm: MPI.Comm
    rank: int


_Found = tuple[int, _Peer, tuple[MPI.Message, MPI.Status]]


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
        self._inbox = buffer_for(max(dim, state_dim))
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
            data = take(message, self._inbox, self._limits.silence_s, who)
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
            sleep(self._idle, LAST_S if self._sending else None)  # MPI goes on with what it sends when it is asked
            if time.monotonic() > deadline:  # after the sleep: the next call looks at once
                return None

    def _probe_world(self) -> _Found | None:
        try:
            # Open MPI looks among the messages that it has, and only then for more: what that brings, a second call
            # sees. Without it, each message would wait for the sleep after it has come.
            found = probe(MPI.COMM_WORLD, MPI.ANY_SOURCE) or probe(MPI.COMM_WORLD, MPI.ANY_SOURCE)
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
                    found = probe(peer.comm, peer.rank)
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
        head = np.empty(HEADER, dtype=np.uint8)
        encode(head, self._run_id, kind, since=pulled.t, number=pulled.rate_scale, vector=numbers, text=b"")
        self._isend(node, head)
        self._v_bytes[node] = head.size
        if numbers is not None:
            self._isend(node, numbers.data, NUMBERS_TAG)
            self._v_bytes[node] += numbers.data.size

    def _say_stop(self) -> None:
        for node in list(self._peers):
            self._send(node, Kind.STOP)

    def _send(self, node: int, kind: Kind) -> None:
        data = np.empty(HEADER, dtype=np.uint8)
        number = float(self.unscathed)  # whether all may leave MPI in good order
        self._isend(node, encode(data, self._run_id, kind, number=number, vector=None, text=b""))

    def _isend(self, node: int, data: Bytes, tag: int = TAG) -> None:
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
            sleep(backoff)


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
