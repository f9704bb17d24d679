"""Waiting that ends, and does not count what nobody waited."""

import pytest

from hsa2c.dpsgd.patience import LONGEST_LOOK_S, Patience


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_ends_after_its_limit() -> None:
    clock = Clock()
    patience = Patience(3.0, clock=clock)
    assert patience.left_s() == 3.0
    left = []
    for _ in range(6):
        clock.now_s += 0.5
        left.append(patience.left_s())
    assert left == pytest.approx([2.5, 2.0, 1.5, 1.0, 0.5, 0.0])


def test_a_stop_counts_as_one_long_look() -> None:
    clock = Clock()
    patience = Patience(3.0, clock=clock)
    clock.now_s += 86_400.0
    assert patience.left_s() == pytest.approx(3.0 - LONGEST_LOOK_S)
    clock.now_s += 0.25
    assert patience.left_s() == pytest.approx(1.75)
