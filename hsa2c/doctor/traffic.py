"""Ranks over MPI, the master and one on each host: clocks, latency, bandwidth, and what an exchange costs the master.

``python -m hsa2c.doctor.traffic TASK``, started by mpiexec. No torch here.
"""

from __future__ import annotations

import os
import sys

from hsa2c.cluster.machine import cap_threads, keep_freed_memory

cap_threads()  # before numpy is loaded below
keep_freed_memory()

import json  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

import numpy as np  # noqa: E402

from hsa2c.cluster import loopback  # noqa: E402
from hsa2c.doctor.probe_output import sign, tell  # noqa: E402
from hsa2c.dpsgd.master import master  # noqa: E402
from hsa2c.dpsgd.protocols import Monitor, Push, Vector  # noqa: E402
from hsa2c.dpsgd.steps import GlobalStep  # noqa: E402
from hsa2c.errors import HSA2CError, TransportError  # noqa: E402
from hsa2c.node.lifetime import die_with_parent  # noqa: E402
from hsa2c.transport.codec import Encoding  # noqa: E402
from hsa2c.transport.messages import Kind, Limits, Message  # noqa: E402

if TYPE_CHECKING:
    from hsa2c.transport.mpi.link import MPILink

_HELLO_S = 15.0
_ANSWER_S = 20.0  # a vector over the slowest network that one would train over
_PINGS = 20
_TRIPS = 9
_TRIPS_S = 2.0  # no more trips of one host's after so long
_EXCHANGING_S = 2.0
_LOOK_S = 50e-6


def main(task: dict[str, Any]) -> None:
    """Be the master, or a host's rank.

    Args:
        task: ``dim`` of v, ``run_id``, ``delta_dtype``, ``ranks``, and ``alone``: whether all are on this machine, so
            that nobody else may connect.
    """
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))
    die_with_parent(os.getppid())
    sign(rank, "started")
    from hsa2c.transport import mpi

    rank, size = mpi.start()
    if task["alone"]:
        loopback.listening(os.getpid(), confining=True)
    sign(rank, "connected")
    if size != task["ranks"]:
        tell({"done": True, "library": mpi.library(), "ranks": size, "survives": False})
        return
    unscathed = _lead(task) if rank == 0 else _follow(task, rank)
    if unscathed:
        mpi.finish()


# The master's side.


def _lead(task: dict[str, Any]) -> bool:
    from hsa2c.transport import mpi

    limits = Limits(start_s=_ANSWER_S, silence_s=_ANSWER_S)
    tell({"library": mpi.library(), "ranks": task["ranks"], "survives": mpi.survives()})
    links = {rank: mpi.MPILink(rank, task["run_id"], limits) for rank in range(1, task["ranks"])}
    v = np.random.default_rng(0).standard_normal(task["dim"], dtype=np.float32)
    whole = True
    for rank, link in links.items():
        try:
            _await(link, _HELLO_S)
            tell({"rank": rank, **_clock(link), **_trips(link, v)})
        except TransportError as error:
            whole = False
            tell({"rank": rank, "error": str(error)})
        sign(0, "goes-on")
    for link in links.values():
        if whole:
            link.send(Kind.STOP)
    if whole:
        try:
            tell({"done": True, **_capacity(task, v, limits)})
            return True
        except TransportError as error:
            tell({"done": True, "error": str(error)})
            return False
    tell({"done": True})
    return False


def _await(link: MPILink, limit_s: float) -> Message:
    deadline = time.monotonic() + limit_s
    while (message := link.poll()) is None:
        if time.monotonic() > deadline:
            raise TransportError(f"no answer within {limit_s:.0f} s")
        time.sleep(_LOOK_S)
    return message


def _clock(link: MPILink) -> dict[str, float]:
    """Latency, and how much the other's clock is ahead: between a question and its answer it was half a round trip
    after the first, more or less by as much.
    """
    seen = []
    for _ in range(_PINGS):
        asked_at, began = time.time(), time.monotonic()
        link.send(Kind.TELL)
        theirs = _await(link, _ANSWER_S).number
        trip_s = time.monotonic() - began
        seen.append((trip_s, theirs - asked_at - trip_s / 2))
    fastest_s, ahead_s = min(seen)
    return {
        "latency_s": statistics.median(trip_s for trip_s, _ in seen) / 2,
        "ahead_s": ahead_s,
        "ahead_error_s": fastest_s / 2,
    }


