"""Overlap against a slow count from a list of all that happened, and a process's seconds against its own clock."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch

from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.node.overlap import Clock, Overlap
from tests.dpsgd.problems import quadratic

SGD = Rule(name="sgd", learning_rate=0.1)


def slow_overlaps(happened: list[tuple[str, int]]) -> list[Counter[int]]:
    """Of each process: the updates of others that ended between its read and its own end."""
    overlaps: list[Counter[int]] = [Counter() for _ in range(1 + max(process for _, process in happened))]
    for end, (what, process) in enumerate(happened):
        if what == "end":
            read = max(at for at in range(end) if happened[at] == ("read", process))
            between = [who for did, who in happened[read:end] if did == "end" and who != process]
            overlaps[process][len(between)] += 1
    return overlaps


@pytest.mark.parametrize("p", [1, 2, 5])
def test_overlap_is_what_a_slow_count_finds(p: int) -> None:
    random = np.random.default_rng(p)
    applied = np.zeros(p, np.int64)
    watchers = [Overlap(applied) for _ in range(p)]
    layout = DenseLayout(4, SGD)
    u = torch.zeros(4)
    hands = [watcher.measured(layout.attach(u, torch.zeros(0), quadratic(torch.ones(4)))) for watcher in watchers]
    gradients: list[torch.Tensor | None] = [None] * p
    happened = []
    for process in random.integers(0, p, 2000):
        if gradients[process] is None:
            happened.append(("read", int(process)))
            gradients[process] = hands[process].read() - 1
        else:
            happened.append(("end", int(process)))
            hands[process].step(gradients[process])
            applied[process] += 1
            gradients[process] = None
    overlaps = [watcher.take() for watcher in watchers]
    assert overlaps == slow_overlaps(happened)
    assert [sum(counts.values()) for counts in overlaps] == applied.tolist()
    assert max(max(counts) for counts in overlaps) > 2 or p == 1
    assert all(watcher.take() == {} for watcher in watchers), "reported once"


def test_measured_access_reads_and_steps_as_before() -> None:
    u, layout = torch.zeros(4), DenseLayout(4, SGD)
    access = layout.attach(u, torch.zeros(0), quadratic(torch.ones(4)))
    measured = Overlap(np.zeros(1, np.int64)).measured(access)
    measured.step(torch.full((4,), -2.0))
    assert u.tolist() == pytest.approx([0.2] * 4)
    assert measured.read().tolist() == u.tolist()
    assert (measured.scale_rate, measured.finite) == (access.scale_rate, access.finite)


def test_seconds_by_hand() -> None:
    now = [10.0, 1.0]
    clock = Clock(lambda: (now[0], now[1]))
    assert clock.take(5.0) == {"wall": 0.0, "computing": 0.0, "waiting": 0.0}, "not begun"
    clock.start(2.0)
    now[:] = [14.0, 2.5]
    clock.start(2.2)
    assert clock.take(2.5) == {"wall": 4.0, "computing": 1.5, "waiting": 0.5}, "of 2.5 s of waiting 2 were before"
    now[:] = [15.0, 3.0]
    assert clock.take(0.25) == {"wall": 1.0, "computing": 0.5, "waiting": 0.25}


def test_sleeping_is_not_computing() -> None:
    clock = Clock()
    clock.start(0.0)
    time.sleep(0.2)
    busy_until = time.process_time() + 0.1
    while time.process_time() < busy_until:
        pass
    seconds = clock.take(0.0)
    assert seconds["wall"] > 0.29
    assert 0.1 <= seconds["computing"] < 0.2
