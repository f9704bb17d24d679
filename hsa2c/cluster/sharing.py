"""What the nodes of a host share: how many there are, and its cores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from hsa2c.cluster.machine import cores, quota
from hsa2c.cluster.world import EXIT_RECORD

# Open MPI's mpiexec and MPICH's; Slurm's is a list, 2(x3),1, that says it of all hosts.
_COUNTS = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE")
_COUNT = re.compile(r"(\d+)(?:\(x\d+\))?")


def nodes_here(nodes: int, environment: Mapping[str, str] | None = None) -> int:
    """How many of a run's nodes are on this host where no file of hosts says it: all, or as many as it has ranks."""
    environment = os.environ if environment is None else environment
    for name in _COUNTS:
        if counts := [int(count) for count in _COUNT.findall(environment.get(name, ""))]:
            return max(1, min(nodes, max(counts)))
    return nodes


def cores_here(environment: Mapping[str, str] | None = None) -> int:
    """Cores for all ranks of this host: all that it has where mpiexec or srun, started by hand, may have bound each."""
    environment = os.environ if environment is None else environment
    if EXIT_RECORD in environment or not any(name in environment for name in _COUNTS):
        return cores()
    there = os.cpu_count() or 1
    return max(1, min(there, quota() or there))
