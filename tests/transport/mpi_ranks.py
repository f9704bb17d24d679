"""All conformance checks over MPI, in one launch: ``mpiexec -n 4 python -m tests.transport.mpi_ranks FOLDER``.

Each rank writes a JSON line for each check into a file of its own in FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.node.lifetime import die_with_parent
from hsa2c.transport import mpi
from hsa2c.transport.several_masters import ShardedWorkerPort, follow, parts
from tests.dpsgd.waiting import wait_until
from tests.transport.conformance import Check, checks

_CUE_TAG = 1  # ports use 0


class MPICues:
    """Cues as empty messages with a tag that ports do not look at."""

    def give(self, to: int) -> None:
        request = MPI.COMM_WORLD.Isend([np.empty(0, np.uint8), MPI.BYTE], dest=to + 1, tag=_CUE_TAG)
        wait_until(request.Test, "a cue to go out")

    def take(self, source: int) -> None:
        request = MPI.COMM_WORLD.Irecv([np.empty(0, np.uint8), MPI.BYTE], source=source + 1, tag=_CUE_TAG)
        wait_until(request.Test, f"a cue of {source}")


def play(check: Check, rank: int, run_id: int) -> None:
    """This rank's part of a check."""
    masters = check.masters
    own = [part.stop - part.start for part in parts(check.node_dim or check.dim, masters)]
    if rank < masters:
        make_port = lambda size, state_dim: mpi.MPIMaster(
            check.nodes,
            size,
            state_dim,
            run_id,
            check.limits,
            encoding=check.encoding,
            masters=masters,
            master=rank,
        )
        others = range(1, masters) if rank == 0 else [0]
        links = [mpi.MPILink(other, run_id, check.limits) for other in others]
        if rank == 0:
            master = make_port(check.dim if masters == 1 else own[0], check.state_dim)
            check.links = links
            check.master(master, MPICues())
            master.flush()
        else:
            make_step = lambda size: GlobalStep(1.0, 0.0, size)
            assert follow(links[0], lambda size: make_port(size, 0), make_step, 1, limits=check.limits)
        for link in links:
            link.flush()
    elif rank < masters + check.nodes:
        node = rank - masters
        ports = [
            mpi.MPIWorker(
                node,
                size,
                0 if k else check.state_dim,
                run_id + check.foreign,
                check.limits,
                encoding=check.encoding,
                masters=masters,
                master=k,
            )
            for k, size in enumerate(own)
        ]
        check.node(node, ports[0] if masters == 1 else ShardedWorkerPort(ports, check.dim), MPICues())


def meet() -> None:
    """Wait for every rank, without burning a core."""
    wait_until(MPI.COMM_WORLD.Ibarrier().Test, "all ranks", 120.0)


def sweep() -> None:
    """Throw away what a check left on its way, so that the next one starts clean."""
    meet()
    quiet_at = time.monotonic()
    while time.monotonic() - quiet_at < 0.01:
        status = MPI.Status()
        message = MPI.COMM_WORLD.Improbe(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
        if message is None:
            time.sleep(0.001)
        else:
            message.Recv([np.empty(status.Get_count(MPI.BYTE), np.uint8), MPI.BYTE])
            quiet_at = time.monotonic()
    meet()


def main(folder: Path) -> None:
    """Play all."""
    die_with_parent(os.getppid())
    rank, _ = mpi.start()
    with (folder / f"{rank}.jsonl").open("w", encoding="utf-8") as file:
        for number, (name, check) in enumerate(checks("mpi").items()):
            began_at, error = time.monotonic(), None
            try:
                play(check(), rank, 1000 * number)
            except BaseException:
                error = traceback.format_exc()
            line = {"check": name, "rank": rank, "error": error, "seconds": time.monotonic() - began_at}
            print(json.dumps(line), file=file, flush=True)
            sweep()
    mpi.finish()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
