"""How fast a cluster would be that one does not have: the algorithms over a simulated clock
(`hsa2c.simulation.network`).

What is simulated is the whole exchange, with the ports, the pace and the limits of a real run; of the updates only how
long they take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import Monitor, Push, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.worker import overlapping_worker, worker
from hsa2c.errors import HSA2CError
from hsa2c.node.pace import Pace, PacedPool
from hsa2c.simulation.clock import SimulatedClock
from hsa2c.simulation.cluster import Bound, Cluster, bound, kept_every_s, lives_s, slowest_s, slowness, update_times
from hsa2c.simulation.network import SimulatedMaster, SimulatedWorker, connect
from hsa2c.simulation.process_pool import TimedPool, UpdateTimes
from hsa2c.simulation.steady import steady_since

__all__ = ["FULL", "Bound", "Cluster", "Outcome", "bound", "conclusion", "simulate"]

FULL = 0.9  # a master's processor or link that is busy for so much of the time cannot take more
_LEAST_S = 3.0  # of the cluster's time, however many exchanges
_AUTO_S = 60.0  # the same, where B is to find its value: it is considered every 5 s
_ROUNDS, _AUTO_ROUNDS = 8, 24  # at least, before the figures can stand still; B may change after every three
_ROUND = 500  # exchanges, at least
_LOOSER = 2.5  # as many times as well known is how long an exchange takes: it depends on who meets whom


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was seen, in at most the last two thirds of the simulated time."""

    samples_per_s: float
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


