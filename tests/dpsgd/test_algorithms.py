"""Algorithms 1 and 2 against slow loops shaped like the paper's equations, and the special cases of section 3.4."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import MasterPort, Monitor, Push, Vector
from hsa2c.dpsgd.steps import GlobalStep, constant_factor_rho, corollary_rate
from hsa2c.dpsgd.worker import Pool, actor_learner, worker
from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.node.process_pool import ProcessPool
from hsa2c.node.serial import SerialPool
from hsa2c.transport.inprocess import connect
from hsa2c.transport.messages import Limits
from tests.dpsgd.monitors import Record
from tests.dpsgd.problems import quadratic
from tests.dpsgd.waiting import LIMIT_S, Turns, wait_until

LIMITS = Limits(start_s=LIMIT_S, silence_s=LIMIT_S)
ETA = 0.05
SGD = Rule(name="sgd", learning_rate=ETA)

# For every coordinate, u stays between v / 2 and 2 v on the way from START to TARGET, whatever the updates. So u - v is
# exact in float32 (Sterbenz, 1974), and v + (u - v) is u to the last bit: nothing is lost in a delta.
START = torch.tensor([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
TARGET = torch.tensor([1.5, 1.0, 1.45, 1.2, 1.05, 1.1])
CURVATURE = torch.tensor([1.0, 0.3, 0.7, 1.3, 0.1, 2.0])


def gradient(u: torch.Tensor) -> torch.Tensor:
    return CURVATURE * (u - TARGET)


# Algorithm 1


class ScriptedNodes(MasterPort):
    """Nodes that need no computing: who pushes next is listed, and each pulls again at once.

    Args:
        order: The node of each push.
        work: Gives u from v as pulled, and the number of the push.
        late: How many of the pushes come only after the master has stopped.
    """

    def __init__(self, order: list[int], work: Callable[[Vector, int], Vector], late: int) -> None:
        self._order = order
        self._work = work
        self._in_time = len(order) - late
        self._pulled: dict[int, tuple[Vector, int]] = {}
        self._waiting = set(order)
        self._pushes = 0

    @property
    def exhausted(self) -> bool:
        return self._pushes >= self._in_time

    def assemble(self, monitor: Monitor) -> bool:
        return True

    def collect(self, M: int, *, serving: Vector, t: int, monitor: Monitor) -> Iterator[Push]:
        for collected in itertools.count():
            if collected == M or monitor.stopping():
                return
            self._pulled |= {node: (serving.copy(), t) for node in self._waiting}
            self._waiting = set()
            yield self._push()

    def quorum(self, M: int) -> int:
        return M

    def drain(self, *, monitor: Monitor) -> Iterator[Push]:
        while self._pushes < len(self._order):
            yield self._push()

    def _push(self) -> Push:
        node = self._order[self._pushes]
        v, t = self._pulled[node]
        w = self._work(v, self._pushes) - v
        self._pushes += 1
        self._waiting.add(node)
        return Push(node, w, t)


def equation_4(
    v_0: Vector, order: list[int], work: Callable[[Vector, int], Vector], M: int, rho: float, mu: float
) -> tuple[list[Vector], list[int]]:
    """v_t and every tau, from the whole history: v_t = v_(t-1) + rho * sum_m (u_m - v_(t - 1 - tau_m)), in float64.

    The last sum may have fewer than M deltas.
    """
    history, velocity, taus = [v_0.astype(np.float64)], np.zeros(v_0.size), []
    pulled_at = dict.fromkeys(order, 0)  # the index in history of what each node has pulled
    for t in range(1, -(-len(order) // M) + 1):
        total = np.zeros(v_0.size)
        step_members = order[(t - 1) * M : t * M]
        for number, node in enumerate(step_members, start=(t - 1) * M):
            tau = (t - 1) - pulled_at[node]
            taus.append(tau)
            v_m = history[t - 1 - tau]
            total += work(v_m, number) - v_m
            # Its next pull: answered with v_(t-1) while the sum is not complete, else with v_t.
            pulled_at[node] = t - 1 if number + 1 < t * M else t
        velocity = mu * velocity + total
        history.append(history[t - 1] + rho * velocity)
    return history[1:], taus


def some_work(v: Vector, number: int) -> Vector:
    """What B updates might have made of v: something that depends on v, not linearly, and on which push it is."""
    return (v + 0.3 * np.cos(3 * v + number)).astype(v.dtype)


@settings(max_examples=60, deadline=None)
@given(
    order=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    M=st.integers(1, 5),
    mu=st.sampled_from([0.0, 0.5]),
    rho=st.sampled_from([1.0, 0.1]),
)
def test_master_is_equation_4(order: list[int], M: int, mu: float, rho: float) -> None:
    nodes = ScriptedNodes(order, some_work, late=0)
    monitor = Record(stop=lambda _: nodes.exhausted)
    v = np.linspace(-1, 1, 3, dtype=np.float32)
    expected, taus = equation_4(v, order, some_work, M, rho, mu)
    t = master(v, GlobalStep(rho, mu, v.size), nodes, monitor, M)
    assert t == len(expected) == len(monitor.vs)
    np.testing.assert_allclose(monitor.vs, expected, atol=2e-4)
    np.testing.assert_array_equal(v, monitor.vs[-1])
    assert monitor.taus == taus


def test_master_by_hand() -> None:
    """M = 2, rho = 0.5; node 0 is quick: both deltas of its first step are made from v_0. Node 2 is late."""
    deltas = [1.0, 2.0, 4.0, 8.0, 16.0]
    nodes = ScriptedNodes([0, 0, 0, 1, 2], lambda v, number: v + np.float32(deltas[number]), late=1)
    monitor = Record(stop=lambda _: nodes.exhausted)
    v = np.array([10.0], np.float32)
    assert master(v, GlobalStep(0.5, 0.0, 1), nodes, monitor, 2) == 3
    assert [float(v_t[0]) for v_t in monitor.vs] == [11.5, 17.5, 25.5]
    assert monitor.taus == [0, 0, 0, 1, 2]


def test_late_deltas_are_one_last_step_however_many() -> None:
    nodes = ScriptedNodes([0, 1, 2, 3], lambda v, _: v + 1, late=3)
    monitor = Record(stop=lambda _: nodes.exhausted)
    v = np.zeros(1, np.float32)
    assert master(v, GlobalStep(1.0, 0.0, 1), nodes, monitor, 1) == 2
    assert [float(v_t[0]) for v_t in monitor.vs] == [1.0, 4.0]
    assert monitor.taus == [0, 1, 1, 1]


class Shrinking(ScriptedNodes):
    """Nodes of which so many are there in each step."""

    def __init__(self, there: list[int]) -> None:
        super().__init__([0] * sum(there), lambda v, _: v + 1, 0)
        self._there = there

    def collect(self, M: int, *, serving: Vector, t: int, monitor: Monitor) -> Iterator[Push]:
        return super().collect(self.quorum(M), serving=serving, t=t, monitor=monitor)

    def quorum(self, M: int) -> int:
        at, pushes = 0, self._pushes
        while at < len(self._there) - 1 and pushes > sum(self._there[: at + 1]):
            at += 1
        return self._there[at]


def test_lost_nodes_are_not_waited_for_and_rho_follows_its_rule() -> None:
    """Three deltas of 1 at rho = 1/3, then one at rho = 1: v moves by the mean each time; a given rho stays."""
    for mean_of, expected in ((3, 1.0 + 1.0), (None, 1.0 + 1 / 3)):
        nodes = Shrinking([3, 1])
        v, monitor = np.zeros(1, np.float32), Record(stop=lambda _, nodes=nodes: nodes.exhausted)
        assert master(v, GlobalStep(1 / 3, 0.0, 1, mean_of=mean_of), nodes, monitor, 3) == 2
        assert v[0] == pytest.approx(expected)


@pytest.mark.parametrize(("max_delay", "last"), [(None, 10.0), (3, 10.0), (2, 10 * 2 / 3), (1, 10 / 3)])
def test_delta_that_is_older_than_the_bound_counts_for_less(max_delay: int | None, last: float) -> None:
    """Node 1 pulls at t = 0 and pushes 10 after three steps of node 0: tau = 3."""
    nodes = ScriptedNodes([0, 0, 0, 1], lambda v, push: v + (10 if push == 3 else 1), 0)
    v, monitor = np.zeros(1, np.float32), Record(stop=lambda _: nodes.exhausted)
    assert master(v, GlobalStep(1.0, 0.0, 1), nodes, monitor, 1, max_delay=max_delay) == 4
    assert monitor.taus == [0, 0, 0, 3]
    assert v[0] == pytest.approx(3 + last)


def test_no_delta_is_no_step() -> None:
    monitor = Record(stop=lambda _: True)
    v = np.ones(2, np.float32)
    assert master(v, GlobalStep(1.0, 0.9, 2), ScriptedNodes([], some_work, 0), monitor, 3, t=7) == 7
    assert monitor.vs == []
    np.testing.assert_array_equal(v, [1, 1])


def test_t_goes_on_where_the_resumed_run_was() -> None:
    nodes = ScriptedNodes([0, 0, 0], lambda v, _: v + 1, late=0)
    monitor = Record(stop=lambda _: nodes.exhausted)
    assert master(np.zeros(1, np.float32), GlobalStep(1.0, 0.0, 1), nodes, monitor, 1, t=100) == 103
    assert monitor.taus == [0, 0, 0]
    assert monitor.t == 103


# The global step and the rates


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rho", [1.0, 0.01])
def test_global_step_is_torch_sgd_on_minus_the_sum(mu: float, rho: float) -> None:
    v = START.numpy().copy()
    parameter = START.clone()
    reference = torch.optim.SGD([parameter], lr=rho, momentum=mu)
    step = GlobalStep(rho, mu, v.size)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        w_sum = torch.randn(v.size, generator=generator)
        parameter.grad = -w_sum
        reference.step()
        step(v, w_sum.numpy(), 1)
    np.testing.assert_allclose(v, parameter.numpy(), rtol=1e-5, atol=1e-6)
    if mu:
        np.testing.assert_allclose(step.z, -reference.state[parameter]["momentum_buffer"].numpy(), rtol=1e-5)


def test_global_step_by_hand() -> None:
    """The paper's momentum 0.5: z = 4, then 0.5 * 4 + 2 = 4."""
    v, step = np.array([1.0], np.float32), GlobalStep(0.25, 0.5, 1)
    step(v, np.array([4.0], np.float32), 1)
    assert (v[0], step.z[0]) == (2.0, 4.0)
    step(v, np.array([2.0], np.float32), 1)
    assert (v[0], step.z[0]) == (3.0, 4.0)


