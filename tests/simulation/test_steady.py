"""From when on figures stand still: rounds that are alike, that scatter, that return, that grow."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np
import pytest

from hsa2c.simulation.steady import steady_since


def looked_at(figures, tolerance: float = 0.02) -> tuple[int, int] | None:
    """After how many rounds it is enough, looking after each, and from which on they count."""
    table = np.array([[figure, 10.0] for figure in figures])
    for rounds in range(8, len(table) + 1):
        since = steady_since(table[:rounds], [tolerance, tolerance])
        if since is not None:
            return rounds, since
    return None


def test_a_third_is_left_out() -> None:
    assert looked_at([100.0] * 9) == (8, 3)
    assert looked_at([500.0, 300.0, 200.0, *[100.0] * 6]) == (8, 3)
    assert looked_at([500.0, 300.0, 200.0, 150.0, *[100.0] * 9]) == (10, 4)


def test_what_returns_every_third_round_needs_batches_of_three() -> None:
    assert looked_at(islice(cycle([110.0, 100.0, 90.0]), 40)) == (23, 8)


def test_the_more_it_scatters_the_longer_it_takes() -> None:
    random = np.random.default_rng(1)
    little, much = (
        np.mean([looked_at(random.normal(100.0, scatter, 600))[0] for _ in range(30)]) for scatter in (3.0, 7.0)
    )
    assert 8 < little < 25
    assert much > 1.5 * little


def test_the_mean_lies_within_the_tolerance() -> None:
    random = np.random.default_rng(2)
    off = []
    for _ in range(100):
        figures = random.normal(100.0, 5.0, 600)
        rounds, since = looked_at(figures)
        off.append(figures[since:rounds].mean() / 100.0 - 1)
    assert np.mean(np.abs(off) <= 0.02) > 0.8  # looked at after every round, it is less than 95 %


@pytest.mark.parametrize("figures", [[100.0 * 1.1**n for n in range(40)], [100.0 * 0.9**n for n in range(40)]])
def test_what_grows_or_falls_does_not_stand_still(figures) -> None:
    assert looked_at(figures) is None


def test_too_few_rounds() -> None:
    assert steady_since(np.ones((7, 2)), [0.02, 0.02]) is None
    assert steady_since(np.zeros((8, 2)), [0.02, 0.02]) == 3  # nothing happens, and that is known
