"""The exchange in the background: the recursion against a slow reference, and real processes that never stop for it.

Work is counted in whole numbers, which float32 adds exactly: what is lost or counted twice shows in the last digit.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import Pulled, Vector, WorkerPort
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.worker import overlapping_worker
from hsa2c.errors import NodeError
from hsa2c.node.layout import Access, DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.node.process_pool import ProcessPool
from hsa2c.transport.inprocess import connect
from hsa2c.transport.messages import Limits
from tests.dpsgd.monitors import Record
from tests.dpsgd.waiting import LIMIT_S, wait_until

pytestmark = pytest.mark.timeout(60)

LIMITS = Limits(start_s=LIMIT_S, silence_s=LIMIT_S)
DIM = 3


class ScriptedPool:
    """Processes whose updates are listed: those before an exchange begins, and those while it goes on.

    Args:
        before: Added to u before the k-th copy of it.
        during: Added to u between that copy and the answer.
        delay_s: How long the k-th exchange's updates take.
    """

    def __init__(self, before: list[Vector], during: list[Vector], delay_s: float = 0.0) -> None:
        self._before, self._during, self._delay_s = list(before), list(during), delay_s
        self._u: Vector = np.zeros(0, np.float32)
        self.done = np.zeros(DIM, np.float32)
        self.seen: list[Vector] = []
        self.rates: list[float] = []

    def _work(self, script: list[Vector]) -> None:
        if script:
            work = script.pop(0)
            self._u += work
            self.done += work

    def start(self, v: Vector, B: int, *, rate_scale: float) -> None:
        self._u = v.copy()
        self.rates.append(rate_scale)

    def after_updates(self, *, listener: Any) -> Vector:
        time.sleep(self._delay_s)
        self._work(self._before)
        s = self._u.copy()
        self._work(self._during)  # the processes go on: the answer comes later
        return s

    def add(self, difference: Vector, *, rate_scale: float) -> None:
        self._u += difference
        self.seen.append(self._u.copy())
        self.rates.append(rate_scale)

    def halt(self) -> Vector:
        self._work(self._during)
        return self._u.copy()

    def report(self) -> bytes:
        return b"[]"

    def state(self) -> Vector:
        return np.zeros(0, np.float32)


class ScriptedPort(WorkerPort):
    """A master whose every v is listed; keeps what is pushed."""

    def __init__(self, vs: list[Vector]) -> None:
        self._vs = list(vs)
        self._t = -1
        self.pushed: list[tuple[Vector, int]] = []

    def pull(self) -> Pulled | None:
        self._t += 1
        return Pulled(self._vs[self._t], self._t, 1.0 / (1 + self._t)) if self._t < len(self._vs) else None

    def push(self, delta: Vector, *, since: int, report: bytes) -> None:
        self.pushed.append((delta.copy(), since))

    def leave(self, state: Vector) -> None:
        self.pushed.append((np.zeros(0), -1))

    def stopping(self) -> bool:
        return False


def reference(vs: list[Vector], before: list[Vector], during: list[Vector]) -> tuple[list[Vector], list[Vector]]:
    """What is pushed, and u after each answer, from the whole history and no recursion.

    The k-th push is the work between two copies; after the k-th answer u is that v and the work since the copy.
    """
    pushed, seen = [], []
    for k in range(len(vs)):
        own = before[k] + (during[k - 1] if k else 0)
        pushed.append(own.astype(np.float32))
        if k + 1 < len(vs):
            seen.append((vs[k + 1] + during[k]).astype(np.float32))
    pushed.append((during[len(vs) - 1] + during[len(vs)]).astype(np.float32))
    return pushed, seen


whole_numbers = st.lists(st.integers(-50, 50), min_size=DIM, max_size=DIM).map(lambda x: np.array(x, np.float32))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), exchanges=st.integers(1, 6))
def test_recursion_is_the_reference(data: Any, exchanges: int) -> None:
    vs = [data.draw(whole_numbers) for _ in range(exchanges)]
    before = [data.draw(whole_numbers) for _ in range(exchanges)]
    during = [data.draw(whole_numbers) for _ in range(exchanges + 1)]
    pool, port = ScriptedPool(before, during), ScriptedPort(vs)
    overlapping_worker(port, pool, 1)
    pushed, seen = reference(vs, before, during)
    np.testing.assert_array_equal([w for w, _ in port.pushed[:-1]], pushed)
    # The work of the k-th push began at the v before: the first two, both at the first.
    assert [since for _, since in port.pushed] == [0, *range(exchanges), -1]
    assert len(pool.seen) == len(seen)
    for u, expected in zip(pool.seen, seen, strict=True):
        np.testing.assert_array_equal(u, expected)
    assert pool.rates == [1.0 / (1 + t) for t in range(exchanges)]


def test_a_node_that_the_master_never_answers_leaves() -> None:
    port = ScriptedPort([])
    overlapping_worker(port, ScriptedPool([], []), 1)
    assert [since for _, since in port.pushed] == [-1]


@settings(max_examples=15, deadline=None)
@given(nodes=st.integers(1, 4), M=st.integers(1, 4), seed=st.integers(0, 999))
def test_no_work_is_lost_or_counted_twice(nodes: int, M: int, seed: int) -> None:
    """Whatever the delays and the order of messages, in the end v is the sum of all work, to the last digit."""
    random = np.random.default_rng(seed)
    pools = [
        ScriptedPool(*random.integers(-9, 9, (2, 60, DIM)).astype(np.float32), delay_s=random.uniform(0, 2e-3))
        for _ in range(nodes)
    ]
    port, worker_ports = connect(nodes, LIMITS)
    threads = [
        threading.Thread(target=overlapping_worker, args=(end, pool, 1), daemon=True)
        for end, pool in zip(worker_ports, pools, strict=True)
    ]
    for thread in threads:
        thread.start()
    monitor = Record(stop=lambda record: record.deltas >= 20)
    v = np.zeros(DIM, np.float32)
    assert port.assemble(monitor)
    master(v, GlobalStep(1.0, 0.0, DIM), port, monitor, min(M, nodes))
    for thread in threads:
        thread.join(LIMIT_S)
    np.testing.assert_array_equal(v, sum(pool.done for pool in pools))


# Real processes


class Counting:
    """Gradients of -1 for the process's own coordinate."""

    def __init__(self, index: int, p: int, pause_s: float = 0.0, fails_at: int | None = None) -> None:
        self._g = torch.zeros(p)
        self._g[index] = -1.0
        self._pause_s, self._fails_at = pause_s, fails_at
        self._updates = self._all = 0

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
        time.sleep(self._pause_s)
        self._updates += 1
        self._all += 1
        if self._all == self._fails_at:
            raise ArithmeticError("lost count")
        return self._g

    def report(self) -> Mapping[str, Any]:
        updates, self._updates = self._updates, 0
        return {"updates": updates}

    def close(self) -> None:
        pass