def test_global_step_stays_in_float32() -> None:
    v = np.ones(3, np.float32)
    kept = v
    for mu in (0.0, 0.5):
        GlobalStep(0.1, mu, 3)(v, np.ones(3, np.float32), 1)
    assert v is kept
    assert v.dtype == np.float32


def test_constant_factor_rho_by_hand() -> None:
    assert constant_factor_rho(1, 0.0) == 1.0
    assert constant_factor_rho(4, 0.5) == 0.125
    assert constant_factor_rho(60, 0.5, factor=1.2) == pytest.approx(0.01)  # the paper's constants at 60 nodes


@given(M=st.integers(1, 50), mu=st.floats(0, 0.9), factor=st.floats(0.1, 2))
def test_constant_factor_is_the_long_run_gain(M: int, mu: float, factor: float) -> None:
    """M equal deltas in every step move v, in the end, by factor times one of them."""
    v, step = np.zeros(1, np.float64), GlobalStep(constant_factor_rho(M, mu, factor), mu, 1)
    for _ in range(300):
        before = v.copy()
        step(v, np.full(1, M, np.float64), M)  # M deltas of 1
    assert float((v - before)[0]) == pytest.approx(factor, rel=1e-4)


def test_corollary_rate_by_hand() -> None:
    """Eq. 13 with 0.1: (p B M) = 2 * 2 * 4 = 16, whose fourth root is 2; M = 16 alone; and 10,000 to 10."""
    assert corollary_rate(0.1, p=1, B=1, M=1) == 0.1
    assert corollary_rate(0.1, p=2, B=2, M=4) == pytest.approx(0.05)
    assert corollary_rate(0.1, p=1, B=1, M=16) == pytest.approx(0.05)
    assert corollary_rate(0.2, p=10, B=20, M=50) == pytest.approx(0.02)


