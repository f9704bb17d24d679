"""What joins two masters over MPI."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import TransportError
from hsa2c.transport.codec import plain
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.mpi.calls import in_words, probe, take, wait_until
from hsa2c.transport.mpi.frames import HEADER, Bytes, decode, encode
from hsa2c.transport.several_masters.link import MasterLink

_TO_MASTERS_TAG = 3


class MPILink(MasterLink):
    """What joins two masters; see `hsa2c.transport.several_masters`.

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
        """See `MasterLink.send`."""
        room = np.empty(HEADER + 4 * (0 if vector is None else vector.size) + len(text), dtype=np.uint8)
        numbers = None if vector is None else plain(vector)
        data = encode(room, self._run_id, kind, since=since, number=number, vector=numbers, text=text)
        try:
            request = MPI.COMM_WORLD.Isend([data, MPI.BYTE], dest=self._rank, tag=_TO_MASTERS_TAG)
        except MPI.Exception as error:
            raise TransportError(in_words(error, self._other)) from None
        self._sending.append((request, data))

    def poll(self) -> Message | None:
        """See `MasterLink.poll`."""
        try:
            self._sending = [(request, data) for request, data in self._sending if not request.Test()]
            found = probe(MPI.COMM_WORLD, self._rank, _TO_MASTERS_TAG)
            if found is None:
                return None
            data = np.empty(found[1].Get_count(MPI.BYTE), dtype=np.uint8)
            take(found, data, self._limits.silence_s, self._other)
        except MPI.Exception as error:
            raise TransportError(in_words(error, self._other)) from None
        frame = decode(data, self._run_id, self._other)
        return Message(frame.kind, self._rank, frame.since, frame.numbers.decode(), frame.text, frame.number)

    def flush(self) -> None:
        """Wait until everything sent has gone."""
        try:
            done = lambda: all(request.Test() for request, _ in self._sending)  # noqa: E731
            wait_until(done, self._limits.silence_s, f"sending to {self._other}")
        except MPI.Exception as error:
            raise TransportError(in_words(error, self._other)) from None
