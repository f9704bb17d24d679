"""Whether this host can hold what a run would start on it: told before anything is written or started.

What is needed is counted low, so that a run that would fit is never refused: one that is not refused may still be too
large. `python -m hsa2c doctor` measures instead.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hsa2c.cluster import control_groups, hosts
from hsa2c.cluster.control_groups import number, read
from hsa2c.cluster.hosts import Host
from hsa2c.cluster.sharing import nodes_here
from hsa2c.cluster.world import World
from hsa2c.config.sections import ClusterConfig
from hsa2c.errors import ConfigError

_MIB = 1 << 20
_BASE_BYTES = 150 * _MIB  # master, or job; what has loaded torch once
_NODE_BYTES = 25 * _MIB  # a node's own process, its stand-in and its fork server: 40 as measured
_RANK_TASKS = 5  # of a node over MPI: stand-in, fork server, and its own process with two threads of MPI's
_LONE_TASKS = 4  # one node without MPI: job, the node's thread in it, fork server, who cleans up
_MPI_TASKS = 9  # master with its threads, fork server, mpiexec, who cleans up: 13 as measured
_FILES = 12  # a process that has loaded everything
_FILES_MPIEXEC, _FILES_RANK = 25, 3  # mpiexec had 37 to 40 with 4 ranks, 164 with 41
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE = 1 << 21, 1 << 24


class Footprint(NamedTuple):
    """What an actor-learner takes of its host, at least: a run is refused if not even that is there."""

    memory_bytes: int
    tasks: int
    """Processes and threads."""


class Limit(NamedTuple):
    """What is left of something here, and which limit says so."""

    left: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a run has on this host."""

    nodes: int
    """Spares among them."""
    processes: int
    """Actor-learners of each. p."""
    ranks: int
    """That mpiexec is to start here, the masters' among them; 0: none, or on other hosts, too, or they are there."""
    over_mpi: bool

    @property
    def actor_learners(self) -> int:
        """Of all nodes here."""
        return self.nodes * self.processes


def share_of(cluster: ClusterConfig, world: World, there: Sequence[Host]) -> Share:
    """What a run has on this host.

    Args:
        cluster: The run's.
        world: That this process is in.
        there: The hosts of the run; none: this one.
    """
    nodes, p = cluster.nodes + cluster.spares, cluster.processes
    over_mpi = world.started_by_mpi or nodes > 1 or bool(there)
    if there:
        here = {host.name: host.processes for host in there if hosts.is_here(host.name)}
        own = max((each or 1 for each in here.values()), default=1)
        placed = sum(name in here for name in hosts.places(there, nodes))
        return Share(nodes=placed, processes=p or own, ranks=0, over_mpi=over_mpi)
    ranks = 0 if world.started_by_mpi or not over_mpi else cluster.masters + nodes
    return Share(nodes=nodes_here(nodes), processes=p or 1, ranks=ranks, over_mpi=over_mpi)


def refuse(share: Share, each: Footprint, run: str) -> None:
    """Refuse what cannot fit; the soft limit on open files is raised where the hard one lets it.

    Args:
        share: What is to be started here.
        each: What an actor-learner takes at least.
        run: Its size, in words.

    Raises:
        ConfigError: This host cannot hold it; names the limit, what is needed and what is left.
    """
    memory = _BASE_BYTES + share.nodes * _NODE_BYTES + share.actor_learners * each.memory_bytes
    of_nodes = share.nodes * _RANK_TASKS + _MPI_TASKS if share.over_mpi else _LONE_TASKS
    files = max(_FILES + share.processes, _FILES_MPIEXEC + _FILES_RANK * share.ranks if share.ranks else 0)
    wanted = {
        "bytes of memory": (memory, memory_limits()),
        "processes and threads": (of_nodes + share.actor_learners * each.tasks, task_limits()),
        "open files": (files, [_open_files(files)]),
    }
    for what, (needed, limits) in wanted.items():
        least = min(limits, default=None)
        if least is not None and needed > least.left:
            raise ConfigError(
                f"{run}: needs at least {_in_words(needed, what)} on this host, which has {_in_words(least.left)} left"
                f" ({least.name}): fewer, or a higher limit (--force tries all the same)"
            )


def _in_words(number: int, what: str = "") -> str:
    if number >= 10 * _MIB:  # nobody has so many processes
        return f"{number / (1 << 30):,.1f} GiB{what.removeprefix('bytes')}"
    return f"{max(0, number):,}{what and ' ' + what}"


# What there is.


def memory_limits() -> list[Limit]:
    """Bytes that can be had: of the machine, swap included, and of each control group that this process is in."""
    found = []
    said = dict(line.split(":", 1) for line in read(Path("/proc/meminfo")).splitlines() if ":" in line)
    machine = [int(said[name].split()[0]) for name in ("MemAvailable", "SwapFree") if name in said]
    if "MemAvailable" in said:
        found.append(Limit(1024 * sum(machine), "MemAvailable"))
    for folder in control_groups.folders("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, now = number(folder / limit), number(folder / used)
            if most is not None and now is not None:
                found.append(Limit(most - now + _reclaimable(folder), f"cgroup {limit}, {_in_words(most)}"))
    return found


def _reclaimable(folder: Path) -> int:
    """Of files, which the kernel drops when memory is short."""
    said = dict(line.split() for line in read(folder / "memory.stat").splitlines() if len(line.split()) == 2)
    return sum(int(said.get(name, 0)) for name in ("inactive_file", "active_file"))


def task_limits() -> list[Limit]:
    """Processes and threads that can be had: of the user, of each control group, of the machine."""
    found = []
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if most != resource.RLIM_INFINITY and not _is_privileged():
        found.append(Limit(most - tasks_of(os.getuid()), f"ulimit -u, {most:,}"))
    for folder in control_groups.folders("pids"):
        limit, now = number(folder / "pids.max"), number(folder / "pids.current")
        if limit is not None and now is not None:
            found.append(Limit(limit - now, f"cgroup pids.max, {limit:,}"))
    kernel = Path("/proc/sys/kernel")
    found += [
        Limit(limit, f"kernel.{name}")
        for name in ("pid_max", "threads-max")
        if (limit := number(kernel / name)) is not None
    ]
    return found


def _open_files(wanted: int) -> Limit:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, most = (wanted if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard))
    if soft < wanted <= most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return Limit(max(soft, most), f"ulimit -n, {max(soft, most):,}")


def _is_privileged() -> bool:
    """Whether the kernel counts none of this user's processes."""
    for line in read(Path("/proc/self/status")).splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & (_CAP_SYS_ADMIN | _CAP_SYS_RESOURCE))
    return False


def tasks_of(user: int) -> int:
    """Processes and threads that a user has now, on this machine."""
    import psutil

    about = (process.info for process in psutil.process_iter(["uids", "num_threads"]))  # None: it may not be asked
    return sum(one["num_threads"] or 1 for one in about if one["uids"] and one["uids"].real == user)