# Algorithm 2, lines 3 to 6


def test_actor_learner_by_hand() -> None:
    """u = 8, target 0, eta = 1/2: 4, 2, 1."""
    u, u_hat, seen = torch.tensor([8.0]), torch.empty(1), []

    def step(g: torch.Tensor) -> None:
        seen.append(float(u_hat))
        u.sub_(g, alpha=0.5)

    assert actor_learner(lambda: u_hat.copy_(u), quadratic(torch.zeros(1)), step, 3, lambda: False) == 3
    assert u.item() == 1.0
    assert seen == [8.0, 4.0, 2.0]


def test_actor_learner_ends_before_the_next_update_when_interrupted() -> None:
    steps = []
    done = actor_learner(lambda: torch.zeros(1), quadratic(torch.zeros(1)), steps.append, 1000, lambda: len(steps) == 4)
    assert done == len(steps) == 4


def test_actor_learner_drops_a_gradient_that_was_interrupted() -> None:
    class Interrupted:
        calls = 0

        def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
            self.calls += 1
            return None if self.calls == 3 else u_hat

        def report(self) -> dict[str, Any]:
            return {}

        def close(self) -> None:
            pass

    steps: list[torch.Tensor] = []
    assert actor_learner(lambda: torch.zeros(1), Interrupted(), steps.append, 10, lambda: False) == 2
    assert len(steps) == 2


