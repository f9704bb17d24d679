"""Which MPI world this process was started in, read from the environment: MPI itself may not be loaded yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

# Open MPI's mpiexec, then MPICH's and any PMI-1/2 starter (srun --mpi=pmi2), then srun --mpi=pmix, with Slurm's size.
# SLURM_* alone is no proof: it is set in every batch script, where no world exists yet.
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
)

REPLACES = "--replaces"
"""Option of a rank that takes the place of a lost node: MPI gives it a world of its own, in which it is rank 0."""

EXIT_RECORD = "HSA2C_EXIT_RECORD"
"""Environment variable: the file in which the master tells the launcher how the run ended."""

MASTERS = "HSA2C_MASTERS"
"""Environment variable: how many ranks, the first ones, are masters."""


@dataclass(frozen=True)
class World:
    """This process's rank, and how many there are."""

    rank: int
    size: int
    started_by_mpi: bool


ALONE = World(0, 1, started_by_mpi=False)
"""A process that neither mpiexec nor srun has started as a rank."""


def find_world(environment: Mapping[str, str] | None = None) -> World:
    """The world of this process; rank 0 of 1 outside mpiexec and srun."""
    environment = os.environ if environment is None else environment
    for rank, size in _VARIABLES:
        if rank in environment and size in environment:
            return World(int(environment[rank]), int(environment[size]), started_by_mpi=True)
    return ALONE
