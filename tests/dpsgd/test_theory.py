"""The theorem's equations: numbers worked by hand, loops shaped like the formulas, and one from another."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsa2c.dpsgd.steps import corollary_rate
from hsa2c.dpsgd.theory import (
    Objective,
    constant_A,
    delay_between_nodes,
    delay_inside_a_node,
    equal_rates,
    fewest_steps,
    gradient_bound,
    largest_eta,
)

positive = st.floats(0.1, 10)
objectives = st.builds(Objective, L=positive, V=positive, gap=positive, alpha=st.floats(0.1, 1))
counts = st.integers(1, 50)


def test_by_hand():
    f = Objective(L=2.0, V=3.0, gap=16.0, alpha=0.5)
    # 2 * 9 * (2 + 4 + 2 * 2 * 0.5 / (0.5 * 0.5)) = 18 * (6 + 8)
    assert constant_A(f, 0.5) == pytest.approx(252)
    # rho^2 = 4 / (252 * 0.5 * sqrt(100)) = 4 / 1260
    assert equal_rates(f, 0.5, T=5, M=4, B_tilde=5) == pytest.approx(math.sqrt(4 / 1260))
    assert gradient_bound(f, 0.5, T=5, M=4, B_tilde=5) == pytest.approx(3 * 252 * 0.4)
    # (4 * 5 * 0.1 * 2 * 0.01 * 3)^2
    assert delay_between_nodes(f, eta=0.1, rho=0.01, M=4, B_tilde=5, D_prime=3) == pytest.approx(0.12**2)
    # 1 / (1 - 0.001 - 9 * 0.001 * 2 * 4 * 1.5)
    assert delay_inside_a_node(f, 0.5, eta=0.001, D=1) == pytest.approx(1 / 0.891)
    assert delay_inside_a_node(f, 0.5, eta=1.0, D=1) == math.inf


@given(f=objectives, eta=st.floats(1e-4, 1), rho=st.floats(1e-4, 1), M=counts, B_tilde=counts, D=st.integers(0, 9))
def test_eq_7_as_a_loop(f, eta, rho, M, B_tilde, D):
    total = 0.0
    for _ in range(1, D + 1):
        total += rho
    expected = M**2 * B_tilde**2 * eta**2 * f.L**2 * rho * D * total
    assert delay_between_nodes(f, eta=eta, rho=rho, M=M, B_tilde=B_tilde, D_prime=D) == pytest.approx(expected)


@given(f=objectives, mu=st.floats(0.01, 0.99), eta=st.floats(1e-9, 10), D=st.integers(0, 9))
def test_eq_8_as_printed_never_holds(f, mu, eta, D):
    assert delay_inside_a_node(f, mu, eta=eta, D=D) > mu


@given(f=objectives, mu=st.floats(1.05, 3), D=st.integers(0, 9))
def test_largest_eta_meets_eq_8_with_equality(f, mu, D):
    eta = largest_eta(f, mu, D=D)
    assert delay_inside_a_node(f, mu, eta=eta, D=D) == pytest.approx(mu)
    assert delay_inside_a_node(f, mu, eta=1.01 * eta, D=D) > mu


@given(f=objectives, mu=st.floats(1.1, 3), M=counts, B_tilde=counts, D=st.integers(0, 5), D_prime=st.integers(1, 9))
def test_eq_10_is_where_eq_9_meets_eq_7_and_eq_8(f, mu, M, B_tilde, D, D_prime):
    """With rho^4 = gap / (A^2 alpha^2 T M B~), as Eq. 9 has it, for each T that Eq. 10 gives."""
    between, inside = fewest_steps(f, mu, M=M, B_tilde=B_tilde, D=D, D_prime=D_prime)
    rate = lambda T: (f.gap / ((constant_A(f, mu) * f.alpha) ** 2 * T * M * B_tilde)) ** 0.25
    eq7 = delay_between_nodes(f, eta=rate(between), rho=rate(between), M=M, B_tilde=B_tilde, D_prime=D_prime)
    assert eq7 == pytest.approx(1)
    assert rate(inside) == pytest.approx(largest_eta(f, mu, D=D))


@given(f=objectives, mu=st.floats(0.01, 0.99), T=st.integers(1, 10**6), p=counts, B=counts, M=counts)
def test_eq_13_is_the_ratio_of_eq_9(f, mu, T, p, B, M):
    alone = equal_rates(f, mu, T=T, M=1, B_tilde=1)
    assert equal_rates(f, mu, T=T, M=M, B_tilde=p * B) == pytest.approx(corollary_rate(alone, p=p, B=B, M=M))
