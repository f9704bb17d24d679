"""The simulated transport: conformance, times by hand, losses; nodes that only take time against those that work."""

from __future__ import annotations

import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.worker import overlapping_worker, worker
from hsa2c.simulation.clock import SimulatedClock
from hsa2c.simulation.links import Lane, Link, Sizes, Work
from hsa2c.simulation.network import SimulatedMaster, SimulatedWorker, connect
from hsa2c.simulation.process_pool import TimedPool, UpdateTimes
from hsa2c.simulation.stepped_pool import SteppedPool
from tests.dpsgd import waiting
from tests.dpsgd.monitors import Record
from tests.transport import conformance
from tests.transport.conformance import MASTER, Check, checks

SLOW_LINK = Link(bytes_per_s=1e8, latency_s=1e-4)


class SimulatedCues:
    """Cues between processes of a simulated clock."""

    def __init__(self, clock: SimulatedClock, me: int, given: dict[tuple[int, int], int]) -> None:
        self._clock, self._me, self._given = clock, me, given

    def give(self, to: int) -> None:
        self._given[self._me, to] = self._given.get((self._me, to), 0) + 1

    def take(self, source: int) -> None:
        waiting.wait_until(lambda: self._given.get((source, self._me), 0) > 0, "a cue")
        self._given[source, self._me] -= 1


@pytest.mark.parametrize("name", checks("simulated"))
def test_conformance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check: Check = checks("simulated")[name]()
    clock = SimulatedClock()
    monkeypatch.setattr(conformance, "time", types.SimpleNamespace(sleep=clock.sleep, monotonic=clock))
    monkeypatch.setattr(waiting, "time", types.SimpleNamespace(sleep=clock.sleep, monotonic=clock))
    port, workers = connect(clock, check.nodes, check.limits, node_link=SLOW_LINK, encoding=check.encoding)
    given: dict[tuple[int, int], int] = {}
    failures: list[str] = []

    def take_part(me: int) -> None:
        cues = SimulatedCues(clock, me, given)
        try:
            check.master(port, cues) if me == MASTER else check.node(me, workers[me], cues)
        except Exception:
            failures.append(f"player {me}\n{traceback.format_exc()}")

    for me in range(MASTER, check.nodes):
        clock.start(take_part, me)
    clock.run()
    assert not failures, "\n".join(failures)
    assert clock.now > 0


# Times by hand.

V_BYTES = 2_704_000
LINK = Link(bytes_per_s=125e6, latency_s=0.001)
WORK = Work(message_s=0.0001, push_s=0.002, answer_s=0.001)


def stepping(limit: int) -> Record:
    return Record(stop=lambda record: record.t >= limit)


def play(
    clock: SimulatedClock,
    ports: tuple[SimulatedMaster, list[SimulatedWorker]],
    pools: Sequence[Any],
    monitor: Record,
    *,
    B: int = 8,
    M: int = 1,
    loop: Callable[..., None] = worker,
    v: Vector | None = None,
    rho: float = 1.0,
) -> Vector:
    """Run both algorithms until the monitor says stop; gives back v."""
    master_port, workers = ports
    v = np.zeros(0, np.float32) if v is None else v.copy()

    def lead() -> None:
        if master_port.assemble(monitor):
            master(v, GlobalStep(rho, 0.0, v.size), master_port, monitor, M)

    clock.start(lead)
    for port, pool in zip(workers, pools, strict=True):
        clock.start(loop, port, pool, B)
    clock.run()
    return v


class Times(Record):
    """Also writes down when each step was done."""

    def __init__(self, clock: SimulatedClock, steps: int) -> None:
        super().__init__(stop=lambda record: record.t >= steps)
        self._clock = clock
        self.stepped_at: list[float] = []

    def stepped(self, t: int, v: Vector) -> None:
        super().stepped(t, v)
        self.stepped_at.append(self._clock.now)


