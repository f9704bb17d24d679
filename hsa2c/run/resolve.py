"""From what was asked for to what runs: new runs, resumed ones and restarts on fewer hosts all come by `resolve`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsa2c.application import Application
from hsa2c.cluster import allocation, hosts
from hsa2c.cluster.allocation import ALLOCATION
from hsa2c.cluster.hosts import Host
from hsa2c.cluster.machine import share_of_cores
from hsa2c.cluster.world import ALONE, World
from hsa2c.config.loading import at, merge, nested, to_dict
from hsa2c.config.protocol import RunConfig
from hsa2c.dpsgd.steps import constant_factor_rho
from hsa2c.errors import ConfigError

_MOST_RANKS = 100_000  # of any kind
_DELAYS = 10  # times the usual delay may a delta be late before it counts for less

#: Settings that a rule decides where nobody asks for a value, and what leaves them to it.
_BY_RULE = {
    "cluster.processes": None,
    "dpsgd.deltas_per_step": None,
    "dpsgd.max_delay": None,
    "dpsgd.exchange": "auto",
    "dpsgd.global_rate": None,
}


def resolve(app: Application, asked: Mapping[str, Any], world: World) -> Any:
    """What runs: each setting as asked for, else by its rule, else its default.

    The same arguments give the same configuration, in the same surroundings: batch system's allocation, file of hosts,
    cores of this machine, and what the application reads.

    Args:
        app: The application.
        asked: Settings that were asked for, as a tree of plain values.
        world: The MPI world of this process, if it was started in one.

    Raises:
        ConfigError: A setting is wrong, or two do not fit together.
    """
    asked = _in_world(asked, world) if world.started_by_mpi else _on_hosts(_in_allocation(asked))
    config = app.build_config(asked)
    _check_together(app, config)
    config = app.resolve(_who_and_how(app, config))
    app.identity(config)  # loads data, for example: better now than in forty processes
    return _with_global_rate(config)


def listed_hosts(listed: str | None) -> tuple[Host, ...]:
    """The hosts that ``cluster.hosts`` stands for; none where it is None: this machine."""
    if listed is None:
        return ()
    return allocation.hosts_of(os.path.expanduser(listed))  # noqa: PTH111 - Path's fails where there is no home


def asked_in_0_1(app: Application, saved: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for in a run of 0.1, which saved only what came of it.

    A setting that comes out the same when it is left to its rule is taken to have followed it.

    Args:
        app: The application.
        saved: The resolved configuration, as a tree of plain values.
    """
    asked = dict(saved)
    here = merge(saved, {"cluster": {"hosts": None, "processes": at(saved, "cluster.processes") or 2}})
    for name, left in _BY_RULE.items():
        try:
            by_rule = to_dict(resolve(app, merge(here, nested(name, left)), ALONE))
        except ConfigError:  # it does not go without
            continue
        if at(by_rule, name) == at(saved, name):
            asked = merge(asked, nested(name, left))
    if at(saved, "cluster.hosts") in (None, ALLOCATION):
        asked["cluster"] = {key: value for key, value in asked["cluster"].items() if key != "hosts"}
    return asked


# How many nodes, and where.


def _in_world(asked: Mapping[str, Any], world: World) -> dict[str, Any]:
    """Under mpiexec or srun the nodes are the ranks that are there, less the masters'."""
    if (listed := at(asked, "cluster.hosts")) is not None:
        raise ConfigError(f"--hosts {listed}: this world is there already; give its file to mpiexec")
    wanted, spares, masters = (at(asked, f"cluster.{name}") for name in ("nodes", "spares", "masters"))
    spares = spares if isinstance(spares, int) else 0
    masters = masters if isinstance(masters, int) else 1
    nodes = max(1, world.size - masters - spares)
    if wanted is not None and wanted != nodes:
        others = f", {spares} spare" if spares else ""
        who = "one is the master" if masters == 1 else f"{masters} are masters"
        raise ConfigError(f"--nodes {wanted}: this world has {world.size} ranks, {who}{others}: must be {nodes}")
    return merge(asked, nested("cluster.nodes", nodes))