# Section 3.4: special cases of both algorithms together


def run_both(
    pools: list[Pool], B: int, M: int, monitor: Record, step: GlobalStep, *, synchronous: bool = False
) -> Vector:
    """The last v of a whole run from START over queues, a thread for each node."""
    port, ports = connect(len(pools), LIMITS)
    port.synchronous = synchronous
    failures: list[BaseException] = []

    def work(node: int) -> None:
        try:
            worker(ports[node], pools[node], B)
        except BaseException as error:
            failures.append(error)
            ports[node].fail(repr(error))

    threads = [threading.Thread(target=work, args=(node,), daemon=True) for node in range(len(pools))]
    for thread in threads:
        thread.start()
    v = START.numpy().copy()
    assert port.assemble(monitor)
    t = master(v, step, port, monitor, M)
    for thread in threads:
        thread.join(LIMIT_S)
    assert failures == []
    assert t == monitor.t
    return v


def serial_sgd(updates: int, rule: Rule = SGD) -> torch.Tensor:
    u = START.clone()
    optimiser = torch.optim.SGD([u], lr=rule.learning_rate)
    for _ in range(updates):
        u.grad = gradient(u)
        optimiser.step()
    return u


def identity() -> GlobalStep:
    """rho = 1, no momentum."""
    return GlobalStep(1.0, 0.0, START.numel())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["serial process pool", "lock-free process pool"])
def test_one_node_p_1_is_serial_sgd(kind: str) -> None:
    """Bit for bit: v + (u - v) = u, see START."""
    dim = START.numel()
    monitor = Record(stop=lambda record: record.t >= 6)
    if kind == "serial process pool":
        v = run_both([SerialPool(quadratic(TARGET, CURVATURE), DenseLayout(dim, SGD))], 9, 1, monitor, identity())
    else:
        with contextlib.closing(ProcessPool(lambda _: quadratic(TARGET, CURVATURE), DenseLayout(dim, SGD), 1)) as pool:
            v = run_both([pool], 9, 1, monitor, identity())
    assert sum(report.get("updates", 0) for report in monitor.reports()) == 9 * 6
    for t, v_t in enumerate(monitor.vs, start=1):
        np.testing.assert_array_equal(v_t, serial_sgd(9 * t).numpy())
    np.testing.assert_array_equal(v, monitor.vs[-1])
    assert not np.array_equal(v, START.numpy())


