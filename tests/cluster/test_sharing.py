"""How many nodes of a run are on this host, and the cores that they share."""

from __future__ import annotations

import pytest

from hsa2c.cluster import sharing
from hsa2c.cluster.machine import cores
from hsa2c.cluster.world import EXIT_RECORD

OPEN_MPI, MPICH, SLURM = "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"


@pytest.mark.parametrize(
    ("environment", "nodes"),
    [
        ({}, 40),
        ({OPEN_MPI: "41"}, 40),
        ({OPEN_MPI: "4"}, 4),
        ({MPICH: "4"}, 4),
        ({SLURM: "2(x3),1"}, 2),
        ({SLURM: "1(x40)"}, 1),
        ({SLURM: ""}, 40),
    ],
)
def test_nodes_of_a_host(environment: dict[str, str], nodes: int) -> None:
    assert sharing.nodes_here(40, environment) == nodes


def test_cores_are_all_of_the_host_where_a_rank_may_be_bound_to_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 112)
    monkeypatch.setattr(sharing, "quota", lambda: None)
    assert sharing.cores_here({}) == cores()
    assert sharing.cores_here({OPEN_MPI: "41", EXIT_RECORD: "the launcher's"}) == cores(), "who binds none"
    assert sharing.cores_here({OPEN_MPI: "41"}) == 112
    monkeypatch.setattr(sharing, "quota", lambda: 28)
    assert sharing.cores_here({OPEN_MPI: "41"}) == 28