def _in_allocation(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """In an allocation, if nothing was said of hosts, its hosts are the run's; this one alone is one machine."""
    cluster = asked.get("cluster") or {}
    if not isinstance(cluster, Mapping) or "hosts" in cluster or (there := allocation.find()) is None:
        return asked
    default = {"nodes": len(there.hosts), "spares": 0, "masters": 1} | {
        k: v for k, v in cluster.items() if v is not None
    }
    counts = [default[name] for name in ("nodes", "spares", "masters")]
    if not all(isinstance(count, int) and 0 <= count <= _MOST_RANKS for count in counts):
        return asked  # which is told of when the configuration is built
    nodes, spares, masters = counts
    needed = allocation.is_needed(there, nodes + spares, masters)
    return merge(asked, {"cluster": {"hosts": ALLOCATION if needed else None, "nodes": nodes}})


def _on_hosts(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """A file of hosts says how many nodes there are, if nothing else does."""
    listed = at(asked, "cluster.hosts")
    if not isinstance(listed, str) or not listed or at(asked, "cluster.nodes") is not None:
        return asked
    return merge(asked, nested("cluster.nodes", hosts.slots(listed_hosts(listed))))


# Rules.


def _check_together(app: Application, config: Any) -> None:
    """Settings that do not fit each other.

    Raises:
        ConfigError: There are some.
    """
    run: RunConfig = config
    cluster, masters = run.cluster, run.cluster.masters
    with_p = [host.name for host in listed_hosts(cluster.hosts) if host.processes]
    if cluster.processes is not None and with_p:
        raise ConfigError(
            f"cluster.processes = {cluster.processes}: {cluster.hosts} gives {with_p[0]} a p of its own: must be one or"
            " the other (--p, or p=)"
        )
    if cluster.spares and cluster.nodes == 1 and cluster.hosts is None:
        raise ConfigError(f"cluster.spares = {cluster.spares}: one node alone has no MPI, must be 0 (or --nodes 2)")
    if masters > 1 and cluster.nodes == 1:
        raise ConfigError(f"cluster.masters = {masters}: one node needs no more than 1 (or --nodes 2)")
    if run.output.record and masters > 1:
        raise ConfigError(f"output.record = True: {masters} masters are not recorded, must be 1 (--masters)")
    if run.optimiser.anneal and not app.limits(config) and run.stop.minutes is None:
        raise ConfigError(f"optimiser.anneal = True: needs a limit to fall to 0 at, {app.command.limits}")
    if run.dpsgd.exchange == "overlap" and not app.overlaps:
        raise ConfigError(f"dpsgd.exchange = 'overlap': {app.name} cannot, must be auto or paper")


def _who_and_how(app: Application, config: Any) -> Any:
    """`config` with hosts, p, M, the exchange and the longest delay."""
    run: RunConfig = config
    nodes, p, listed = run.cluster.nodes, run.cluster.processes, run.cluster.hosts
    M = run.dpsgd.deltas_per_step or nodes
    p_of_first = p
    if listed is None:
        p_of_first = p = p or share_of_cores(nodes)
    else:  # each host has its own cores, and perhaps a p of its own
        p_of_first = p or hosts.processes(listed_hosts(listed), nodes)[0] or 2
        listed = listed if listed == ALLOCATION else str(Path(listed).absolute())
    exchange = run.dpsgd.exchange
    if exchange == "auto":
        exchange = "overlap" if app.overlaps and nodes * p_of_first > 1 else "paper"
    return dataclasses.replace(
        config,
        cluster=dataclasses.replace(run.cluster, processes=p, hosts=listed),
        dpsgd=dataclasses.replace(
            run.dpsgd,
            deltas_per_step=M,
            exchange=exchange,
            max_delay=run.dpsgd.max_delay or _DELAYS * -(-nodes // M),
        ),
    )


def _with_global_rate(config: Any) -> Any:
    """`config` with rho, and whether it follows the number of deltas."""
    dpsgd = config.dpsgd
    rho, follows = dpsgd.global_rate, dpsgd.rescale_rate
    if follows is None:
        follows = rho is None
    if rho is None:
        rho = constant_factor_rho(dpsgd.deltas_per_step, dpsgd.momentum, dpsgd.global_factor)
    return dataclasses.replace(config, dpsgd=dataclasses.replace(dpsgd, global_rate=rho, rescale_rate=follows))
