"""How fast the run would be: what was measured, over the simulated clock of `hsa2c.simulation.planning`."""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hsa2c.application import Application
from hsa2c.config.protocol import RunConfig
from hsa2c.doctor.checks import Seen, bytes_per_s, processes
from hsa2c.doctor.finding import Finding, ok, problem, warning
from hsa2c.errors import ConfigError
from hsa2c.node.pace import Costs, fewest_updates
from hsa2c.transport.codec import Encoding

if TYPE_CHECKING:
    from hsa2c.simulation.planning import Cluster, Outcome

_IN_ONE_PROCESS = {"trip_s": 2 * 2.7e6 / 5e9, "latency_s": 1e-5}  # of one node: queues, and copies in memory
_EXCHANGES = 6000  # simulated, at least
_EACH = 30  # of each node
_BUSY = 0.5  # of a master's time: from here on it makes nodes wait
_SLOWED = 0.8  # of the speed without exchanges
_PUSH_SHARE = 0.6  # of a master's work on an exchange: to receive and to sum; the rest is to answer


def predict(
    seen: Seen,
    config: RunConfig,
    links: Mapping[str, Mapping[str, Any]],
    capacity: Mapping[str, Any],
    *,
    app: Application,
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings, and their figures.

    Args:
        seen: The hosts; their trials say how fast they are.
        config: The run's.
        links: What was measured between the master and each host, by name; empty: nothing was.
        capacity: What exchanges cost, as measured; empty: nothing was.
        app: Its application.
    """
    adapts = takes_auto(app, config)
    c = _measured(seen, config, links, capacity)
    if c is None:
        return [], {}
    if importlib.util.find_spec("greenlet") is None:
        B = _by_pace(c, c["exchange_s"], config)
        found = [
            warning("prediction", "the run is not simulated without greenlet", "pip install 'hsa2c[plan]'"),
            ok("B", f"--B auto would begin with 1 and come to about {B}" if adapts else f"about {B} is enough"),
        ]
        return found, {"auto_B": B}
    cluster = _cluster(c, config)
    from hsa2c.simulation.planning import simulate

    outcome = simulate(cluster)
    return _findings(c, config, cluster, outcome, over_mpi=bool(links), unit=app.pictures.unit, adapts=adapts)


def takes_auto(app: Application, config: Any) -> bool:
    """Whether an application takes ``--B auto`` with a configuration, which is resolved."""
    dpsgd = dataclasses.replace(config.dpsgd, local_updates="auto")
    try:
        app.resolve(dataclasses.replace(config, dpsgd=dpsgd))
    except ConfigError:
        return False
    return True


def _measured(
    seen: Seen, config: RunConfig, links: Mapping[str, Mapping[str, Any]], capacity: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Of all hosts, what the simulation takes for each of them."""
    tried = [(site, facts, facts.trial) for site, facts in seen if facts.trial is not None]
    if not tried or any(site.nodes and facts.trial is None for site, facts in seen):
        return None
    dim, state_size = tried[0][1].dim, tried[0][1].state_size
    assert dim is not None and state_size is not None
    nodes = sum(site.nodes for site, _, _ in tried)
    p = max(
        1,
        round(statistics.fmean(processes(site, facts, config) for site, facts, _ in tried for _ in range(site.nodes))),
    )
    speed = sum(trial.updates_per_s for _, _, trial in tried)
    masters_at = seen[0]
    far = [link for name, link in links.items() if name != masters_at[0].name] or list(links.values())
    link = far[0] if len(far) == 1 else _median(far) if far else _IN_ONE_PROCESS
    vector_bytes = 4 * dim
    master_s, node_s = capacity.get("master_s", 0.0032), capacity.get("node_s", 0.003)
    of_master = masters_at[1].trial
    return {
        "nodes": nodes,
        "p": p,
        "update_s": nodes * p / speed,
        "samples": statistics.fmean(trial.work_per_update for _, _, trial in tried),
        "dim": dim,
        "state_vectors": round(state_size / dim),
        "bytes_per_s": bytes_per_s(link, vector_bytes),
        "latency_s": link["latency_s"],
        "master_s": master_s,
        "node_s": max(node_s, 0.003 * dim / 676_000),  # copying u, and adding v's news to it, are in no message
        "exchange_s": link["trip_s"] + master_s,
        # A master takes its time from the nodes of its own host.
        "beside_master": of_master.updates_per_s / speed / masters_at[1].cores if of_master else 0.0,
    }


def _median(links: list[Mapping[str, Any]]) -> dict[str, float]:
    return {key: statistics.median(link[key] for link in links) for key in ("trip_s", "latency_s")}


def _cluster(c: Mapping[str, Any], config: RunConfig) -> Cluster:
    from hsa2c.simulation.links import Link
    from hsa2c.simulation.planning import Cluster

    dpsgd, cluster = config.dpsgd, config.cluster
    return Cluster(
        nodes=c["nodes"],
        cores=c["p"],
        B=dpsgd.local_updates,
        masters=cluster.masters,
        link=Link(bytes_per_s=c["bytes_per_s"], latency_s=c["latency_s"]),
        exchange="overlap" if dpsgd.exchange in ("auto", "overlap") else "paper",
        update_s=c["update_s"],
        samples=max(1, round(c["samples"])),
        parameters=c["dim"],
        delta_bytes=Encoding[dpsgd.delta_dtype.upper()].size(1 << 20) >> 20,
        state_vectors=c["state_vectors"],
        M=dpsgd.deltas_per_step,
        push_s=_PUSH_SHARE * c["master_s"],
        answer_s=(1 - _PUSH_SHARE) * c["master_s"],
        node_s=c["node_s"],
        most_local_updates=dpsgd.most_local_updates,
        exchange_share=dpsgd.exchange_share,
        exchanges=max(_EXCHANGES, _EACH * c["nodes"]),
    )


def _by_pace(c: Mapping[str, Any], exchange_s: float, config: RunConfig) -> int:
    """What ``--B auto`` would choose: `hsa2c.node.pace`'s rule on a window of one exchange."""
    dpsgd, p = config.dpsgd, c["p"]
    overlapping = dpsgd.exchange in ("auto", "overlap")
    lost_s = c["node_s"] / p if overlapping else exchange_s + c["node_s"]
    costs = Costs(seconds=c["update_s"] + lost_s, updates=p, exchanges=1, exchanging_s=exchange_s, lost_s=lost_s)
    fewest = fewest_updates(costs, p, target=dpsgd.exchange_share, overlapping=overlapping)
    return min(dpsgd.most_local_updates, fewest)


def _findings(
    c: Mapping[str, Any],
    config: RunConfig,
    cluster: Cluster,
    outcome: Outcome,
    *,
    over_mpi: bool,
    unit: str,
    adapts: bool,
) -> tuple[list[Finding], dict[str, Any]]:
    if outcome.ended is not None:
        return [problem("prediction", outcome.ended, "see python -m hsa2c plan")], {}
    speed = outcome.samples_per_s * (1 - c["beside_master"] * outcome.master_cpu * cluster.masters)
    busy = max(outcome.master_cpu, outcome.master_link)
    B = config.dpsgd.local_updates
    auto_B = (
        round(outcome.updates_in_delta)
        if B == "auto"
        else _by_pace(c, max(c["exchange_s"], outcome.exchange_s), config)
    )
    share = f"{100 * outcome.speed_share:.0f} % of what the nodes make without exchanges"
    cure = f"a larger --B{', or --B auto' * adapts}; fewer bytes: --delta-dtype bfloat16"
    found = []
    if outcome.speed_share < _SLOWED:
        found.append(warning("speed", f"about {speed:,.0f} {unit}/s, {share}", cure))
    else:
        found.append(ok("speed", f"about {speed:,.0f} {unit}/s, {share}"))
    found.append(_of_pace(B, auto_B, slowed=outcome.speed_share < _SLOWED, adapts=adapts))
    found.append(_of_master(cluster, outcome, busy, f"{cure}; --masters K", over_mpi=over_mpi))
    return found, {
        "agent_steps_per_s": speed,
        "speed_share": outcome.speed_share,
        "auto_B": auto_B,
        "master_busy": outcome.master_cpu,
        "master_network_busy": outcome.master_link,
        "exchange_s": outcome.exchange_s,
        "update_s": c["update_s"],
        "most_nodes": outcome.limit.nodes,
    }


def _of_pace(B: int | str, auto_B: int, *, slowed: bool, adapts: bool) -> Finding:
    enough = f"--B auto would come to about {auto_B}" if adapts else f"about {auto_B} is enough"
    if isinstance(B, str):
        return ok("B", enough)
    if auto_B > B and slowed:
        return warning("B", f"{B}; {enough}", "--B auto" if adapts else f"--B {auto_B}")
    return ok("B", f"{B}; {enough}")


def _of_master(cluster: Cluster, outcome: Outcome, busy: float, cure: str, *, over_mpi: bool) -> Finding:
    from hsa2c.simulation.planning import conclusion

    text = f"busy for {100 * outcome.master_cpu:.0f} % of the time"
    if over_mpi:
        text += f", its network {100 * outcome.master_link:.0f} %; nodes {conclusion(cluster, outcome)}"
    return warning("master", text, cure) if busy >= _BUSY else ok("master", text)
