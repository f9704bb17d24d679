"""Simulations side by side: the same outcomes in the same order, and what becomes of processes that die."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from dataclasses import asdict

import psutil
import pytest

from hsa2c.errors import HSA2CError
from hsa2c.simulation import parallel as planning_pool
from hsa2c.simulation.planning import Cluster, simulate

CLUSTERS = [
    Cluster(nodes=nodes, cores=2, B=B, exchanges=100, seconds=5.0)  # type: ignore[arg-type]
    for nodes, B in ((3, 1), (30, "auto"), (10, 8))
]


def no_children() -> bool:
    return not psutil.Process().children(recursive=True)


@pytest.mark.timeout(60)
def test_how_many_at_the_same_time_makes_no_difference() -> None:
    alone = [simulate(cluster) for cluster in CLUSTERS]
    for jobs in (1, 2, 5):
        told: list[int] = []
        found = planning_pool.simulate_all(
            CLUSTERS, jobs, lambda progress, told=told: told.append(len(progress.outcomes))
        )
        assert [asdict(outcome) for outcome in found] == [asdict(outcome) for outcome in alone]
        assert found == alone
        assert told == sorted(told)
        assert told[-1] == 3
        assert no_children()


def test_what_is_not_a_number_comes_back() -> None:
    cluster = Cluster(nodes=2, B=10**6, seconds=5.0)  # no exchange
    (found,) = planning_pool.simulate_all([cluster], 1, lambda _: None)
    assert math.isnan(found.exchange_s)
    assert math.isnan(found.tau_mean)


@pytest.mark.timeout(60)
def test_a_process_that_dies_is_told(monkeypatch) -> None:
    def simulate(cluster, progress):
        if cluster.nodes == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    monkeypatch.setattr(planning_pool, "simulate", simulate)
    with pytest.raises(HSA2CError, match=r"30 nodes, B = auto, masters = 1 has died: exit code -9"):
        planning_pool.simulate_all(CLUSTERS, 2, lambda _: None)
    assert no_children()


def test_a_process_that_cannot_be_started_is_one_line(monkeypatch) -> None:
    def start(self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.get_context("fork").Process, "start", start)
    with pytest.raises(HSA2CError, match="cannot start a process to simulate in: Resource temporarily unavailable"):
        planning_pool.simulate_all(CLUSTERS, 2, lambda _: None)


@pytest.mark.timeout(60)
def test_whoever_interrupts_leaves_no_process() -> None:
    forever = [Cluster(nodes=9, seconds=1e5, exchanges=10**9)] * 3

    def interrupt(progress):
        if len(progress.shares) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planning_pool.simulate_all(forever, 2, interrupt)
    assert no_children()


@pytest.mark.timeout(60)
def test_processes_whose_parent_was_killed_end() -> None:
    if (parent := os.fork()) == 0:
        planning_pool.simulate_all([Cluster(nodes=9, seconds=1e4, exchanges=10**9)] * 2, 2, lambda _: None)
        os._exit(0)
    children: list[psutil.Process] = []
    while len(children) < 2:
        children = psutil.Process(parent).children()
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    _, left = psutil.wait_procs(children, timeout=50)
    assert not left
