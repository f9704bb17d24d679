"""How fast a cluster would be that one does not have: the algorithms over a simulated clock (`hsa2c.dpsgd.simulated`).

What is simulated is the whole exchange, with the ports, the pace and the limits of a real run; of the updates only how
long they take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.pace import Pace, PacedCrew
from hsa2c.dpsgd.ports import Limits
from hsa2c.dpsgd.simulated import Link, SimulatedMaster, SimulatedWorker, Sizes, Work, connect
from hsa2c.dpsgd.simulated_clock import SimulatedClock
from hsa2c.dpsgd.simulated_crew import TimedCrew, UpdateTimes
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.transport import Push, Vector, Watch
from hsa2c.dpsgd.worker import overlapping_worker, worker
from hsa2c.errors import HSA2CError

FULL = 0.9  # a master's processor or link that is busy for so much of the time cannot take more
_LEAST_S = 3.0  # of the cluster's time, however many exchanges
_AUTO_S = 60.0  # the same, where B is to find its value: it is considered every 5 s
_HEADER = 64
_REPORT = 150  # bytes of one process's report


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What is to be built, and what runs there."""

    nodes: int
    cores: int = 28
    """Processes of a node. p."""
    B: int | Literal["auto"] = 8
    """Updates of each process between two exchanges; auto: `hsa2c.dpsgd.pace`."""
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
    """Agent steps in an update."""
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
    (`hsa2c.dpsgd.mpi`)."""
    node_s: float = 0.003
    """Processor time of a node for an exchange."""
    free_core: bool = False
    """Whether a node has a core besides the `cores`: its processes lose nothing by an exchange in the background."""
    most_local_updates: int = 128
    """The most that B = auto may choose."""
    exchange_share: float = 0.05
    """With B = auto: the share of its time that a node may lose to exchanges."""
    keep_s: float = 50.0
    """Between two copies of a node's optimiser's state (`hsa2c.dpsgd.crew.CrewLimits`)."""
    limits: Limits = field(default_factory=Limits)
    seconds: float = 600.0
    """Of the cluster's time that are simulated."""
    exchanges: int | None = None
    """They end sooner after so many exchanges. None: 30 of each node, and at least 20,000 in all."""
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
class Outcome:
    """What was seen, in the last two thirds of the simulated time."""

    agent_steps_per_s: float
    speed_share: float
    """Of the speed of the same nodes without any exchange."""
    exchanges_per_s: float
    updates_in_delta: float
    """Updates behind a delta, for each process: B as it came out."""
    exchange_s: float
    """From a node's pull to v, mean."""
    master_cpu: float
    """Share of the time that a master's processor was busy."""
    master_link: float
    """The same of its link, of the busier direction."""
    tau_mean: float
    """Delay of a delta, in global steps."""
    tau_max: int
    lost: int
    """Times that a node was given up, for its silence or a failure."""
    simulated_s: float
    ended: str | None
    """Why training ended, if it did."""
    limit: Bound

    @property
    def full(self) -> bool:
        """Whether the masters can take no more."""
        return max(self.master_cpu, self.master_link) >= FULL


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
    sizes, work, rate = c.sizes(), c.work(), (c.master_link or c.link).bytes_per_s
    assert sizes.v is not None and sizes.delta is not None and sizes.state is not None and sizes.text is not None
    round_s = _round_s(c)
    tells = 1.0 if round_s > 2.0 else 0.0  # a second
    exchange_s = {
        "link": max(sizes.delta / c.masters + sizes.text + 2 * _HEADER, sizes.v / c.masters + _HEADER) / rate,
        "processor": work.push_s + work.answer_s + 3 * work.message_s,
    }
    node_share = {
        "link": (sizes.state / c.masters / c.keep_s + tells * (sizes.text + _HEADER)) / rate,
        "processor": (work.keep_s + work.message_s) / c.keep_s + tells * work.message_s,
    }
    takes = {what: exchange_s[what] / round_s + node_share[what] for what in exchange_s}
    nodes = {what: 1 / share if share else math.inf for what, share in takes.items()}
    what = min(nodes, key=lambda what: nodes[what])
    return Bound(nodes=nodes[what], what=f"master's {what}", exchanges_per_s=nodes[what] / round_s)


