"""How many exchanges one master can make, and what bounds it.

    python -m bench.capacity --nodes 40 --transport tcp --delta-dtype bfloat16

Nodes are MPI ranks that do nothing but push a delta of the paper's network and pull; the master is the product's. They
share this machine's cores with it, so that exchanges/s here say less than the master's CPU time for one: the first is
bounded by both, the second is what a master on a core of its own would be bounded by.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bench.testbed import machine
from hsa2c.cluster.mpiexec import mpi_starter
from hsa2c.node.lifetime import die_with_parent

_START_LIMIT_S = 180.0  # until forty ranks are there, and until they have ended


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; gives back the exit code."""
    options = _parser().parse_args(arguments)
    facts = machine.describe()
    print(machine.headline(facts), file=sys.stderr)
    runs = []
    for M in options.M:
        runs.append(measure(options, M))
        print(_text(runs[-1]), file=sys.stderr)
    if options.json:
        print(json.dumps({"machine": facts, "runs": runs}))
    return 0


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="bench.capacity", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--nodes", type=int, default=40, help="(40)")
    p.add_argument("--M", type=int, nargs="+", default=[2, 40], help="deltas in a global step (2 40)")
    p.add_argument("--transport", choices=("shm", "tcp"), default="shm", help="tcp: over loopback (shm)")
    p.add_argument("--delta-dtype", choices=("float32", "bfloat16", "int8"), default="float32")
    p.add_argument("--dim", type=int, default=676_000, help="numbers in v (676000)")
    p.add_argument("--seconds", type=float, default=10.0, help="of each measurement, after a second to warm up (10)")
    p.add_argument("--json", action="store_true")
    return p


def measure(options: argparse.Namespace, M: int) -> dict[str, Any]:
    """One run of the ranks."""
    with tempfile.TemporaryDirectory(prefix=f"hsa2c-{os.getpid()}-", dir=_shared()) as folder:
        result = Path(folder) / "result.json"
        task = {
            "dim": options.dim,
            "M": M,
            "delta_dtype": options.delta_dtype,
            "seconds": options.seconds,
            "result": str(result),
        }
        starter, extra = mpi_starter(1 + options.nodes, Path(folder))
        if options.transport == "tcp":
            extra["OMPI_MCA_btl"] = "self,tcp"
        command = [*starter, sys.executable, "-m", "bench.testbed.capacity_rank", json.dumps(task)]
        job = subprocess.Popen(
            command,
            env=os.environ | extra,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - one thread here
        )
        try:
            code = job.wait(options.seconds + _START_LIMIT_S)
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
        if code != 0:
            raise SystemExit(f"the ranks failed ({code})")
        found = json.loads(result.read_text())
    return {
        "nodes": options.nodes,
        "M": M,
        "transport": options.transport,
        "delta_dtype": options.delta_dtype,
        **summarise(found),
    }


def _shared() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


def summarise(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of one exchange, from those of all."""
    exchanges, seconds, cpu_s = found["exchanges"], found["seconds"], found["cpu_s"]
    if not exchanges:
        raise SystemExit("no exchange was made: --seconds is too short")
    of_nodes = dict(found["nodes_split_s"])
    nodes_cpu_s = of_nodes.pop("cpu")

    def split(total_s: float, parts_s: dict[str, float]) -> dict[str, float]:
        parts_ms = {name: 1e3 * spent / exchanges for name, spent in parts_s.items()}
        parts_ms["rest"] = max(0.0, 1e3 * total_s / exchanges - sum(parts_ms.values()))
        return dict(sorted(parts_ms.items(), key=lambda item: -item[1]))

    moved = found["delta_bytes"] + found["v_bytes"]
    return {
        "exchanges_per_s": exchanges / seconds,
        "global_steps_per_s": found["global_steps"] / seconds,
        "master_cpu_ms": 1e3 * cpu_s / exchanges,
        "master_busy": cpu_s / seconds,
        "node_cpu_ms": 1e3 * nodes_cpu_s / exchanges,
        "split_ms": split(cpu_s, found["split_s"]),
        "node_split_ms": split(nodes_cpu_s, of_nodes),
        "delta_bytes": found["delta_bytes"] / exchanges,
        "v_bytes": found["v_bytes"] / exchanges,
        "bytes_per_s": moved / seconds,
        "master_peak_pss_mib": found["peak_mib"],
        "mpi": found["mpi"],
    }


def _text(run: dict[str, Any]) -> str:
    master, node = (
        ", ".join(f"{name} {ms:.2f}" for name, ms in run[split].items() if ms >= 0.005)
        for split in ("split_ms", "node_split_ms")
    )
    return "\n".join(
        (
            f"{run['nodes']} nodes, M = {run['M']}, {run['transport']}, {run['delta_dtype']}: "
            f"{run['exchanges_per_s']:.0f} exchanges/s, {run['bytes_per_s'] / 1e6:.0f} MB/s",
            f"  an exchange: {run['delta_bytes'] / 1e6:.2f} MB to the master, {run['v_bytes'] / 1e6:.2f} MB back; "
            f"CPU {run['master_cpu_ms']:.2f} ms of the master, {run['node_cpu_ms']:.2f} ms of the node",
            f"  the master: busy {run['master_busy']:.0%}, at most {run['master_peak_pss_mib']:.0f} MiB (PSS)",
            f"  its CPU time, ms: {master}",
            f"  a node's: {node}",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
