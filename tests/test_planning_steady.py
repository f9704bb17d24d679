"""When a simulation may end: rounds whose rates stand still, scatter, or return."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np

from hsa2c.planning_steady import Rounds


def rounds_needed(rates, tolerance: float = 0.02) -> int | None:
    """How many rounds of a second each until it is enough."""
    rounds, grown = Rounds(tolerance), 0.0
    assert not rounds.end(0.0, (grown, 0.0))
    for number, rate in enumerate(rates, 1):
        grown += rate
        if rounds.end(float(number), (grown, 10.0 * number)):
            return number
    return None


def test_what_stands_still_needs_five_rounds() -> None:
    assert rounds_needed([100.0] * 9) == 5


def test_what_returns_every_third_round_needs_batches_of_three() -> None:
    assert rounds_needed(islice(cycle([110.0, 100.0, 90.0]), 40)) == 15


def test_what_scatters_needs_more_the_more_it_does() -> None:
    random = np.random.default_rng(1)
    little, much = (
        np.mean([rounds_needed(random.normal(100.0, scatter, 3000)) for _ in range(50)]) for scatter in (3.0, 10.0)
    )
    assert 5 < little < 15
    assert much > 3 * little


def test_the_mean_lies_within_the_tolerance() -> None:
    random = np.random.default_rng(2)
    means = []
    for _ in range(200):
        rates = random.normal(100.0, 5.0, 3000)
        means.append(rates[: rounds_needed(rates)].mean())
    assert np.mean(np.abs(np.array(means) - 100.0) <= 2.0) > 0.85  # looked at after every round, it is less than 95 %


def test_what_grows_is_not_enough() -> None:
    assert rounds_needed([100.0 * 1.1**number for number in range(30)]) is None
    assert rounds_needed([0.0] * 30) == 5  # nothing happens, and that is known
