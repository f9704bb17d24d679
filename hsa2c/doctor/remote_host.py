"""What each host is to have in a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hsa2c.run.launcher import Launch


@dataclass(frozen=True, kw_only=True)
class Site:
    """A host, and what the run will start there."""

    name: str
    """As the host file has it; empty for this machine."""
    nodes: int
    """That work."""
    spares: int = 0
    masters: int = 0
    """0 also where the master is a node's thread."""
    own_processes: int | None = None
    """P of each node, where the host's line gives it."""

    @property
    def ranks(self) -> int:
        """Of MPI."""
        return self.nodes + self.spares + self.masters


def sites(what: Launch) -> list[Site]:
    """The hosts that a run uses, the first master's first."""
    cluster = what.config.cluster
    if not what.hosts:
        masters = cluster.masters if what.over_mpi else 0
        return [Site(name="", nodes=cluster.nodes, spares=cluster.spares, masters=masters)]
    places, masters_at = what.places, Counter(what.masters_at)
    nodes, all_nodes = Counter(places[: cluster.nodes]), Counter(places)
    names = dict.fromkeys([*what.masters_at, *places])
    own = {host.name: host.processes for host in what.hosts}
    return [
        Site(
            name=name,
            nodes=nodes[name],
            spares=all_nodes[name] - nodes[name],
            masters=masters_at[name],
            own_processes=own[name],
        )
        for name in names
    ]