class Orderly:
    """A problem of one of several nodes; their gradients are handed over in a listed order.

    Args:
        node: Whose it is.
        order: The node of each push.
        entered: For each node, how many gradients it was asked for: so it has pulled as often.
        monitor: Knows how many deltas the master has.
    """

    def __init__(self, node: int, order: list[int], entered: list[int], monitor: Record) -> None:
        self._mine = [turn for turn, who in enumerate(order) if who == node]
        self._node, self._order, self._entered, self._monitor = node, order, entered, monitor

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
        self._entered[self._node] += 1
        turn = self._mine.pop(0) if self._mine else None
        wait_until(lambda: interrupted() or (turn is not None and self._may_go(turn)), f"turn {turn} of {self._order}")
        return None if interrupted() else gradient(u_hat)

    def _may_go(self, turn: int) -> bool:
        """All before it are in v, and whoever pushed last has pulled again."""
        if self._monitor.t != turn:
            return False
        before = self._order[:turn]
        return all(self._entered[node] > before.count(node) for node in range(len(self._entered)))

    def report(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


@pytest.mark.timeout(60)
def test_p_1_B_1_is_asysg() -> None:
    """Lian et al. 2015: x_(k+1) = x_k - gamma * grad f(x_(k - tau_k)), with delays known from the order of pushes."""
    order = [0, 1, 1, 2, 1, 0, 0, 2, 1]
    taus = [0, 1, 0, 3, 1, 4, 0, 3, 3]  # counted by hand: pushes of others since this node's last one
    monitor = Record(stop=lambda record: record.t >= len(order))
    entered = [0, 0, 0]
    pools = [SerialPool(Orderly(node, order, entered, monitor), DenseLayout(START.numel(), SGD)) for node in range(3)]
    v = run_both(pools, 1, 1, monitor, identity())

    x = [START.double()]
    for k, tau in enumerate(taus):
        x.append(x[k] - ETA * gradient(x[k - tau]))
    assert monitor.taus[: len(order)] == taus
    np.testing.assert_allclose(monitor.vs[: len(order)], torch.stack(x[1:]).numpy(), rtol=1e-6)
    np.testing.assert_allclose(v, x[-1].numpy(), rtol=1e-6)  # what was interrupted at the end moved nothing


@pytest.mark.timeout(60)
def test_synchronous_with_averaged_gradients_is_ddrl_a3c() -> None:
    """The paper's baseline (Adamski et al. 2018): v <- v - eta * mean_m grad f_m(v), with each node's own f_m.

    Nodes take times of their own for a gradient, so that an asynchronous master would see other orders and delays.
    """
    nodes, steps = 3, 6
    targets = [TARGET + 0.1 * node for node in range(nodes)]
    pools = [
        SerialPool(quadratic(target, CURVATURE, seconds=0.004 * node), DenseLayout(START.numel(), SGD))
        for node, target in enumerate(targets)
    ]
    monitor = Record(stop=lambda record: record.t >= steps)
    mean = GlobalStep(1.0 / nodes, 0.0, START.numel())
    run_both(pools, 1, nodes, monitor, mean, synchronous=True)

    x = START.double()
    for t in range(steps):
        x = x - ETA * torch.stack([CURVATURE * (x - target) for target in targets]).mean(0)
        np.testing.assert_allclose(monitor.vs[t], x.numpy(), rtol=1e-5)
    assert monitor.taus[: nodes * steps] == [0] * (nodes * steps)


class Gated:
    """A problem of process 0 or 1: both read, then 0 writes, then 1 writes; again and again, with B = 1.

    A gradient is asked for after line 4, so a process that is in `gradient` has read; its report is asked for after
    its only update, so a process that is in `report` has written. Each turn of `turns` is one of these events:
    4n + 0 and 4n + 1: process 0, then 1, has read; 4n + 2 and 4n + 3: process 0, then 1, has written.
    """

    def __init__(self, index: int, turns: Turns) -> None:
        self._index, self._turns = index, turns
        self._round, self._writes = 0, False

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
        self._turns.wait_for(4 * self._round + self._index)
        self._turns.next()
        self._turns.wait_for(4 * self._round + 2 + self._index)
        self._writes = True
        return gradient(u_hat)

    def report(self) -> dict[str, Any]:
        if self._writes:  # else it is asked for before a gradient, as a sign of life
            self._turns.next()
            self._round += 1
            self._writes = False
        return {}

    def close(self) -> None:
        pass


@pytest.mark.timeout(60)
def test_one_node_is_lock_free_parallel_sgd() -> None:
    """Zhao et al. 2017, with a delay that a gate makes known: process 1's gradient never knows of 0's last update.

    Serial SGD would give another result; so the second half of this test is that it does.
    """
    turns = Turns()
    pool = ProcessPool(lambda index: Gated(index, turns), DenseLayout(START.numel(), SGD), 2)
    monitor = Record(stop=lambda record: record.t >= 5)
    with contextlib.closing(pool):
        v = run_both([pool], 1, 1, monitor, identity())
    u = START.clone()
    for v_t in monitor.vs:
        g = gradient(u)  # both read the same u
        u.sub_(g, alpha=ETA)
        u.sub_(g, alpha=ETA)
        np.testing.assert_array_equal(v_t, u.numpy())
    np.testing.assert_array_equal(v, u.numpy())
    assert len(monitor.vs) == 5
    assert np.abs(v - serial_sgd(10).numpy()).max() > 1e-3
