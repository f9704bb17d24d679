"""A rank of `bench.capacity`: the master as it is, or a node that does nothing but exchange. No torch here."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hsa2c.cluster.machine import cap_threads, keep_freed_memory

cap_threads()
keep_freed_memory()

import numpy as np  # noqa: E402
import psutil  # noqa: E402

from hsa2c.dpsgd import master as algorithm_1  # noqa: E402
from hsa2c.dpsgd.protocols import Monitor, Push, Vector  # noqa: E402
from hsa2c.dpsgd.steps import GlobalStep, constant_factor_rho  # noqa: E402
from hsa2c.node.lifetime import die_with_parent  # noqa: E402
from hsa2c.transport import mpi  # noqa: E402
from hsa2c.transport.codec import Encoded, Encoding, Feedback  # noqa: E402
from hsa2c.transport.master_port import BaseMasterPort  # noqa: E402
from hsa2c.transport.messages import Limits  # noqa: E402
from hsa2c.transport.mpi import calls  # noqa: E402
from hsa2c.transport.mpi import master as mpi_master  # noqa: E402
from hsa2c.transport.mpi import worker as mpi_worker  # noqa: E402
from hsa2c.transport.v_delta import Serving  # noqa: E402

WARM_UP_S = 1.0
_MEMORY_EVERY_S = 0.5
_RUN_ID = 1


class Split:
    """CPU time of this thread by what it was for; what is inside counts only there."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    def of(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            began_at = time.thread_time()
            self._inside.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                took = time.thread_time() - began_at
                self.seconds[name] += took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        return timed

    def measure(self, parts: Iterable[tuple[str, Any, str]]) -> None:
        """Time these functions, by patching their owners: the product has no such clocks."""
        for name, owner, attribute in parts:
            setattr(owner, attribute, self.of(name, getattr(owner, attribute)))


class CapacityMonitor(Monitor):
    """Counts exchanges between the end of the warm-up and the end."""

    def __init__(self, seconds: float, split: Split) -> None:
        self._begins_at = time.monotonic() + WARM_UP_S
        self._ends_at = self._begins_at + seconds
        self._memory_at = self._begins_at
        self._split = split
        self._began: dict[str, float] | None = None
        self._nodes: dict[int, tuple[dict[str, float], dict[str, float]]] = {}
        self.exchanges = self.steps = self.delta_bytes = self.v_bytes = 0
        self.peak_mib = 0.0
        self.result: dict[str, Any] = {}

    def stopping(self) -> bool:
        """See `Monitor.stopping`; also measures."""
        now = time.monotonic()
        if self._began is None and now >= self._begins_at:
            self._split.seconds.clear()
            self.exchanges = self.steps = self.delta_bytes = self.v_bytes = 0
            self._began = {"wall": now, "cpu": time.process_time()}
        if now >= self._memory_at:
            self.peak_mib = max(self.peak_mib, pss_mib())
            self._memory_at = now + _MEMORY_EVERY_S
        if now < self._ends_at:
            return False
        if not self.result and self._began is not None:
            self.result = {
                "seconds": now - self._began["wall"],
                "cpu_s": time.process_time() - self._began["cpu"],
                "nodes_split_s": self._of_nodes(),
                "exchanges": self.exchanges,
                "delta_bytes": self.delta_bytes,
                "v_bytes": self.v_bytes,
                "global_steps": self.steps,
                "split_s": dict(self._split.seconds),
            }
        return True

    def rate_scale(self) -> float:
        """It falls with every exchange, as in a run."""
        return 1.0 / (1.0 + 1e-6 * self.exchanges)

    def heard(self, node: int, report: bytes) -> None:
        """A node's CPU time so far, in seconds, and what it was for."""
        if self._began is not None:
            spent = json.loads(report)
            self._nodes[node] = (self._nodes.get(node, (spent, spent))[0], spent)

    def _of_nodes(self) -> dict[str, float]:
        total: dict[str, float] = defaultdict(float)
        for first, last in self._nodes.values():
            for name, seconds in last.items():
                total[name] += seconds - first.get(name, 0.0)
        return dict(total)

    def received(self, push: Push, tau: int) -> None:
        """See `Monitor.received`."""
        self.exchanges += 1
        self.delta_bytes += push.delta_bytes
        self.v_bytes += push.v_bytes

    def stepped(self, t: int, v: Vector) -> None:
        """See `Monitor.stepped`."""
        self.steps += 1

    def lost(self, node: int, why: str) -> None:
        """That is no measurement."""
        raise RuntimeError(f"node {node}: {why}")

    def refused(self, node: int, why: str) -> None:
        """That is none, either."""
        raise RuntimeError(f"node {node}: {why}")


def pss_mib() -> float:
    """Proportional set size of this process: memory that is shared counts in proportion."""
    return float(psutil.Process().memory_full_info().pss / 2**20)


def main(task: dict[str, Any]) -> None:
    """Be the master, or a node."""
    die_with_parent(os.getppid())
    rank, size = mpi.start()
    limits = Limits(start_s=120.0)
    if rank == 0:
        _master(task, size - 1, limits)
    else:
        _node(task, rank - 1, limits)
    mpi.finish()


def _master(task: dict[str, Any], nodes: int, limits: Limits) -> None:
    split = Split()
    split.measure(MASTER)
    v = np.random.default_rng(0).standard_normal(task["dim"], dtype=np.float32)
    port = mpi.MPIMaster(nodes, v.size, 0, _RUN_ID, limits, encoding=Encoding[task["delta_dtype"].upper()])
    monitor = CapacityMonitor(task["seconds"], split)
    port.assemble(monitor)
    monitor = CapacityMonitor(task["seconds"], split)
    step = split.of("step", GlobalStep(constant_factor_rho(task["M"], 0.0), 0.0, v.size))
    algorithm_1.master(v, step, port, monitor, task["M"])
    port.flush()
    Path(task["result"]).write_text(json.dumps(monitor.result | {"peak_mib": monitor.peak_mib, "mpi": mpi.library()}))


MASTER = (
    ("receive", mpi_master, "take"),
    ("decode", Encoded, "decode"),
    ("serve", Serving, "answer"),
    ("finite", BaseMasterPort, "_checked"),
    ("sum", algorithm_1, "add"),
    ("send", mpi.MPIMaster, "_isend"),
    ("progress sends", mpi.MPIMaster, "_look_after_sends"),
    ("probe", mpi_master, "probe"),
    ("sleep", mpi_master, "sleep"),
    ("sleep", calls, "sleep"),
)
NODE = (
    ("round", Feedback, "encode"),
    ("write", mpi_worker, "encode"),
    ("send and receive", mpi_worker, "wait_until"),
    ("add", mpi_worker, "follow"),
    ("probe", mpi_worker, "probe"),
    ("sleep", mpi_worker, "sleep"),
    ("sleep", calls, "sleep"),
)
"""What an exchange is made of, in the words of `Split`: names, and the functions behind them."""


def _node(task: dict[str, Any], node: int, limits: Limits) -> None:
    delta = 1e-3 * np.random.default_rng(node).standard_normal(task["dim"], dtype=np.float32)
    port = mpi.MPIWorker(node, delta.size, 0, _RUN_ID, limits, encoding=Encoding[task["delta_dtype"].upper()])
    split = Split()
    split.measure(NODE)
    while (pulled := port.pull()) is not None:
        spent = {"cpu": time.process_time(), **split.seconds}
        port.push(delta, since=pulled.t, report=json.dumps(spent).encode())
    port.leave(np.zeros(0, np.float32))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