class _Simulation(Monitor):
    """A cluster at work, and the monitor that looks on."""

    def __init__(self, cluster: Cluster, progress: Callable[[float], None]) -> None:
        c = self._cluster = cluster
        self.clock = SimulatedClock()
        self._progress = progress
        self._told = 0
        self._lost = 0
        self._exchanges = 0
        self._most_exchanges = c.exchanges or max(20_000, 30 * c.nodes)
        self._least_s = _AUTO_S if c.B == "auto" else _LEAST_S
        self._least_rounds = _AUTO_ROUNDS if c.B == "auto" else _ROUNDS
        # Nodes that die are few: the figures stand still between two of them, and change all the same.
        self._to_the_end = c.exchanges is not None or c.node_hours < math.inf
        slowest = c.stragglers[1] if c.stragglers[0] else 1.0
        self._round = max(_ROUND, math.ceil(slowest * c.nodes))  # exchanges
        self._ends = [_Counts()]  # of rounds
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
        slow, times = slowness(c), update_times(c)
        self._pools = [self._pool(node, each, times) for node, each in enumerate(slow)]
        self._full_speed = c.cores / times.mean_s * sum(1 / each for each in slow)
        self._start(workers)

    def _pool(self, node: int, slowness: float, times: UpdateTimes) -> TimedPool:
        c = self._cluster
        return TimedPool(
            self.clock,
            c.cores,
            times,
            slowness=slowness,
            exchange_s=c.node_s,
            free_core=c.free_core,
            keep_s=c.keep_s,
            # All at once after 50 s, and again, would be a wave that the rates rise and fall with for many minutes.
            first_keep_s=kept_every_s(c) * (node + 1) / c.nodes,
        )

    def _start(self, workers: Sequence[SimulatedWorker]) -> None:
        """Start the master and the nodes; some of them for a while only."""
        c = self._cluster
        self.clock.start(self._master, self._port)
        nodes = [self.clock.start(self._node, *each) for each in zip(workers, self._pools, strict=True)]
        for process, life_s in zip(nodes, lives_s(c), strict=True):
            if life_s < math.inf:
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

    def _node(self, port: SimulatedWorker, pool: TimedPool) -> None:
        c = self._cluster
        overlapping = c.exchange == "overlap"
        if c.B == "auto":
            pace = Pace(
                1, c.cores, most=c.most_local_updates, target=c.exchange_share, overlapping=overlapping, rate_B=8
            )
        else:
            pace = Pace(c.B, c.cores, overlapping=overlapping)
        paced = PacedPool(pool, pace, clock=self.clock, cpu_clock=lambda: pool.exchanging_cpu_s)
        follow = overlapping_worker if overlapping else worker
        try:
            follow(port, paced, pace.B)
        except HSA2CError as error:
            port.fail(str(error))

    # The monitor.

    def stopping(self) -> bool:
        """See `Monitor`."""
        done = self._done()
        if self._began is None and done >= 1 / 3:
            self._began = self._counts()
        if done >= 1 or self._known():
            raise _Enough
        if done * 50 >= self._told:
            self._told = int(done * 50) + 1
            self._progress(done)
        return False

    def received(self, push: Push, tau: int) -> None:
        """See `Monitor`."""
        self._exchanges += 1
        self._taus.append(tau)
        self._waited_s += push.waited_s

    def lost(self, node: int, why: str) -> None:
        """See `Monitor`."""
        self._lost += 1

    # Reckoning.

    def _done(self) -> float:
        """Share of the longest that this lasts."""
        now = self.clock.now
        return max(now / self._cluster.seconds, min(self._exchanges / self._most_exchanges, now / self._least_s))

    def _known(self) -> bool:
        """Whether a round ends here, and the figures stand still; what counts begins then when they began to."""
        last, rounds = self._ends[-1], len(self._ends)
        round_s = self._least_s / self._least_rounds
        if (
            self._to_the_end
            or self._exchanges - last.exchanges < self._round
            or self.clock.now - last.seconds < round_s
        ):
            return False
        self._ends.append(self._counts())
        if rounds < self._least_rounds:
            return False
        grown = np.diff([[end.seconds, end.updates, end.exchanges, end.waited_s] for end in self._ends], axis=0)
        seconds, updates, exchanges, waited_s = grown.T
        tolerance = self._cluster.tolerance
        since = steady_since(
            np.stack([updates / seconds, exchanges / seconds, waited_s / exchanges], axis=1),
            [tolerance, tolerance, _LOOSER * tolerance],
        )
        if since is not None:
            self._began = self._ends[since]
        return since is not None

    def _counts(self) -> _Counts:
        return _Counts(
            seconds=self.clock.now,
            updates=sum(pool.made for pool in self._pools),
            exchanges=self._exchanges,
            waited_s=self._waited_s,
            worked_s=self._port.worked_s,
            carried_s=(self._port.into.busy_s, self._port.out.busy_s),
        )

    def _outcome(self, ended: str | None) -> Outcome:
        began, now = self._began or _Counts(), self._counts()
        taus = self._taus[began.exchanges :]
        seconds = max(now.seconds - began.seconds, 1e-9)
        updates, exchanges = now.updates - began.updates, now.exchanges - began.exchanges
        carried_s = max(b - a for a, b in zip(began.carried_s, now.carried_s, strict=True))
        return Outcome(
            samples_per_s=updates * self._cluster.samples / seconds,
            speed_share=updates / seconds / self._full_speed,
            exchanges_per_s=exchanges / seconds,
            updates_in_delta=updates / self._cluster.cores / exchanges if exchanges else math.nan,
            exchange_s=(now.waited_s - began.waited_s) / exchanges if exchanges else math.nan,
            master_cpu=min(1.0, (now.worked_s - began.worked_s) / seconds),
            master_link=min(1.0, carried_s / seconds),
            tau_mean=float(np.mean(taus)) if taus else math.nan,
            tau_max=max(taus, default=0),
            lost=self._lost,
            simulated_s=now.seconds,
            ended=ended,
            limit=bound(self._cluster),
        )


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Everything that grows, at one moment."""

    seconds: float = 0.0
    updates: float = 0.0
    exchanges: int = 0
    waited_s: float = 0.0
    worked_s: float = 0.0
    carried_s: tuple[float, float] = (0.0, 0.0)


def conclusion(c: Cluster, o: Outcome) -> str:
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
        waits = 1 - B * update_times(c).mean_s / slowest_s(c, B)
        if waits >= 0.05:
            words.append(f"waiting for a node's slowest process costs {100 * waits:.0f} %")
    slower = c.stragglers[0] * (1 - 1 / c.stragglers[1])
    if slower >= 0.05:
        words.append(f"stragglers cost {100 * slower:.0f} %")
    return "; ".join(words)