def _trips(link: MPILink, v: Vector) -> dict[str, float]:
    """Median time of a vector there and back, the first left out if there are more."""
    times: list[float] = []
    ends_at = time.monotonic() + _TRIPS_S
    while not times or (len(times) < _TRIPS and time.monotonic() < ends_at):
        began = time.monotonic()
        link.send(Kind.SLICE, vector=v)
        _await(link, _ANSWER_S)
        times.append(time.monotonic() - began)
    return {"trip_s": statistics.median(times[1:] or times)}


def _capacity(task: dict[str, Any], v: Vector, limits: Limits) -> dict[str, Any]:
    """Algorithm 1 with nodes that do nothing but exchange: the master's processor time for it, and theirs."""
    from hsa2c.transport import mpi

    nodes = task["ranks"] - 1
    port = mpi.MPIMaster(nodes, v.size, 0, task["run_id"], limits, encoding=Encoding[task["delta_dtype"].upper()])
    monitor = _Count(_EXCHANGING_S)
    if port.assemble(monitor):
        monitor = _Count(_EXCHANGING_S)
        master(v, GlobalStep(1.0 / nodes, 0.0, v.size), port, monitor, nodes)
        port.flush()
    return {"exchanges": monitor.exchanges, **monitor.result}


class _Count(Monitor):
    """Counts exchanges for some seconds."""

    def __init__(self, seconds: float) -> None:
        self._began_at, self._cpu_s = time.monotonic(), time.process_time()
        self._ends_at = self._began_at + seconds
        self._nodes_cpu_s: dict[int, tuple[float, float]] = {}
        self.exchanges = 0
        self.result: dict[str, float] = {}

    def stopping(self) -> bool:
        """See `Monitor.stopping`; also measures."""
        now = time.monotonic()
        if now < self._ends_at:
            return False
        if not self.result and self.exchanges:
            self.result = {
                "exchanges_per_s": self.exchanges / (now - self._began_at),
                "master_s": (time.process_time() - self._cpu_s) / self.exchanges,
                "node_s": sum(last - first for first, last in self._nodes_cpu_s.values()) / self.exchanges,
            }
        return True

    def heard(self, node: int, report: bytes) -> None:
        """A node's processor time, in seconds."""
        cpu_s = json.loads(report)[0]
        self._nodes_cpu_s[node] = (self._nodes_cpu_s.get(node, (cpu_s, cpu_s))[0], cpu_s)

    def received(self, push: Push, tau: int) -> None:
        """See `Monitor.received`."""
        if not self.result:
            self.exchanges += 1

    def lost(self, node: int, why: str) -> None:
        """That is no measurement."""
        raise TransportError(f"node {node}: {why}")

    def refused(self, node: int, why: str) -> None:
        """That is none, either."""
        raise TransportError(f"node {node}: {why}")


# A host's side.


def _follow(task: dict[str, Any], rank: int) -> bool:
    from hsa2c.transport import mpi

    limits = Limits(start_s=_ANSWER_S, silence_s=_ANSWER_S)
    link = mpi.MPILink(0, task["run_id"], limits)
    link.send(Kind.TELL)
    while (message := _await(link, _HELLO_S + _ANSWER_S * task["ranks"])).kind is not Kind.STOP:
        if message.kind is Kind.SLICE:
            link.send(Kind.SLICE, vector=message.vector)
        else:
            link.send(Kind.TELL, number=time.time())
    delta = 1e-3 * np.random.default_rng(rank).standard_normal(task["dim"], dtype=np.float32)
    encoding = Encoding[task["delta_dtype"].upper()]
    port = mpi.MPIWorker(rank - 1, delta.size, 0, task["run_id"], limits, encoding=encoding)
    while (pulled := port.pull()) is not None:
        port.push(delta, since=pulled.t, report=json.dumps([time.process_time()]).encode())
    port.leave(np.zeros(0, np.float32))
    return True


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except HSA2CError as error:
        print(error, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
