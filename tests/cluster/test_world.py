"""Which world a process is in, from the variables that starters set."""

from __future__ import annotations

import pytest

from hsa2c.cluster.world import World, find_world


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        ({}, World(0, 1, started_by_mpi=False)),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "5"}, World(3, 5, started_by_mpi=True)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, World(0, 2, started_by_mpi=True)),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, World(0, 1, started_by_mpi=True)),
        # A batch script has these, but no world yet.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, World(0, 1, started_by_mpi=False)),
        ({"OMPI_COMM_WORLD_RANK": "3"}, World(0, 1, started_by_mpi=False)),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "9", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "5"},
            World(3, 5, started_by_mpi=True),
        ),
    ],
)
def test_find_world(environment: dict[str, str], world: World) -> None:
    assert find_world(environment) == world


def test_its_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert find_world() == World(1, 2, started_by_mpi=True)
