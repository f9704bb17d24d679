"""Nodes whose gradients other processes compute: the same to the last bit as in one process, whatever happens when."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.worker import overlapping_worker, worker
from hsa2c.errors import NodeError
from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.simulation.clock import SimulatedClock
from hsa2c.simulation.durations import time_gradients
from hsa2c.simulation.gradients import Gradients
from hsa2c.simulation.learning_pool import LearningPool, Times
from hsa2c.simulation.links import Link, Sizes
from hsa2c.simulation.network import connect
from hsa2c.simulation.process_pool import UpdateTimes
from hsa2c.simulation.stepped_pool import SteppedPool
from tests.dpsgd.monitors import Record

TRUTH = torch.tensor([1.0, -2.0, 0.5, 3.0])
LAYOUT = DenseLayout(4, Rule(name="adam", learning_rate=0.02))
LINK = Link(bytes_per_s=1e8, latency_s=1e-3)
NODES, P = 3, 2


class Rows(Problem):
    """Least squares over random rows; each third gradient gathers."""

    def __init__(self, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._made = 0
        self._g = torch.empty(4)

    @property
    def gathers(self) -> bool:
        return self._made % 3 == 0

    @property
    def gathered_for(self) -> int:
        return 3

    def share(self, scratch: dict[str, Any]) -> None:
        self._g = scratch.setdefault("g", self._g)

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> torch.Tensor:
        x = torch.randn(8, 4, generator=self._random)
        self._made += 1
        return torch.mv(x.t(), torch.mv(x, u_hat - TRUTH), out=self._g)

    def report(self) -> Mapping[str, Any]:
        return {"made": self._made}


class Alone(Rows):
    """In this process, on copies; gathers nothing, for a `SteppedPool` has one kind of update."""

    gathers = False

    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> torch.Tensor:
        return super().gradient(torch.from_numpy(u_hat), interrupted).clone()


class Fails(Rows):
    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> torch.Tensor:
        if self._made == 4:
            raise ZeroDivisionError("here")
        return super().gradient(u_hat, interrupted)


class Dies(Rows):
    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> torch.Tensor:
        if self._made == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().gradient(u_hat, interrupted)


class NotFinite(Rows):
    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> torch.Tensor:
        g = super().gradient(u_hat, interrupted)
        return g.fill_(torch.nan) if self._made == 2 else g


class Hangs(Rows):
    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> torch.Tensor:
        time.sleep(60)
        return super().gradient(u_hat, interrupted)


def play(clock: SimulatedClock, pools: list[Any], loop: Callable[..., None], steps: int) -> tuple[Vector, Record]:
    monitor = Record(stop=lambda record: record.t >= steps)
    port, workers = connect(clock, len(pools), node_link=LINK, sizes=Sizes(v=10_000, delta=10_000, state=0, text=100))
    v = np.zeros(4, np.float32)

    def lead() -> None:
        if port.assemble(monitor):
            master(v, GlobalStep(1 / len(pools), 0.0, 4), port, monitor, len(pools))

    clock.start(lead)
    for end, pool in zip(workers, pools, strict=True):
        clock.start(loop, end, pool, 4)
    clock.run()
    return v, monitor


class Alike(Rows):
    """All gradients are alike."""

    gathers = False
    gathered_for = 0


@pytest.mark.parametrize("problem", [Rows, Alike])
def test_gathering_has_its_share_of_the_time_of_an_update(problem: type[Rows]) -> None:
    clock = SimulatedClock()
    gradients = Gradients([partial(problem, 0)], 4, 1)
    try:
        pool = LearningPool(gradients, range(1), LAYOUT, clock, Times(UpdateTimes(0.01), UpdateTimes(0.02)))
        play(clock, [pool], worker, 15)  # of 4 updates each: 20 gatherings
    finally:
        gradients.close()
    assert pool.updates >= 60
    assert clock.now == pytest.approx(0.03 * pool.updates, rel=0.05)


def learners(gradients: Gradients, clock: SimulatedClock, times: Times, **options: Any) -> list[LearningPool]:
    return [
        LearningPool(gradients, range(node * P, (node + 1) * P), LAYOUT, clock, times, **options)
        for node in range(NODES)
    ]


def spread(problem: type[Rows], processes: int, loop: Callable[..., None] = overlapping_worker) -> tuple[Any, ...]:
    """Several nodes, each with processes of a slowness of its own; gradients are computed by so many processes."""
    clock = SimulatedClock()
    gradients = Gradients([partial(problem, seed) for seed in range(NODES * P)], 4, processes)
    try:
        times = Times(UpdateTimes(0.03, 0.5, seed=1), UpdateTimes(0.03, 0.2, seed=2))
        pools = learners(gradients, clock, times, exchange_s=0.003)
        v, monitor = play(clock, pools, loop, 20)
        return v, monitor, clock.now, gradients.failure
    finally:
        clock.close()
        gradients.close()


@pytest.mark.parametrize("loop", [worker, overlapping_worker])
def test_how_many_processes_compute_makes_no_difference(loop: Callable[..., None]) -> None:
    (v, monitor, now, _), (other, other_monitor, other_now, _) = (spread(Rows, n, loop) for n in (1, 2))
    assert v.tobytes() == other.tobytes()
    assert now == other_now
    assert monitor.texts == other_monitor.texts
    assert np.abs(v).min() > 0.1, "nothing was learnt"


def test_elsewhere_is_as_good_as_in_this_process() -> None:
    clock = SimulatedClock()

    def node(number: int) -> SteppedPool:
        state = torch.zeros(LAYOUT.state_size)
        problems = [Alone(number * P + k) for k in range(P)]
        pool = SteppedPool(problems, lambda u, g, _: access.step(g), 4, clock, times)
        access = LAYOUT.attach(torch.from_numpy(pool.u), state, problems[0])
        return pool

    times = UpdateTimes(0.03, 0.5, seed=1)
    _, expected = play(clock, [node(number) for number in range(NODES)], overlapping_worker, 20)
    clock = SimulatedClock()
    gradients = Gradients([partial(Rows, seed) for seed in range(NODES * P)], 4, 2)
    try:
        pools = learners(gradients, clock, Times(UpdateTimes(0.03, 0.5, seed=1)))
        _, monitor = play(clock, pools, overlapping_worker, 20)
    finally:
        gradients.close()
    # The last delta of each node is another: nobody waits for gradients that are under way when the run stops.
    assert [v.tobytes() for v in monitor.vs[:20]] == [v.tobytes() for v in expected.vs[:20]]
    assert monitor.taus[:60] == expected.taus[:60]


def test_reports_tell_what_was_applied_and_how_stale_it_was() -> None:
    _, monitor, *_ = spread(Rows, 2)
    reports = monitor.reports()
    applied = sum(item.get("applied", 0) for item in reports)
    overlaps = [(int(other), count) for item in reports for other, count in item.get("overlap", {}).items()]
    assert applied == sum("made" in item for item in reports)
    assert 0 <= applied - sum(count for _, count in overlaps) <= NODES * P
    assert {other for other, _ in overlaps} >= {0, 1, 2}  # of two processes each, of unlike updates


def test_a_gradient_that_is_not_finite_is_not_used() -> None:
    v, monitor, *_ = spread(NotFinite, 2)
    assert np.isfinite(v).all()
    assert sum(item.get("refused_gradients", 0) for item in monitor.reports()) == NODES * P


def unlucky(problem: type[Rows], **limits: float) -> Gradients:
    gradients = Gradients([partial(problem, seed) for seed in range(3)], 4, 2, **limits)
    try:
        u = torch.zeros(4)
        for _ in range(5):
            for learner in range(3):
                gradients.begin(learner, u, 0.0)
            found = [gradients.end(learner) for learner in range(3)]
        assert found[1] is None
    finally:
        gradients.close()
    return gradients


def test_a_problem_that_fails_is_named_with_its_traceback() -> None:
    failure = unlucky(Fails).failure
    assert failure is not None and failure.startswith("learner ") and "ZeroDivisionError: here" in failure


def test_a_process_that_dies_is_named() -> None:
    failure = unlucky(Dies).failure
    assert failure is not None and "pid " in failure and "SIGKILL" in failure


def test_a_process_that_hangs_is_waited_for_so_long_and_no_longer() -> None:
    began_at = time.monotonic()
    failure = unlucky(Hangs, limit_s=0.3).failure
    assert failure is not None and "hangs" in failure
    assert time.monotonic() - began_at < 10


def test_nobody_waits_for_what_nobody_wants() -> None:
    gradients = Gradients([partial(Hangs, 0)], 4, 1)
    try:
        gradients.begin(0, torch.zeros(4), 0.0)
        gradients.abandoned = lambda: True
        assert gradients.end(0) is None
        assert gradients.failure is None
    finally:
        gradients.close()


class Notes(Rows):
    """Reports when it was asked."""

    def report(self) -> Mapping[str, Any]:
        return {"at": time.monotonic()}


def test_what_is_needed_first_is_computed_first() -> None:
    gradients = Gradients([partial(Sleeps, 0), partial(Notes, 1), partial(Notes, 2)], 4, 1)
    try:
        for learner, until in ((0, 0.0), (1, 9.0), (2, 3.0)):  # the first keeps the process busy meanwhile
            gradients.begin(learner, torch.zeros(4), until)
        computed = [gradients.end(learner) for learner in range(3)]
    finally:
        gradients.close()
    late, early = (json.loads(each.report)["at"] for each in computed[1:] if each)
    assert early < late


def test_times_are_measured_in_all_processes() -> None:
    gradients = Gradients([partial(Rows, seed) for seed in range(2)], 4, 2)
    try:
        durations = gradients.measure(0, torch.zeros(4), 0.01)
    finally:
        gradients.close()
    assert 0 < durations.mean_s < 1


def test_a_failure_while_times_are_measured_is_an_error() -> None:
    gradients = Gradients([partial(Fails, 0)], 4, 1)
    try:
        with pytest.raises(NodeError, match="ZeroDivisionError"):
            gradients.measure(0, torch.zeros(4), 10)
    finally:
        gradients.close()


class Sleeps(Rows):
    def gradient(self, u_hat: Any, interrupted: Callable[[], bool]) -> torch.Tensor:
        time.sleep(0.05 if self.gathers else 0.01)
        return super().gradient(u_hat, interrupted)


def test_gathering_is_told_from_the_gradients() -> None:
    found = time_gradients(Sleeps(0), torch.zeros(4), 0.2)
    assert found.gradient_s == pytest.approx(0.01, rel=0.5)
    assert found.gathering_s == pytest.approx(0.04 / 3, rel=0.5)
