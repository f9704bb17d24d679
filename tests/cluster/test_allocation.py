"""What Slurm and PBS say of the hosts that they gave. `tests/test_slurm.py` asks a real Slurm."""

import re
import socket

import pytest

from hsa2c.cluster import allocation
from hsa2c.cluster.allocation import (
    ALLOCATION,
    Allocation,
    environment_for_mpiexec,
    expand,
    find,
    lone_task,
    refuse_lone_tasks,
)
from hsa2c.cluster.hosts import Host
from hsa2c.errors import ConfigError

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", "node1"),
        ("node[01-03,07],gpu1", "node01 node02 node03 node07 gpu1"),
        ("n[8-11]", "n8 n9 n10 n11"),
        ("n[098-101,5]", "n098 n099 n100 n101 n5"),
        ("r[1-2]n[09-10,3]", "r1n09 r1n10 r1n3 r2n09 r2n10 r2n3"),
        ("a.b-c_d,n[3]-ib", "a.b-c_d n3-ib"),
        ("a,b,a", "a b"),
    ],
)
def test_node_list(text, names):
    assert expand(text) == names.split()


@pytest.mark.parametrize("text", ["", ",", "a,", "n[", "n[]", "n[1", "n1]", "n[1-]", "n[a]", "n[1-2-3]", "a b", "$(x)"])
def test_what_is_no_node_list(text):
    with pytest.raises(ConfigError, match=f"^SLURM_JOB_NODELIST = {re.escape(repr(text))}: is no list of hosts$"):
        expand(text)


def test_node_list_without_end():
    with pytest.raises(ConfigError, match=r": more than 100000 hosts$"):
        expand("n[0-999999999]")


def test_no_allocation():
    assert find({}) is None
    assert find({"SLURM_JOB_ID": "7"}) is None


def test_allocation_of_slurm():
    assert find(SLURM) == Allocation("Slurm", "7", (Host("n1"), Host("n2")))


def test_allocation_of_pbs(tmp_path):
    """A host is there once for each of its slots, which are cores to most who ask for them."""
    file = tmp_path / "nodes"
    environment = {"PBS_NODEFILE": str(file), "PBS_JOBID": "7.server"}
    file.write_text("a\na\nb.c\nb.c\n")
    assert find(environment) == Allocation("PBS", "7.server", (Host("a"), Host("b.c")))
    file.write_text("\n")
    with pytest.raises(ConfigError, match=r"^PBS_NODEFILE .*nodes: names no host$"):
        find(environment)
    file.unlink()
    with pytest.raises(ConfigError, match=r"^PBS_NODEFILE .*nodes: cannot be read: No such file"):
        find(environment)


def test_tasks_without_mpi_are_refused():
    task = SLURM | {"SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "2"}
    assert lone_task(task) == 2
    with pytest.raises(ConfigError, match=r"^srun has started 3 tasks without MPI, each a run of its own: use srun"):
        refuse_lone_tasks(task)
    for alone in ({}, SLURM | {"SLURM_NTASKS": "3", "SLURM_PROCID": "0"}, task | {"SLURM_STEP_NUM_TASKS": "1"}):
        assert lone_task(alone) is None, alone
        refuse_lone_tasks(alone)
    for rank in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"):
        assert lone_task(task | {rank: "2"}) is None


def test_hosts_of_a_file_or_the_allocation(tmp_path, monkeypatch):
    file = tmp_path / "hosts"
    file.write_text("a slots=2\n")
    assert allocation.hosts_of(str(file)) == (Host("a", 2),)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("PBS_NODEFILE", raising=False)
    with pytest.raises(ConfigError, match=r"^cluster.hosts = 'allocation': this is no allocation of Slurm or PBS$"):
        allocation.hosts_of(ALLOCATION)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert allocation.hosts_of(ALLOCATION) == (Host("n1"), Host("n2"))


def test_other_hosts_are_needed(monkeypatch):
    here = Host(socket.gethostname())
    several = Allocation("PBS", "7", (here, Host("192.0.2.7")))
    assert not allocation.is_needed(several, nodes=1, masters=1)
    assert allocation.is_needed(several, nodes=2, masters=1)
    assert allocation.is_needed(several, nodes=1, masters=2)
    monkeypatch.setenv("SLURMD_NODENAME", "192.0.2.7")  # Slurm's name of this host need not be the host's own
    assert not allocation.is_needed(several, nodes=2, masters=1)


def test_mpiexec_sees_no_allocation_where_all_is_on_one_machine(tmp_path):
    inside = SLURM | {"PBS_NODEFILE": "x", "PATH": "y"}
    assert environment_for_mpiexec([], inside) == {"PATH": "y"}
    assert environment_for_mpiexec(["a", "b"], {"PATH": "y"}) == {"PATH": "y"}


def test_mpiexec_may_start_as_many_ranks_as_it_is_told():
    told = environment_for_mpiexec(["n1", "n1", "n2", "n1"], SLURM | {"SLURM_TASKS_PER_NODE": "1(x2)"})
    assert told == SLURM | {"SLURM_TASKS_PER_NODE": "3(x2)", "SLURM_OVERLAP": "1"}
    assert environment_for_mpiexec(["a"], {"PBS_NODEFILE": "x"}) == {"PBS_NODEFILE": "x", "PRTE_MCA_ras": "^pbs"}