@pytest.mark.parametrize("masters", [1, 4])
def test_round_of_one_node_by_hand(masters: int) -> None:
    clock = SimulatedClock()
    sizes = Sizes(v=V_BYTES, delta=V_BYTES // 2, state=0, text=100)
    ports = connect(clock, 1, node_link=LINK, masters=masters, sizes=sizes, work=WORK)
    monitor = Times(clock, 5)
    play(clock, ports, [TimedPool(clock, 2, UpdateTimes(0.03))], monitor)
    lane = LINK.bytes_per_s / masters  # of a node, for each slice
    there_s = 0.001 + (64 + V_BYTES / 2 / masters + 100) / lane  # the pull comes while the delta is summed
    work_s = WORK.push_s + WORK.answer_s + 3 * WORK.message_s
    back_s = 0.001 + (64 + V_BYTES / masters) / lane
    assert np.diff(monitor.stepped_at) == pytest.approx(8 * 0.03 + there_s + work_s + back_s)
    in_short_s = 2 * 0.001 + 1.5 * V_BYTES / 125e6  # however many masters
    assert there_s + back_s == pytest.approx(in_short_s, rel=0.001)


def test_overlapped_exchange_costs_only_what_it_takes_of_the_processor() -> None:
    clock = SimulatedClock()
    ports = connect(clock, 1, node_link=LINK, sizes=Sizes(v=V_BYTES, delta=V_BYTES, state=0, text=0), work=WORK)
    monitor = Times(clock, 6)
    pool = TimedPool(clock, 4, UpdateTimes(0.03), exchange_s=0.008)
    play(clock, ports, [pool], monitor, loop=overlapping_worker)
    assert np.diff(monitor.stepped_at)[:-1] == pytest.approx(8 * 0.03 + 0.008 / 4)  # the last one is what was left
    assert pool.exchanging_cpu_s == pytest.approx(0.008 * 6)


def test_an_exchange_longer_than_b_updates_makes_the_next_one_late() -> None:
    clock = SimulatedClock()
    ports = connect(clock, 1, node_link=LINK, sizes=Sizes(v=10 * V_BYTES, delta=10 * V_BYTES, state=0, text=0))
    monitor = Times(clock, 6)
    pool = TimedPool(clock, 4, UpdateTimes(0.03))
    play(clock, ports, [pool], monitor, loop=overlapping_worker)
    round_s = 2 * (0.001 + (64 + 10 * V_BYTES) / 125e6)
    assert round_s > 8 * 0.03
    assert np.diff(monitor.stepped_at)[:-1] == pytest.approx(round_s, rel=1e-4)
    # And they went on meanwhile, from the first v to the master's stop.
    assert pool.updates == pytest.approx(4 * (clock.now - round_s) / 0.03, rel=0.02)


def test_messages_share_a_link() -> None:
    """Three nodes push at once: each has a third of the master's link, and all deltas come three times as late."""
    clock = SimulatedClock()
    ports = connect(clock, 3, node_link=LINK, sizes=Sizes(v=0, delta=V_BYTES, state=0, text=0))
    monitor = Times(clock, 3)
    play(clock, ports, [TimedPool(clock, 1, UpdateTimes(0.03)) for _ in range(3)], monitor, M=1)
    there_s = 0.001 + 3 * (64 + V_BYTES) / 125e6
    first_v_s = 2 * 0.001 + 2 * 3 * 64 / 125e6  # a pull of nothing, and its answer
    assert np.array(monitor.stepped_at) == pytest.approx(first_v_s + 8 * 0.03 + there_s, abs=1e-5)


def carried(
    messages: Sequence[tuple[float, int]], bytes_per_s: float, each: float, tcp: Link | None = None, *, seed: int = 0
) -> tuple[list[float], Lane]:
    """When each message, given when it comes and how long it is, has been carried."""
    clock = SimulatedClock()
    lane = Lane(clock, bytes_per_s, each, tcp, seed=seed)
    ends = [0.0] * len(messages)

    def begin(number: int) -> None:
        lane.carry(messages[number][1], lambda: ends.__setitem__(number, clock.now))

    for number, (at, _) in enumerate(messages):
        clock.call_at(at, begin, number)
    clock.start(lambda: clock.sleep(1e4))
    clock.run()
    return ends, lane


def test_shares_of_a_link_by_hand() -> None:
    # The first has had 50 bytes when the second comes; then both have 50 to go, at 50 a second.
    ends, lane = carried([(0.0, 100), (0.5, 50), (10.0, 100)], 100.0, 100.0)
    assert ends == pytest.approx([1.5, 1.5, 11.0])
    assert lane.busy_s == pytest.approx(2.5)
    assert carried([(0.0, 100), (0.5, 50)], 100.0, 30.0)[0] == pytest.approx([100 / 30, 0.5 + 50 / 30])


def test_who_comes_first_keeps_more_of_a_link() -> None:
    # 80 a second and 20, until the first is through; then the second has all. A third would have a quarter of 20.
    assert carried([(0.0, 80), (0.0, 80)], 100.0, 100.0, Link(seniority=0.75))[0] == pytest.approx([1.0, 1.6])
    ends = carried([(0.0, 160), (0.0, 40), (0.0, 10)], 210.0, 210.0, Link(seniority=0.75))[0]
    assert ends == pytest.approx([1.0, 1.0, 1.0])
    many = carried([(0.0, 1)] * 3000, 100.0, 100.0, Link(seniority=0.9))[0]
    assert max(many) == pytest.approx(30.0)


def test_what_shares_a_link_loses_some_of_it() -> None:
    # Two have 80 a second together until the first is through, three would have 67.
    ends, lane = carried([(0.0, 40), (0.0, 80)], 100.0, 100.0, Link(loss=0.25))
    assert ends == pytest.approx([1.0, 1.4])
    assert lane.busy_s == pytest.approx(1.2)
    assert carried([(0.0, 40)] * 3, 100.0, 100.0, Link(loss=0.25))[0] == pytest.approx([1.8] * 3)


@pytest.mark.parametrize("unfairness", [0.0, 0.5])
def test_shares_of_a_link_are_those_of_small_steps(unfairness: float) -> None:
    random = np.random.default_rng(3)
    messages = [
        (float(at), int(size)) for at, size in zip(random.uniform(0, 8, 20), random.integers(1, 90, 20), strict=True)
    ]
    ends, lane = carried(messages, 100.0, 60.0, Link(unfairness=unfairness), seed=4)
    weights = Random(4)
    by_arrival = sorted(range(20), key=lambda k: messages[k][0])
    weight = {k: weights.lognormvariate(0.0, unfairness) if unfairness else 1.0 for k in by_arrival}
    left = {k: float(size) for k, (_, size) in enumerate(messages)}
    step_s, now, seen = 1e-3, 0.0, [0.0] * 20
    while left:
        there = [k for k in left if messages[k][0] <= now]
        now += step_s
        for k in there:
            left[k] -= min(100.0, 60.0 * len(there)) * weight[k] / sum(weight[j] for j in there) * step_s
        for k in [k for k in there if left[k] <= 0]:
            seen[k] = now
            del left[k]
    assert ends == pytest.approx(seen, abs=0.05)
    assert lane.busy_s == pytest.approx(sum(size for _, size in messages) / 100.0)


def test_a_process_looks_now_and_then() -> None:
    clock = SimulatedClock()
    monitor = Times(clock, 400)
    ports = connect(clock, 1, node_link=LINK, notice_s=0.004, sizes=Sizes(v=0, delta=0, state=0, text=0))
    play(clock, ports, [TimedPool(clock, 1, UpdateTimes(0.03))], monitor, B=1)
    late_s = np.diff(monitor.stepped_at) - 0.03 - 2 * (0.001 + 64 / 125e6)
    assert late_s.min() >= 0.0
    # The delta, how much later the pull, and the answer: each at most 8 ms, on the average 4, 8 / 6 and 4.
    assert late_s.max() <= 0.024
    assert late_s.mean() == pytest.approx(0.004 + 0.008 / 6 + 0.004, rel=0.08)


def test_a_loss_is_noticed_and_training_goes_on() -> None:
    clock = SimulatedClock()
    ports = connect(clock, 3, node_link=LINK)
    monitor = Times(clock, 10**9)
    monitor._stop = lambda _: clock.now > 60.0
    losses_at: list[float] = []
    monitor.lost = lambda node, why: (monitor.losses.append((node, why)), losses_at.append(clock.now))
    master_port, workers = ports

    def lead() -> None:
        assert master_port.assemble(monitor)
        master(np.zeros(0, np.float32), GlobalStep(1.0, 0.0, 0), master_port, monitor, 3)

    clock.start(lead)
    nodes = [clock.start(worker, port, TimedPool(clock, 2, UpdateTimes(0.03)), 8) for port in workers]
    clock.call_at(20.0, clock.kill, nodes[1])
    clock.run()
    assert monitor.losses == [(1, "silent for 15 s")]
    assert losses_at[0] == pytest.approx(35.0, abs=0.5)
    steps = np.array(monitor.stepped_at)
    for begin, end in ((5, 20), (40, 60)):  # three deltas of three, or two of two: as many steps
        assert np.sum((steps > begin) & (steps < end)) == pytest.approx((end - begin) / 0.242, rel=0.05)
    between = np.sum((steps > 21) & (steps < 34))
    assert between == pytest.approx(13 / 0.242 * 2 / 3, rel=0.1)  # three deltas of two nodes


# Nodes.


def lasts(pool: str, loop: Callable[..., None], variation: float, seed: int) -> tuple[float, float]:
    """Mean and standard error of rounds of B = 3 updates by p = 4 processes, over a link that takes no time."""
    clock = SimulatedClock()
    times = UpdateTimes(0.03, variation, seed=seed)
    p = 4
    node: Any
    if pool == "timed":
        node = TimedPool(clock, p, times)
    else:
        still = [Still() for _ in range(p)]
        node = SteppedPool(still, lambda u, g, rate_scale: None, 0, clock, times)
    monitor = Times(clock, 800)
    play(clock, connect(clock, 1), [node], monitor, B=3, loop=loop)
    rounds = np.diff(monitor.stepped_at)
    assert node.updates >= 800 * p * 3
    return float(rounds.mean()), float(rounds.std() / np.sqrt(rounds.size))


class Still(Problem):
    """Nothing to minimise."""

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any:
        return u_hat

    def report(self) -> Mapping[str, Any]:
        return {}

    def close(self) -> None:
        pass


@pytest.mark.parametrize("loop", [worker, overlapping_worker])
@pytest.mark.parametrize("variation", [0.0, 0.3, 1.0])
def test_one_draw_is_as_good_as_every_update(loop: Callable[..., None], variation: float) -> None:
    mean_s, error_s = lasts("timed", loop, variation, 1)
    expected_s, expected_error_s = lasts("stepped", loop, variation, 2)
    assert mean_s == pytest.approx(expected_s, abs=4 * (error_s + expected_error_s) + 1e-6)


def test_draws_have_the_mean_and_the_variance_that_were_asked_for() -> None:
    for B, p in ((1, 1), (5, 3), (100, 2)):  # of the last, sums are gamma-distributed
        sums = UpdateTimes(0.02, 0.5).sums(B * p, 40_000)
        assert sums.mean() == pytest.approx(0.02 * B * p, rel=0.02)
        assert sums.std() == pytest.approx(0.5 * 0.02 * np.sqrt(B * p), rel=0.03)
    measured = UpdateTimes(0.0, samples=[0.01, 0.03])
    assert measured.mean_s == pytest.approx(0.02)
    assert {measured.one() for _ in range(100)} == {0.01, 0.03}
    assert measured.sums(200, 40_000).std() == pytest.approx(0.01 * np.sqrt(200), rel=0.03)
    # Three quarters of the time one of two processes takes 0.03.
    assert np.mean([measured.slowest(1, 2) for _ in range(20_000)]) == pytest.approx(0.025, rel=0.01)


# A real problem.


class Rows(Problem):
    """Least squares over random rows: f(u) = mean |x u - y|^2 / 2, with noise in y."""

    def __init__(self, truth: Vector, seed: int) -> None:
        self._truth = truth
        self._random = np.random.default_rng(seed)

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> Any:
        x = self._random.standard_normal((8, self._truth.size)).astype(np.float32)
        y = x @ self._truth + 0.1 * self._random.standard_normal(8).astype(np.float32)
        return (x.T @ (x @ u_hat - y) / 8).astype(np.float32)

    def report(self) -> Mapping[str, Any]:
        return {}

    def close(self) -> None:
        pass


TRUTH = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
ETA = np.float32(0.02)


def sgd(u: Vector, g: Any, rate_scale: float) -> None:
    u -= ETA * np.float32(rate_scale) * g


def learn(loop: Callable[..., None], nodes: int, p: int, seed: int, steps: int = 60) -> tuple[Vector, Times]:
    clock = SimulatedClock()
    times = UpdateTimes(0.03, 0.5, seed=seed)
    pools = [
        SteppedPool([Rows(TRUTH, 1000 * seed + 10 * node + k) for k in range(p)], sgd, 4, clock, times)
        for node in range(nodes)
    ]
    monitor = Times(clock, steps)
    ports = connect(clock, nodes, node_link=LINK, sizes=Sizes(v=V_BYTES, delta=V_BYTES), work=WORK)
    v = play(clock, ports, pools, monitor, B=4, M=nodes, loop=loop, v=np.zeros(4, np.float32), rho=1 / nodes)
    return v, monitor


@pytest.mark.parametrize("loop", [worker, overlapping_worker])
def test_several_nodes_converge(loop: Callable[..., None]) -> None:
    v, monitor = learn(loop, nodes=5, p=3, seed=1)
    np.testing.assert_allclose(v, TRUTH, atol=0.05)
    assert max(monitor.taus) >= 1


@pytest.mark.parametrize("loop", [worker, overlapping_worker])
def test_a_seed_repeats_to_the_last_bit(loop: Callable[..., None]) -> None:
    (v, monitor), (again, monitor_again) = (learn(loop, nodes=3, p=2, seed=7, steps=10) for _ in range(2))
    assert v.tobytes() == again.tobytes()
    assert monitor.stepped_at == monitor_again.stepped_at
    other, monitor_other = learn(loop, nodes=3, p=2, seed=8, steps=10)
    assert other.tobytes() != v.tobytes()
    assert monitor_other.stepped_at != monitor.stepped_at


def test_one_node_and_no_time_is_serial_sgd() -> None:
    clock = SimulatedClock()
    start = np.array([1.0, 1.1, 1.2, 1.3], np.float32)
    truth = np.array([1.25, 1.0, 1.5, 1.2], np.float32)  # so near that v + (u - v) is u: see test_algorithms
    pool = SteppedPool([Rows(truth, 3)], sgd, 4, clock, UpdateTimes(0.0))
    v = play(clock, connect(clock, 1), [pool], stepping(10), B=7, v=start)
    u, problem = start.copy(), Rows(truth, 3)
    for _ in range(70):
        sgd(u, problem.gradient(u.copy(), lambda: False), 1.0)
    assert v.tobytes() == u.tobytes()
