"""A node's end over MPI."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

from hsa2c.dpsgd.protocols import Pulled
from hsa2c.errors import TransportError
from hsa2c.transport.backoff import expecting
from hsa2c.transport.codec import Encoded, Encoding
from hsa2c.transport.messages import Kind, Limits
from hsa2c.transport.mpi.calls import NUMBERS_TAG, TAG, in_words, probe, sleep, take, wait_until
from hsa2c.transport.mpi.frames import APART, HEADER, Bytes, Frame, buffer_for, decode, encode, memory
from hsa2c.transport.v_delta import follow
from hsa2c.transport.waiting import Patience
from hsa2c.transport.worker_port import BaseWorkerPort


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
        self._outbox = buffer_for(max(dim, state_dim))
        self._v = memory(4 * dim).view(np.float32)  # as of the last pull
        self._control = np.empty(HEADER, dtype=np.uint8)
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
        return TransportError(f"node {self._node}: {in_words(error, self._master)}")

    def _post(
        self, kind: Kind, *, since: int = 0, vector: Encoded | None = None, text: bytes = b"", number: float = 0.0
    ) -> Callable[[], None]:
        data = encode(self._outbox, self._run_id, kind, since=since, number=number, vector=vector, text=text)
        try:
            request = self._comm.Isend([data, MPI.BYTE], dest=self._master_rank, tag=TAG)
        except MPI.Exception as error:
            raise self._say_master_died(error) from None

        def wait() -> None:
            what = f"node {self._node}: sending {kind.name} to {self._master}"
            try:
                took_s = wait_until(
                    request.Test, self._limits.silence_s, what, expecting(self._sending_s.get(kind, 0.0))
                )
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
                sleep(backoff)
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
            request = self._comm.Irecv([data, MPI.BYTE], source=self._master_rank, tag=NUMBERS_TAG)
            wait_until(lambda: request.Test(status), self._limits.silence_s, what)
        except MPI.Exception as error:
            raise self._say_master_died(error) from None
        if status.Get_count(MPI.BYTE) != data.size:
            raise TransportError(f"{what}: there were {status.Get_count(MPI.BYTE)}")

    def _poll(self) -> Frame | None:
        who = f"node {self._node}"
        try:
            found = probe(self._comm, self._master_rank)
            if found is None:
                return None
            data = take(found, self._control, self._limits.silence_s, who)
        except MPI.Exception as error:
            raise self._say_master_died(error) from None
        frame = decode(data, self._run_id, who)
        if frame.kind in APART and frame.numbers.dim != self._dim:
            raise TransportError(f"{who}: v has {frame.numbers.dim} numbers, must be {self._dim}")
        return frame
