"""The hosts that a batch system, Slurm or PBS, has given to this job, as its environment variables have them.

Nothing is started by being in an allocation: this process is alone, and no rank, unless `hsa2c.cluster.world` says
otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hsa2c.cluster import hosts
from hsa2c.cluster.hosts import Host
from hsa2c.config.sections import ClusterConfig
from hsa2c.errors import ConfigError

ALLOCATION = "allocation"
"""In the place of a file of hosts (``cluster.hosts``): the hosts of the allocation that the launcher is in."""

_MOST_HOSTS = 100_000
_RANGES = r"\[\d{1,9}(?:-\d{1,9})?(?:,\d{1,9}(?:-\d{1,9})?)*\]"
_PART = re.compile(rf"(?:[A-Za-z0-9._-]|{_RANGES})+")
_LIST = re.compile(rf"{_PART.pattern}(?:,{_PART.pattern})*")


@dataclass(frozen=True)
class Allocation:
    """What a batch system has given to a job."""

    system: str
    """Slurm or PBS."""

    job: str
    """Its number."""

    hosts: tuple[Host, ...]
    """One node on each, before any gets two: tasks and slots of the batch system are cores to most who ask for them."""


def find(environment: Mapping[str, str] | None = None) -> Allocation | None:
    """The allocation that this process is in; None outside of any.

    Raises:
        ConfigError: What the batch system says cannot be understood.
    """
    environment = os.environ if environment is None else environment
    if "SLURM_JOB_ID" in environment and "SLURM_JOB_NODELIST" in environment:
        names = expand(environment["SLURM_JOB_NODELIST"])
        return Allocation("Slurm", environment["SLURM_JOB_ID"], tuple(map(Host, names)))
    if "PBS_NODEFILE" in environment:
        path = Path(environment["PBS_NODEFILE"])
        return Allocation("PBS", environment.get("PBS_JOBID", "?"), tuple(map(Host, _lines(path))))
    return None


def lone_task(environment: Mapping[str, str] | None = None) -> int | None:
    """The number of this task where srun has started several with no MPI between them; None otherwise.

    Each would be a run of its own, and all in one directory: Open MPI makes N worlds of one rank of them, and says
    nothing.
    """
    environment = os.environ if environment is None else environment
    tasks, task = (environment.get(name, "") for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"))
    if not tasks.isdecimal() or not task.isdecimal() or int(tasks) < 2:
        return None
    return None if {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"} & set(environment) else int(task)


def refuse_lone_tasks(environment: Mapping[str, str] | None = None) -> None:
    """Begin no run that srun has started several times.

    Raises:
        ConfigError: It has.
    """
    environment = os.environ if environment is None else environment
    if lone_task(environment) is not None:
        raise ConfigError(
            f"srun has started {environment['SLURM_STEP_NUM_TASKS']} tasks without MPI, each a run of its own: "
            "use srun --mpi=pmix, or plain python in the allocation, without srun"
        )


def expand(text: str) -> list[str]:
    """Names in a list as Slurm writes it: ``n[01-03,07],gpu1`` are n01, n02, n03, n07 and gpu1.

    The same as ``scontrol show hostnames``, which not every host of a job has. The library for it, python-hostlist, is
    under the GPL, which code under the MIT licence cannot take in.

    Raises:
        ConfigError: It is no such list.
    """
    if not _LIST.fullmatch(text):
        raise ConfigError(f"SLURM_JOB_NODELIST = {text!r}: is no list of hosts")
    names: dict[str, None] = {}
    for part in _PART.findall(text):
        names |= dict.fromkeys(islice(_names(part), _MOST_HOSTS + 1))
        if len(names) > _MOST_HOSTS:
            raise ConfigError(f"SLURM_JOB_NODELIST = {text!r}: more than {_MOST_HOSTS} hosts")
    return list(names)


def _names(part: str) -> Iterator[str]:
    """A name with any number of ranges in brackets, of which the last counts fastest."""
    before, bracket, rest = part.partition("[")
    if not bracket:
        yield before
        return
    ranges, _, after = rest.partition("]")
    for one in ranges.split(","):
        first, _, last = one.partition("-")
        for number in range(int(first), int(last or first) + 1):
            for ending in _names(after):
                yield before + str(number).zfill(len(first)) + ending


def _lines(path: Path) -> list[str]:
    """PBS's file has a host once for each of its slots."""
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise ConfigError(f"PBS_NODEFILE {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not names:
        raise ConfigError(f"PBS_NODEFILE {path}: names no host")
    return list(dict.fromkeys(names))


def hosts_of(listed: str) -> tuple[Host, ...]:
    """The hosts that ``cluster.hosts`` stands for: those of the allocation, or of a file.

    Raises:
        ConfigError: There is no allocation, or the file is wrong.
    """
    if listed != ALLOCATION:
        return hosts.read(Path(listed))
    allocation = find()
    if allocation is None:
        raise ConfigError(f"cluster.hosts = {ALLOCATION!r}: this is no allocation of Slurm or PBS")
    return allocation.hosts


def less_in_allocation(cluster: ClusterConfig) -> int:
    """Cores of each node's share that get no actor-learner: in an allocation one is its rank's, and the master's."""
    return int(cluster.hosts == ALLOCATION)


def is_needed(allocation: Allocation, nodes: int, masters: int) -> bool:
    """Whether so many nodes (spares among them) and masters go to other hosts than this one; if not, it is a run on one
    machine.
    """
    used = {*hosts.places(allocation.hosts, nodes), *(host.name for host in allocation.hosts[:masters])}
    return any(name != os.environ.get("SLURMD_NODENAME") and not hosts.is_here(name) for name in used)


def environment_for_mpiexec(places: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment for an mpiexec that is to start ranks at these places; none: on this machine.

    Open MPI reads the batch system's variables by itself. It would take other hosts than those that it is told, and
    fails (PRRTE 3.0.11) where a host is to have more ranks than the batch system has given it slots.
    """
    if not places:
        return {name: value for name, value in environment.items() if not name.startswith(("SLURM_", "PBS_"))}
    if "SLURM_JOB_ID" in environment:
        number = environment.get("SLURM_JOB_NUM_NODES", "1")
        most = max(places.count(name) for name in set(places))
        # Its daemons go to the hosts as a step of the job; they may share cores with whatever else runs in it.
        return {**environment, "SLURM_TASKS_PER_NODE": f"{most}(x{number})", "SLURM_OVERLAP": "1"}
    if "PBS_NODEFILE" in environment:
        return {**environment, "PRTE_MCA_ras": "^pbs"}
    return dict(environment)