def _round_s(c: Cluster) -> float:
    """Mean time from one exchange of a node to its next, where it need not queue."""
    B = c.most_local_updates if c.B == "auto" else c.B
    times = _times(c)
    sizes, work = c.sizes(), c.work()
    assert sizes.v is not None and sizes.delta is not None
    slowest = min(c.link.bytes_per_s, c.masters * (c.master_link or c.link).bytes_per_s)
    transfer_s = (sizes.delta + sizes.v) / slowest + 2 * (c.link.latency_s + c.notice_s)
    exchange_s = transfer_s + work.push_s + work.answer_s + 3 * work.message_s
    if c.exchange == "overlap":
        lost_s = 0.0 if c.free_core else c.node_s / c.cores
        return max(B * times.mean_s + lost_s, c.node_s + exchange_s)
    return _slowest_s(c, B) + c.node_s + exchange_s


def _slowest_s(c: Cluster, B: int) -> float:
    """Mean time until each process of a node has made B updates."""
    times = _times(c)
    return float(np.mean([times.slowest(B, c.cores) for _ in range(256)]))


def _times(c: Cluster) -> UpdateTimes:
    return UpdateTimes(c.update_s, c.variation, samples=c.update_times_s, seed=c.seed)


def simulate(cluster: Cluster, progress: Callable[[float], None] = lambda _: None) -> Outcome:
    """Let a cluster work for a while.

    Args:
        cluster: What to simulate.
        progress: Told now and then how much of it is done, from 0 to 1.
    """
    simulation = _Simulation(cluster, progress)
    try:
        return simulation.run()
    finally:
        simulation.clock.close()


class _Enough(Exception):  # noqa: N818 - not an error: nothing more is to be seen
    """The simulated time is over."""


