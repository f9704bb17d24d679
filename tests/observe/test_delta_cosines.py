"""Norms and cosines by hand and against a slow loop, and how much of the time they may take."""

import numpy as np
import pytest

from hsa2c.observe.delta_cosines import DeltaCosines


def vector(*numbers):
    return np.array(numbers, np.float32)


@pytest.fixture
def clock():
    """Seconds that pass when the test says so; each look at it takes `tick` more."""

    class Clock:
        now, tick = 100.0, 0.0

        def __call__(self):
            self.now += self.tick
            return self.now

    return Clock()


def test_two_steps_by_hand(clock):
    delta_cosines = DeltaCosines(clock=clock)
    delta_cosines.received(0, vector(3, 4))
    delta_cosines.received(1, vector(3, -4))
    delta_cosines.stepped()
    delta_cosines.received(1, vector(0, 2))
    delta_cosines.received(0, vector(-1, 0))
    delta_cosines.stepped()
    looks = delta_cosines.take()
    assert looks.norms == [(0, 5.0), (1, 5.0), (1, 2.0), (0, 1.0)]
    assert looks.cosines == [(1, 0.0), (0, -1.0)], "with (6, 0) / 2"
    assert looks.agreements == pytest.approx([6 / 10, 5**0.5 / 3])
    assert delta_cosines.take() == ([], [], [])


@pytest.mark.parametrize("M", [1, 3])
def test_against_all_deltas_kept(clock, M):
    """The agreement is the mean cosine with the step's own mean, weighted by norm."""
    random = np.random.default_rng(M)
    steps = random.normal(1, 2, (6, M, 50)).astype(np.float32)
    delta_cosines = DeltaCosines(clock=clock)
    cosines, agreements, before = [], [], None
    for step in steps:
        mean = np.mean([delta.astype(float) for delta in step], axis=0)
        norms = [float(np.sqrt(sum(float(x) ** 2 for x in delta))) for delta in step]
        if before is not None:
            cosines += [cosine(delta, before) for delta in step]
        agreements.append(sum(norm * cosine(delta, mean) for norm, delta in zip(norms, step, strict=True)) / sum(norms))
        before = mean
        given = np.empty(50, np.float32)
        for node, delta in enumerate(step):
            given[:] = delta  # a port reuses its buffer
            delta_cosines.received(node, given)
        given[:] = np.nan
        delta_cosines.stepped()
    looks = delta_cosines.take()
    assert [value for _, value in looks.cosines] == pytest.approx(cosines, abs=1e-6)
    assert looks.agreements == pytest.approx(agreements, abs=1e-6)


def cosine(a, b):
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / float(
        np.linalg.norm(a.astype(float)) * np.linalg.norm(b.astype(float))
    )


def test_delta_without_length_has_no_cosine(clock):
    delta_cosines = DeltaCosines(clock=clock)
    for delta in (vector(1, 0), vector(0, 0), vector(1, 1)):
        delta_cosines.received(0, delta)
        delta_cosines.stepped()
    looks = delta_cosines.take()
    assert [norm for _, norm in looks.norms] == pytest.approx([1, 0, 2**0.5])
    assert looks.cosines == []
    assert looks.agreements == pytest.approx([1, 1])


def test_looks_at_all_where_that_is_cheap(clock):
    delta_cosines = DeltaCosines(share=0.01, clock=clock)
    clock.tick = 1e-4
    for _ in range(50):
        clock.now += 0.2
        delta_cosines.received(0, vector(1, 0))
        delta_cosines.stepped()
    looks = delta_cosines.take()
    assert (len(looks.norms), len(looks.cosines)) == (50, 49)


def test_rests_so_long_that_its_share_of_the_time_is_small(clock):
    delta_cosines = DeltaCosines(share=0.01, clock=clock)
    clock.tick = 1e-3  # so a look takes a millisecond, and 4 deltas come in as many
    began_at, taken_s = clock.now, 0.0
    steps = 5000
    for _ in range(steps):
        for node in range(4):
            before = clock.now
            delta_cosines.received(node, vector(1, 0))
            taken_s += clock.now - before
            clock.now += 0.001
        before = clock.now
        delta_cosines.stepped()
        taken_s += clock.now - before - clock.tick  # to ask the time is not to look
    looks = delta_cosines.take()
    assert taken_s / (clock.now - began_at) < 0.03
    assert 4 * 10 <= len(looks.cosines) <= 4 * steps / 20
    assert len(looks.norms) == 2 * len(looks.cosines), "pairs of steps, rests between them"
