"""A cluster that is to be built, what runs there, and how many nodes its masters can serve, by arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hsa2c.simulation.links import Link, Sizes, Work
from hsa2c.simulation.process_pool import UpdateTimes
from hsa2c.transport.messages import Limits

_HEADER = 64
_REPORT = 150  # bytes of one process's report


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What is to be built, and what runs there."""

    nodes: int
    cores: int = 28
    """Processes of a node. p."""
    B: int | Literal["auto"] = 8
    """Updates of each process between two exchanges; auto: `hsa2c.node.pace`."""
    masters: int = 1
    """Hosts that hold a slice of v each."""
    link: Link = field(default_factory=lambda: Link(bytes_per_s=1.25e9, latency_s=1e-4))
    """Of each node."""
    master_link: Link | None = None
    """Of each master. None: as a node's."""
    exchange: Literal["overlap", "paper"] = "overlap"
    update_s: float = 0.030
    """Mean time of one update. Tu."""
    variation: float = 0.3
    """Its standard deviation over its mean."""
    update_times_s: tuple[float, ...] | None = None
    """Measured times of updates, to be drawn from instead of the two above."""
    samples: int = 48
    """Data points in an update."""
    stragglers: tuple[float, float] = (0.0, 1.0)
    """Share of nodes that are slower, and how many times."""
    node_hours: float = math.inf
    """Mean time until a node dies, without a word."""
    parameters: int = 676_000
    """Numbers in v."""
    delta_bytes: int = 4
    """Bytes of one number of a delta on the wire; of v it is 4."""
    state_vectors: int = 2
    """Vectors of v's length in the optimiser's state, which comes to the master now and then: 2 for Adam."""
    M: int | None = None
    """Deltas in a global step. None: as many as nodes."""
    push_s: float = 0.0020
    """Processor time of a master for a delta of all of v."""
    answer_s: float = 0.0012
    """Processor time of a master to send all of v."""
    message_s: float = 0.00005
    """Processor time of a master for any message besides."""
    notice_s: float = 0.001
    """How long a message that has come waits until its rank looks, on the average: ranks sleep up to 2 ms in between
    (`hsa2c.transport.mpi.master`)."""
    node_s: float = 0.003
    """Processor time of a node for an exchange."""
    free_core: bool = False
    """Whether a node has a core besides the `cores`: its processes lose nothing by an exchange in the background."""
    most_local_updates: int = 128
    """The most that B = auto may choose."""
    exchange_share: float = 0.05
    """With B = auto: the share of its time that a node may lose to exchanges."""
    keep_s: float = 50.0
    """Between two copies of a node's optimiser's state (`hsa2c.node.process_pool.PoolLimits`)."""
    limits: Limits = field(default_factory=Limits)
    seconds: float = 600.0
    """Of the cluster's time that are simulated."""
    exchanges: int | None = None
    """They end sooner after so many exchanges. None: as soon as the figures stand still (`tolerance`), but after 30 of
    each node, and at least 20,000 in all, at the latest."""
    tolerance: float = 0.02
    """The figures stand still when data points/s and exchanges/s are each known so well: half of a 95 % confidence
    interval over the mean (`hsa2c.simulation.steady`). For the time of an exchange 2.5 times as much is enough."""
    seed: int = 1

    def sizes(self) -> Sizes:
        """Bytes on the wire."""
        return Sizes(
            v=4 * self.parameters,
            delta=self.delta_bytes * self.parameters,
            state=4 * self.state_vectors * self.parameters,
            text=_REPORT * self.cores,
        )

    def work(self) -> Work:
        """Of one master."""
        push_s = self.push_s / self.masters
        return Work(
            message_s=self.message_s,
            push_s=push_s,
            keep_s=push_s * self.state_vectors,
            answer_s=self.answer_s / self.masters,
        )


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How many nodes the masters can serve, by arithmetic."""

    nodes: float
    """With more of them deltas come no faster."""
    what: str
    """What is busy all the time then."""
    exchanges_per_s: float
    """The most that there can be."""


def bound(cluster: Cluster) -> Bound:
    """Where adding nodes stops helping: a master's link or its processor is busy all the time.

    Each exchange takes a master's resource for a while a, and each node, exchanges or not, for a share k of the time
    (its optimiser's state, and signs of life): N nodes with a round of R seconds take N (a / R + k).
    """
    c = cluster
    round_s, (exchange_s, state_s, tell_s) = _round_s(c), _taken_s(c)
    tells = 1.0 if round_s > 2.0 else 0.0  # a second
    node_share = {what: state_s[what] / c.keep_s + tells * tell_s[what] for what in exchange_s}
    takes = {what: exchange_s[what] / round_s + node_share[what] for what in exchange_s}
    nodes = {what: 1 / share if share else math.inf for what, share in takes.items()}
    what = min(nodes, key=lambda what: nodes[what])
    return Bound(nodes=nodes[what], what=f"master's {what}", exchanges_per_s=nodes[what] / round_s)


def kept_every_s(c: Cluster) -> float:
    """Between two of a node's states: it goes with the first exchange after `keep_s`, so after whole rounds."""
    if c.keep_s == math.inf:
        return c.keep_s
    exchange_s, state_s, _ = _taken_s(c)
    round_s = shortest_s = _round_s(c)
    rounds = 1
    for _ in range(10):  # more states in a round make it longer, and then there are fewer rounds in `keep_s`
        rounds = math.ceil(c.keep_s / round_s)
        round_s = max(shortest_s, *(c.nodes * (exchange_s[what] + state_s[what] / rounds) for what in exchange_s))
    return rounds * round_s


def _taken_s(c: Cluster) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """For how long an exchange, a state and a sign of life take each of a master's resources."""
    sizes, work, rate = c.sizes(), c.work(), (c.master_link or c.link).bytes_per_s
    assert sizes.v is not None and sizes.delta is not None and sizes.state is not None and sizes.text is not None
    exchange_s = {
        "link": max(sizes.delta / c.masters + sizes.text + 2 * _HEADER, sizes.v / c.masters + _HEADER) / rate,
        "processor": work.push_s + work.answer_s + 3 * work.message_s,
    }
    state_s = {"link": sizes.state / c.masters / rate, "processor": work.keep_s + work.message_s}
    tell_s = {"link": (sizes.text + _HEADER) / rate, "processor": work.message_s}
    return exchange_s, state_s, tell_s


def _round_s(c: Cluster) -> float:
    """Mean time from one exchange of a node to its next, where it need not queue."""
    B = c.most_local_updates if c.B == "auto" else c.B
    times = update_times(c)
    sizes, work = c.sizes(), c.work()
    assert sizes.v is not None and sizes.delta is not None
    slowest = min(c.link.bytes_per_s, c.masters * (c.master_link or c.link).bytes_per_s)
    transfer_s = (sizes.delta + sizes.v) / slowest + 2 * (c.link.latency_s + c.notice_s)
    exchange_s = transfer_s + work.push_s + work.answer_s + 3 * work.message_s
    if c.exchange == "overlap":
        lost_s = 0.0 if c.free_core else c.node_s / c.cores
        return max(B * times.mean_s + lost_s, c.node_s + exchange_s)
    return slowest_s(c, B) + c.node_s + exchange_s


def slowest_s(c: Cluster, B: int) -> float:
    """Mean time until each process of a node has made B updates."""
    times = update_times(c)
    return float(np.mean([times.slowest(B, c.cores) for _ in range(256)]))


def update_times(c: Cluster) -> UpdateTimes:
    """How long an update takes there."""
    return UpdateTimes(c.update_s, c.variation, samples=c.update_times_s, seed=c.seed)


def slowness(c: Cluster) -> list[float]:
    """How many times as long as the others' each node's updates take."""
    slow = round(c.nodes * c.stragglers[0])
    return [c.stragglers[1] if node < slow else 1.0 for node in range(c.nodes)]


def lives_s(c: Cluster) -> list[float]:
    """After how many seconds each node dies; infinite where none does."""
    if c.node_hours == math.inf:
        return [math.inf] * c.nodes
    lives: list[float] = np.random.default_rng(c.seed).exponential(3600 * c.node_hours, c.nodes).tolist()
    return lives