class _Simulation(Watch):
    """A cluster at work, and the watch that looks on."""

    def __init__(self, cluster: Cluster, progress: Callable[[float], None]) -> None:
        c = self._cluster = cluster
        self.clock = SimulatedClock()
        self._progress = progress
        self._told = 0
        self._lost = 0
        self._exchanges = 0
        self._most_exchanges = c.exchanges or max(20_000, 30 * c.nodes)
        self._least_s = _AUTO_S if c.B == "auto" else _LEAST_S
        self._taus: list[int] = []
        self._waited_s = 0.0
        self._began: _Counts | None = None
        self._port, workers = connect(
            self.clock,
            c.nodes,
            c.limits,
            node_link=c.link,
            master_link=c.master_link,
            notice_s=c.notice_s,
            masters=c.masters,
            sizes=c.sizes(),
            work=c.work(),
            seed=c.seed,
        )
        times = _times(c)
        slow = round(c.nodes * c.stragglers[0])
        self._slowness = [c.stragglers[1] if node < slow else 1.0 for node in range(c.nodes)]
        self._crews = [
            TimedCrew(
                self.clock,
                c.cores,
                times,
                slowness=slowness,
                exchange_s=c.node_s,
                free_core=c.free_core,
                keep_s=c.keep_s,
            )
            for slowness in self._slowness
        ]
        self._full_speed = c.cores / times.mean_s * sum(1 / slowness for slowness in self._slowness)
        self.clock.start(self._master, self._port)
        nodes = [self.clock.start(self._node, *each) for each in zip(workers, self._crews, strict=True)]
        if c.node_hours < math.inf:
            lives_s = np.random.default_rng(c.seed).exponential(3600 * c.node_hours, c.nodes)
            for process, life_s in zip(nodes, lives_s.tolist(), strict=True):
                self.clock.call_at(life_s, self.clock.kill, process)

    def run(self) -> Outcome:
        """Until the time is over, or training has failed."""
        ended = None
        try:
            self.clock.run()
        except _Enough:
            pass
        except HSA2CError as error:
            ended = str(error)
        return self._outcome(ended)

    def _master(self, port: SimulatedMaster) -> None:
        v: Vector = np.zeros(0, np.float32)
        if port.assemble(self):
            master(v, GlobalStep(1.0, 0.0, 0), port, self, self._cluster.M or self._cluster.nodes)

    def _node(self, port: SimulatedWorker, crew: TimedCrew) -> None:
        c = self._cluster
        overlapping = c.exchange == "overlap"
        if c.B == "auto":
            pace = Pace(
                1, c.cores, most=c.most_local_updates, target=c.exchange_share, overlapping=overlapping, rate_B=8
            )
        else:
            pace = Pace(c.B, c.cores, overlapping=overlapping)
        paced = PacedCrew(crew, pace, clock=self.clock, cpu_clock=lambda: crew.exchanging_cpu_s)
        follow = overlapping_worker if overlapping else worker
        try:
            follow(port, paced, pace.B)
        except HSA2CError as error:
            port.fail(str(error))

    # The watch.

    def stopping(self) -> bool:
        """See `Watch`."""
        now = self.clock.now
        done = max(now / self._cluster.seconds, min(self._exchanges / self._most_exchanges, now / self._least_s))
        if done >= 1:
            raise _Enough
        if self._began is None and done >= 1 / 3:
            self._began = self._counts()
            self._taus.clear()
            self._waited_s = 0.0
        if done * 50 >= self._told:
            self._told = int(done * 50) + 1
            self._progress(done)
        return False

    def received(self, push: Push, tau: int) -> None:
        """See `Watch`."""
        self._exchanges += 1
        self._taus.append(tau)
        self._waited_s += push.waited_s

    def lost(self, node: int, why: str) -> None:
        """See `Watch`."""
        self._lost += 1

    # Reckoning.

    def _counts(self) -> _Counts:
        return _Counts(
            seconds=self.clock.now,
            updates=sum(crew.made for crew in self._crews),
            exchanges=self._exchanges,
            worked_s=self._port.worked_s,
            carried_s=(self._port.into.busy_s, self._port.out.busy_s),
        )

    def _outcome(self, ended: str | None) -> Outcome:
        began = self._began or _Counts(seconds=0.0, updates=0.0, exchanges=0, worked_s=0.0, carried_s=(0.0, 0.0))
        now = self._counts()
        seconds = max(now.seconds - began.seconds, 1e-9)
        updates, exchanges = now.updates - began.updates, now.exchanges - began.exchanges
        carried_s = max(b - a for a, b in zip(began.carried_s, now.carried_s, strict=True))
        return Outcome(
            agent_steps_per_s=updates * self._cluster.samples / seconds,
            speed_share=updates / seconds / self._full_speed,
            exchanges_per_s=exchanges / seconds,
            updates_in_delta=updates / self._cluster.cores / exchanges if exchanges else math.nan,
            exchange_s=self._waited_s / exchanges if exchanges else math.nan,
            master_cpu=min(1.0, (now.worked_s - began.worked_s) / seconds),
            master_link=min(1.0, carried_s / seconds),
            tau_mean=float(np.mean(self._taus)) if self._taus else math.nan,
            tau_max=max(self._taus, default=0),
            lost=self._lost,
            simulated_s=now.seconds,
            ended=ended,
            limit=bound(self._cluster),
        )


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Everything that grows, at one moment."""

    seconds: float
    updates: float
    exchanges: int
    worked_s: float
    carried_s: tuple[float, float]


def verdict(c: Cluster, o: Outcome) -> str:
    """In words: up to how many nodes more of them help, and why not beyond; what else costs speed here."""
    most = math.floor(o.limit.nodes)
    if o.ended is not None:
        words = [f"training ends: {o.ended}"]
    elif c.nodes <= most:
        words = [f"help up to {most:,}: then the {o.limit.what}"]
    else:
        words = [f"help no more beyond {most:,}: the {o.limit.what}"]
    if o.lost and o.ended is None:
        words.append(f"{o.lost:,} times a node was given up")
    if c.exchange == "overlap" and isinstance(c.B, int) and o.updates_in_delta > 1.1 * c.B:
        words.append("an exchange takes longer than B updates")
    if c.exchange == "paper" and not math.isnan(o.updates_in_delta):
        B = max(1, round(o.updates_in_delta))
        waits = 1 - B * _times(c).mean_s / _slowest_s(c, B)
        if waits >= 0.05:
            words.append(f"waiting for a node's slowest process costs {100 * waits:.0f} %")
    slower = c.stragglers[0] * (1 - 1 / c.stragglers[1])
    if slower >= 0.05:
        words.append(f"stragglers cost {100 * slower:.0f} %")
    return "; ".join(words)
