"""Many simulations side by side, each in a process of its own: they need the processor and nothing of each other."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from hsa2c import signals
from hsa2c.errors import HSA2CError
from hsa2c.simulation import forking
from hsa2c.simulation.planning import Bound, Cluster, Outcome, simulate

_FORK = multiprocessing.get_context("fork")  # a child has its cluster in memory, so that nothing need be sent to it
_LOOK_S = 0.2  # at least so often `progress` is told


@dataclass
class Progress:
    """How far all of them are; clusters by their index."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """Of those that have ended, in the order in which they did."""
    shares: dict[int, float] = field(default_factory=dict)
    """Of those that have begun: how much of the longest that it may take is done, from 0 to 1."""


def simulate_all(clusters: Sequence[Cluster], jobs: int, progress: Callable[[Progress], None]) -> list[Outcome]:
    """Let each cluster work for a while; in which process, and when, makes no difference to what is seen.

    Args:
        clusters: What to simulate.
        jobs: How many at the same time, at least 1.
        progress: Told whenever one has ended, and a few times a second.

    Returns:
        Outcomes in the order of the clusters.

    Raises:
        HSA2CError: A process has died.
    """
    # The longest first: otherwise one begins when all others have ended.
    left = sorted(range(len(clusters)), key=lambda index: clusters[index].nodes)
    at_work: dict[Connection, tuple[int, BaseProcess]] = {}
    state = Progress()
    try:
        while left or at_work:
            while left and len(at_work) < jobs:
                index = left.pop()
                at_work.update([_begin(index, clusters[index])])
            for connection in wait(list(at_work), _LOOK_S):
                assert isinstance(connection, Connection)
                index, process = at_work[connection]
                found = _read(connection, process, clusters[index])
                if isinstance(found, Outcome):
                    state.outcomes[index], state.shares[index] = found, 1.0
                    del at_work[connection]
                    _end(connection, process)
                else:
                    state.shares[index] = found
            progress(state)
    finally:
        for connection, (_, process) in at_work.items():
            process.kill()
            _end(connection, process)
    return [state.outcomes[index] for index in range(len(clusters))]


def _begin(index: int, cluster: Cluster) -> tuple[Connection, tuple[int, BaseProcess]]:
    ours, its = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_simulate, args=(cluster, its, os.getpid()), daemon=True)
    try:
        forking.start(process, "simulate in")
    finally:
        its.close()
    return ours, (index, process)


def _simulate(cluster: Cluster, connection: Connection, parent: int) -> None:
    """What a child does: it sends how far it is, and the outcome."""
    signals.to_default()
    forking.hear_stops()

    def progress(done: float) -> None:
        if os.getppid() != parent:  # it was killed, and nobody waits for the outcome
            os._exit(1)
        connection.send_bytes(json.dumps(done).encode())

    connection.send_bytes(json.dumps(asdict(simulate(cluster, progress))).encode())


def _read(connection: Connection, process: BaseProcess, cluster: Cluster) -> float | Outcome:
    """What a child has sent."""
    try:
        found = json.loads(connection.recv_bytes())
    except (EOFError, ConnectionError):
        process.join()
        raise HSA2CError(
            f"the simulation of {cluster.nodes:,} nodes, B = {cluster.B}, masters = {cluster.masters} has died:"
            f" exit code {process.exitcode}"
        ) from None
    if isinstance(found, float):
        return found
    return Outcome(**{**found, "limit": Bound(**found["limit"])})


def _end(connection: Connection, process: BaseProcess) -> None:
    connection.close()
    process.join()
    process.close()
