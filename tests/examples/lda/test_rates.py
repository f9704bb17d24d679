"""Learning rates by hand, and the bound of positivity against the recurrence that it is of."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsa2c.examples.lda.rates import MOST_ETA, Rate, paper_rate, positivity


def test_rate_by_hand():
    """(4 + 12)^-0.75 = 1/8; (1 + 0)^-0.6 = 1; 0.5 (1 + 3)^-1 = 1/8."""
    assert Rate(kappa=0.75, tau0=4.0)(12) == pytest.approx(1 / 8)
    assert Rate(kappa=0.6, tau0=1.0)(0) == 1.0
    assert Rate(eta=0.5, kappa=1.0, tau0=1.0)(3) == pytest.approx(1 / 8)


def test_rate_without_kappa_is_constant():
    rate = Rate(eta=0.07)
    assert [rate(n) for n in (0, 1, 10**9)] == [0.07] * 3


def test_rate_falls():
    rate = Rate(kappa=0.7, tau0=10.0)
    values = [rate(n) for n in range(1000)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(10**-0.7)
    assert values[0] / values[-1] == pytest.approx((1009 / 10) ** 0.7)


@given(
    rate=st.sampled_from([Rate(eta=0.2), Rate(kappa=0.7, tau0=10.0), Rate(kappa=0.6, tau0=1.0), Rate(eta=1.0)]),
    updates=st.integers(0, 200),
)
def test_decay_is_the_weight_that_v_keeps(rate, updates):
    kept = 1.0
    for n in range(updates):
        kept *= 1 - min(rate(n), MOST_ETA)
    if kept > 1e-300:
        assert math.exp(-rate.decay(updates)) == pytest.approx(kept, rel=1e-6)


def test_decay_by_hand():
    """Two halvings; and updates of rate 1, each of which leaves a millionth."""
    assert Rate(eta=0.5).decay(2) == pytest.approx(math.log(4))
    assert Rate(eta=1.0).decay(3) == pytest.approx(3 * math.log(1e6))


def test_paper_rate_by_hand():
    """Section 4.1: eight processes, B = 15, M = 36."""
    assert paper_rate(p=8, B=15, M=36) == pytest.approx(0.1 / (8 * 15 * 36) ** 0.25)
    assert paper_rate(p=8, B=15, M=36) == pytest.approx(0.01233, abs=1e-5)
    assert paper_rate(p=1, B=1, M=1) == 0.1
    assert paper_rate(p=2, B=2, M=4) == pytest.approx(0.05)


# Positivity


def test_bounds_of_positivity_by_hand():
    bounds = [positivity(1.0, 1, 0.5, tau)[1] for tau in (0, 1, 2)]
    assert bounds == pytest.approx([1.0, 0.25, 4 / 27])


def test_a_by_hand():
    """rho M (1 - kept): half of v is forgotten on each of four nodes, and rho is 1/8."""
    assert positivity(0.125, 4, 0.5, 3)[0] == pytest.approx(0.25)
    assert positivity(1.0, 1, 1.0, 0)[0] == 0.0


def stays_positive(a, tau, steps=20_000):
    """Whether x_(t+1) = x_t - a x_(t - tau) does, from x = 1."""
    x = [1.0] * (tau + 1)
    for _ in range(steps):
        x.append(x[-1] - a * x[-1 - tau])
        del x[0]
        if x[-1] <= 0:
            return False
        if x[-1] < 1e-200:  # scaled: only signs count
            x = [value * 1e200 for value in x]
    return True


@pytest.mark.parametrize("tau", [0, 1, 2, 3, 8])
def test_the_bound_is_where_the_recurrence_turns_negative(tau):
    _, bound = positivity(1.0, 1, 0.5, tau)
    assert stays_positive(bound * 0.999, tau)
    assert not stays_positive(bound * 1.001, tau)