class OwnCoordinates(DenseLayout):
    """U changes only where the gradient is not zero, so that processes do not overwrite each other: sums are exact."""

    def attach(self, u: torch.Tensor, state: torch.Tensor, problem: Any) -> Access:
        rate = [1.0]

        def step(g: torch.Tensor) -> None:
            index = int(g.nonzero())
            u[index] -= rate[0] * g[index]

        return Access(u.clone, step, lambda scale: rate.__setitem__(0, scale), lambda _: True)


class Quiet:
    """A listener that never says stop."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self._stop = stop
        self.kept = 0

    def stopping(self) -> bool:
        return self._stop()

    def tell(self, report: bytes) -> None:
        pass

    def keep(self, state: Vector) -> None:
        self.kept += 1


@pytest.fixture
def made() -> Iterator[Callable[..., ProcessPool]]:
    pools: list[ProcessPool] = []

    def make(p: int = 2, **options: Any) -> ProcessPool:
        layout = OwnCoordinates(p, Rule(name="sgd", learning_rate=1.0))
        pool = ProcessPool(lambda index: Counting(index, p, **options), layout, p)
        pools.append(pool)
        pool.wait_ready()
        return pool

    yield make
    for pool in pools:
        pool.close()


def counted(pool: ProcessPool) -> int:
    """What its processes report, which is what they have applied."""
    reports = json.loads(pool.report())
    applied = sum(report.get("applied", 0) for report in reports)
    assert applied == sum(report.get("updates", 0) for report in reports)
    return applied


def test_processes_go_on_and_every_update_is_reported_once(made: Callable[..., ProcessPool]) -> None:
    pool = made(pause_s=1e-4)
    pool.start(np.zeros(2, np.float32), 10, rate_scale=1.0)
    copies = [pool.after_updates(listener=Quiet()).sum() for _ in range(8)]
    last = pool.halt()
    assert last.sum() >= copies[-1] >= 8 * 2 * 10
    assert counted(pool) == last.sum()
    time.sleep(0.02)
    np.testing.assert_array_equal(pool.halt(), last)  # they rest


def test_b_is_an_average(made: Callable[..., ProcessPool]) -> None:
    """A fast process makes up for a slow one: an exchange begins after p B updates of both."""
    pool = made(pause_s=1e-3)
    pool.start(np.zeros(2, np.float32), 10, rate_scale=1.0)
    os.kill(pool.pids[0], signal.SIGSTOP)
    try:
        before = pool.after_updates(listener=Quiet())
        after = pool.after_updates(listener=Quiet())
    finally:
        os.kill(pool.pids[0], signal.SIGCONT)
    assert after[0] == before[0]
    assert 10 <= after[1] - before[1] <= 40


def test_nobody_waits_for_a_node_that_waits_for_the_network(made: Callable[..., ProcessPool]) -> None:
    """What is said meanwhile, more than sockets hold, neither stops a process nor is heard an exchange later."""
    pool = made(pause_s=1e-4)
    pool.start(np.zeros(2, np.float32), 1, rate_scale=1.0)
    pool.after_updates(listener=Quiet())
    time.sleep(1.0)
    before = pool.updates
    time.sleep(0.2)
    assert pool.updates > before + 100
    s = pool.after_updates(listener=Quiet())
    heard = sum(report.get("updates", 0) for report in json.loads(pool.report()))
    assert heard > 100
    assert pool.halt().sum() == heard + sum(report.get("updates", 0) for report in json.loads(pool.report())) >= s.sum()


def test_what_comes_from_the_master_is_added(made: Callable[..., ProcessPool]) -> None:
    pool = made(p=1, pause_s=1e-3)
    pool.start(np.zeros(1, np.float32), 1, rate_scale=1.0)
    pool.after_updates(listener=Quiet())
    pool.add(np.full(1, 1e6, np.float32), rate_scale=1.0)
    assert pool.halt()[0] >= 1e6


def test_rate_follows_the_master(made: Callable[..., ProcessPool]) -> None:
    pool = made(p=1, pause_s=1e-3)
    pool.start(np.zeros(1, np.float32), 1, rate_scale=1.0)
    pool.after_updates(listener=Quiet())
    pool.add(np.zeros(1, np.float32), rate_scale=0.0)
    pool.after_updates(listener=Quiet())
    pool.after_updates(listener=Quiet())  # by now every process has taken the rate over
    still = pool.after_updates(listener=Quiet())
    np.testing.assert_array_equal(pool.halt(), still)


def test_stop_ends_it_early_and_a_new_start_goes_on(made: Callable[..., ProcessPool]) -> None:
    pool = made(pause_s=1e-3)
    pool.start(np.zeros(2, np.float32), 10**9, rate_scale=1.0)
    began_at = time.monotonic()
    s = pool.after_updates(listener=Quiet(lambda: time.monotonic() - began_at > 0.2))
    np.testing.assert_array_equal(pool.halt(), s)
    assert counted(pool) == s.sum() > 0
    pool.start(np.zeros(2, np.float32), 1, rate_scale=1.0)
    pool.after_updates(listener=Quiet())
    assert pool.halt().sum() == counted(pool) > 0


def test_a_failure_and_a_death_are_told(made: Callable[..., ProcessPool]) -> None:
    pool = made(fails_at=25)
    pool.start(np.zeros(2, np.float32), 10, rate_scale=1.0)
    with pytest.raises(NodeError, match=r"^3 actor-learners lost within 60 s(?s:.*)lost count"):
        for _ in range(100):
            pool.after_updates(listener=Quiet())


def test_one_that_dies_is_replaced_while_the_other_goes_on(made: Callable[..., ProcessPool]) -> None:
    pool = made(pause_s=1e-3)
    pool.start(np.zeros(2, np.float32), 5, rate_scale=1.0)
    pool.after_updates(listener=Quiet())
    victim = pool.pids[1]
    os.kill(victim, signal.SIGKILL)
    copies = [pool.after_updates(listener=Quiet())]
    while copies[-1][1] < copies[0][1] + 20:  # its successor's updates
        copies.append(pool.after_updates(listener=Quiet()))
        assert len(copies) < 10_000
    (fault,) = [report["fault"] for report in json.loads(pool.report()) if "fault" in report]
    assert (
        f"actor-learner 1 (pid {victim}) was killed by SIGKILL; actor-learner 1 (pid {pool.pids[1]})"
        in fault["message"]
    )
    assert fault["pids"] == pool.pids
    assert pool.halt()[0] >= copies[-1][0] > copies[0][0]


def test_halt_does_not_wait_for_one_that_has_not_begun(made: Callable[..., ProcessPool]) -> None:
    pool = made(pause_s=1e-3)
    pool.start(np.zeros(2, np.float32), 1, rate_scale=1.0)
    os.kill(pool.pids[0], signal.SIGKILL)
    pool.after_updates(listener=Quiet())
    pool.halt()
    pool.start(np.zeros(2, np.float32), 1, rate_scale=1.0)
    while (pool.after_updates(listener=Quiet()) == 0).any():
        pass
    pool.halt()


def test_optimiser_state_is_kept_when_due() -> None:
    from hsa2c.node.process_pool import PoolLimits

    layout = DenseLayout(1, Rule(name="adam", learning_rate=0.1))
    pool = ProcessPool(lambda _: Counting(0, 1, pause_s=1e-3), layout, 1, limits=PoolLimits(keep_s=0.0))
    with contextlib.closing(pool):
        pool.wait_ready()
        pool.start(np.zeros(1, np.float32), 1, rate_scale=1.0)
        listener = Quiet()
        pool.after_updates(listener=listener)
        pool.halt()
    assert listener.kept == 1


@pytest.mark.parametrize("p", [1, 2])
def test_one_node_end_to_end(p: int) -> None:
    """Master, queues and real processes: v ends as the count of all updates."""
    layout = OwnCoordinates(p, Rule(name="sgd", learning_rate=1.0))
    pool = ProcessPool(lambda index: Counting(index, p, pause_s=1e-4), layout, p)
    with contextlib.closing(pool):
        pool.wait_ready()
        port, (end,) = connect(1, LIMITS)
        thread = threading.Thread(target=overlapping_worker, args=(end, pool, 5), daemon=True)
        thread.start()
        monitor = Record(stop=lambda record: record.deltas >= 30)
        v = np.zeros(p, np.float32)
        assert port.assemble(monitor)
        master(v, GlobalStep(1.0, 0.0, p), port, monitor, 1)
        wait_until(lambda: not thread.is_alive(), "the node leaves")
    assert v.sum() == sum(report.get("applied", 0) for report in monitor.reports())
    assert v.sum() == sum(report.get("updates", 0) for report in monitor.reports())
    assert monitor.taus[:-1] == [0] + [1] * (len(monitor.taus) - 2)  # at most the exchange that was under way
